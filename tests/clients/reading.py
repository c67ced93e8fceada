"""What the tests of the blocking client share."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from glowd.clients.client import Stream
from glowd.daemon import wire
from tests.harness.waiting import WAIT_S


def in_thread(target: Callable[[], object]) -> threading.Thread:
    """A started thread."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def samples_of(stream: Stream) -> Any:
    """The audio of the utterance, read to its end."""
    return np.concatenate([chunk.payload for chunk in stream.audio(timeout_s=WAIT_S)])


def joined(thread: threading.Thread) -> None:
    """Wait for its end."""
    thread.join(WAIT_S)
    assert not thread.is_alive()


def values_of(chunks: list[wire.Audio]) -> Any:
    """All samples of a fake daemon as integers; the chunks must be numbered and placed without a gap."""
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    at = 0
    for chunk in chunks:
        assert chunk.first_sample == at and chunk.samples == len(chunk.payload)
        at += chunk.samples
    return np.concatenate([chunk.payload for chunk in chunks]) * 2**20
