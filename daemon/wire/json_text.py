"""JSON that somebody else has written: whatever it is, it is read, or refused with one kind of error.

Rules: text only. json itself raises RecursionError for what is nested too deeply, and accepts halves of characters (surrogates),
which nobody can write down later; nobody who reads a message expects either.
"""

import json
from typing import Any

__all__ = ["read_json"]


def read_json(text: str | bytes) -> Any:
    """What the text holds. Raises ValueError."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found
