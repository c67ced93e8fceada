"""A stream from `open` to `close`.

Rules: no socket and no clock; messages go out through SessionPorts (replies.py), time is passed in. Nothing that happens
to one session can fail another: what its client did wrong becomes a numbered error here.

A session has three sides, which share one SessionState:

    client: mel, end, flush, ...  ->  ClientSide  ->  EngineSide  ->  engine: Start, Frames, Finish, Drop
    client: credit, audio, ...    <-  SinkSide    <-  EngineSide  <-  engine: Pcm, Failed
    speaker: Attach, Pcm, ...     <-  SinkSide    <-                  speaker: Position, Underrun, Played, Flushed
"""

from collections.abc import Callable, Iterable
from functools import partial

from glowd.daemon import wire
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.streams.client_side import ClientSide
from glowd.daemon.gateway.streams.engine_side import EngineSide
from glowd.daemon.gateway.streams.mel_intake import MelIntake
from glowd.daemon.gateway.streams.replies import SessionPorts
from glowd.daemon.gateway.streams.sink_side import SinkSide
from glowd.daemon.gateway.streams.state import SessionState
from glowd.daemon.gateway.streams.utterance import StreamLimits
from glowd.daemon.wire import Code


class Session:
    """One stream: its state, and what client, engine and sinks do to it."""

    def __init__(
        self,
        asked: wire.Open,
        voice: str,
        rate_hz: int,
        prefill_samples: int,
        limits: StreamLimits,
        ports: SessionPorts,
        intake: MelIntake,
    ) -> None:
        self.state = SessionState(asked, voice, rate_hz, prefill_samples, limits, ports)
        self.sinks = SinkSide(self.state)
        self.engine = EngineSide(self.state, self.sinks)
        self.client = ClientSide(self.state, self.engine, self.sinks, intake)


def for_each(sessions: Iterable[Session], what: str, action: Callable[[Session], object]) -> None:
    """Do something to each session. One that cannot take it fails, and the others are not held up."""
    for session in sessions:
        with contained(f"stream {session.state.name}: {what}", partial(session.state.fail, Code.INTERNAL)):
            action(session)
