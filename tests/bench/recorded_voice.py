"""An upstream that speaks at once, whatever the text is: what is left of a front's latency is the front's own."""

from collections.abc import Iterator

from glowd.flow.mel import Floats
from tests.harness.mels import speech

NAME = "python:tests.bench.recorded_voice:speak"
FRAMES, CHUNK_FRAMES = 48, 8


def speak(text: str) -> Iterator[Floats]:
    """Half a second of a recording, in chunks."""
    for begin in range(0, FRAMES, CHUNK_FRAMES):
        yield speech()[begin : begin + CHUNK_FRAMES]
