"""What the tests of the blocking client share."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from glowd.clients.client import Stream
from tests.harness.waiting import WAIT_S


def in_thread(target: Callable[[], object]) -> threading.Thread:
    """A started thread."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def samples_of(stream: Stream) -> Any:
    """The audio of the utterance, read to its end."""
    return np.concatenate([chunk.payload for chunk in stream.audio(timeout_s=WAIT_S)])
