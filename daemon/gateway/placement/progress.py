"""Whether audio moves: frames that an engine could render are rendered, or there are none.

Rules: no socket, time is passed in. A process that hangs is the supervisor's to restart; here is seen, too, what no watchdog of
one process sees: that all run, and yet no audio is made. An engine that is loading has a time-out of its own and is no stall.
Neither is a voice that renders whole utterances: nothing can be told of it before it is done.
"""

from collections.abc import Iterable

from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.placement.registry import StreamRegistry
from glowd.daemon.gateway.streams.state import SessionState
from glowd.daemon.runtime.status import LOADING

STALLED_NS = 5_000_000_000
"""A call of a voice takes milliseconds. Other programs may hold it up for so long, and no stream be lost."""


class Progress:
    """Watches the engines. Owner: the gateway's only thread."""

    def __init__(self, streams: StreamRegistry) -> None:
        self._streams = streams
        self._still_since_ns: dict[str, int] = {}
        """Of engines that have frames to render: since when they have them and have rendered nothing."""
        self.stall = ""
        """Why audio did not move when it was last looked at; "" if it did."""

    def moved(self, engine: EngineHandle) -> None:
        """An engine has sent samples."""
        self._still_since_ns.pop(engine.name, None)

    def excuse(self) -> None:
        """The gateway did not run for a while: what it did not see meanwhile says nothing."""
        self._still_since_ns.clear()

    def look(self, engines: Iterable[EngineHandle], now_ns: int) -> None:
        """Find out whether audio moves. To be called often."""
        self.stall = "; ".join(text for engine in engines if (text := self._stall_of(engine, now_ns)))

    def _stall_of(self, engine: EngineHandle, now_ns: int) -> str:
        if engine.whole_utterance or not (waiting := self._waiting(engine)):
            self._still_since_ns.pop(engine.name, None)
            return ""
        still_ns = now_ns - self._still_since_ns.setdefault(engine.name, now_ns)
        if still_ns < STALLED_NS or engine.state(now_ns) == LOADING:
            return ""
        frames = "frames of 1 stream wait" if waiting == 1 else f"frames of {waiting} streams wait"
        return f"engine {engine.name} has made no audio for {still_ns / 1e9:.0f} s, and {frames} for it"

    def _waiting(self, engine: EngineHandle) -> int:
        return sum(_has_work(stream.session.state) for stream in self._streams.placed_in(engine))


def _has_work(state: SessionState) -> bool:
    """Whether an engine could render frames of a stream: a chunk of them, or the last ones."""
    if not state.phase.needs_engine:
        return False
    utterance = state.utterance
    least = 1 if utterance.total_frames is not None else state.limits.chunk_frames
    return utterance.renderable_frames >= least
