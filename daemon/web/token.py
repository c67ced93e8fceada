"""The token of the web process: a file in the run directory, so that it stays the same when the daemon is restarted.

Rules: the file is private to its user (0600), as the run directory is. A file without a usable token gets a new one.
"""

import contextlib
import os
import re
import secrets
from pathlib import Path

FILE = "web-token"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")


def web_token(run_dir: Path) -> str:
    """The token of this run directory; it is made at the first call. Raises OSError if it cannot be kept."""
    path = run_dir / FILE
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if TOKEN.fullmatch(kept := path.read_text("ascii").strip()):
            return kept
    token = secrets.token_urlsafe(24)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token + "\n")
    return token
