"""A stream of another client: it is stopped, held, or made louder, by who may do so.

Rules: no I/O; both clients run the steps.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from glowd.clients.questions import Questions
from glowd.clients.steps import Steps
from glowd.daemon import wire

R = TypeVar("R")


class StreamControl(Generic[R]):
    """The stream `stream`, of `Client.control`; of `AsyncClient.control`, whose methods are awaited.

    Each method returns when the daemon has read the request. Raises StreamError if no such stream is open, and if the client's
    key lacks the role "control". How an utterance ends is told to its client and to listeners.
    """

    def __init__(self, stream: str, questions: Questions, run: Callable[[Steps[None]], R]) -> None:
        self.stream, self._questions, self._run = stream, questions, run

    def flush(self, fade_ms: int = 15) -> R:
        """Stop the utterance that runs."""
        return self._run(self._questions.control(wire.Flush(self.stream, 0, fade_ms)))

    def pause(self) -> R:
        """Hold the position, silently."""
        return self._run(self._questions.control(wire.Pause(self.stream)))

    def resume(self) -> R:
        """Continue after `pause`, whoever has paused."""
        return self._run(self._questions.control(wire.Resume(self.stream)))

    def gain(self, gain_db: float) -> R:
        """Set the volume on the device."""
        return self._run(self._questions.control(wire.Gain(self.stream, gain_db)))
