"""What a chunk costs in the gateway, counted so that a busy machine does not matter."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench.gateway_inside import Inside

STREAMS, ROUNDS = 8, 16
MOST_CALLS = 140
"""Functions of ours that are called for each chunk. 400 streams are 8,600 chunks a second: a core has 116 us for each."""


def test_a_chunk_passes_the_gateway_with_few_calls(tmp_path: Path) -> None:
    inside, calls = Inside(tmp_path, STREAMS, 4), 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call" and "glowd" in frame.f_globals.get("__name__", "")

    try:
        inside.chunk_s()  # the first one starts the utterances
        sys.setprofile(count)
        for _ in range(ROUNDS):
            inside.chunk_s()
    finally:
        sys.setprofile(None)
        inside.gateway.close()
    assert 20 < calls / STREAMS / ROUNDS < MOST_CALLS
