"""What the engines and the speaker send: whose it is, and which part handles it.

Rules: no socket; process.py reads what the processes of this machine send, joining.py what engines of other machines do. What
goes wrong with one message stays with its stream.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from glowd.daemon import ipc
from glowd.daemon.gateway.containment import give_up
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.progress import Progress
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.wire import WireError
from glowd.daemon.wire.fields import Message

log = logging.getLogger("glowd.gateway")

Take = Callable[[Message, Stream | None, int], None]
"""Called with a message, the stream that it is about, and the time."""


class RoleMessages:
    """Hands the messages of engines and speaker to the streams that they are about. Owner: the gateway's only thread."""

    def __init__(
        self,
        engines: Mapping[str, EngineHandle],
        speaker: SpeakerHandle,
        streams: StreamRegistry,
        progress: Progress,
        now_ns: Callable[[], int],
    ) -> None:
        self._engines, self._speaker, self._streams = engines, speaker, streams
        self._progress, self._now_ns = progress, now_ns

    def from_engine(self, identity: bytes, parts: list[bytes]) -> None:
        """A message of an engine of this machine."""
        message, now_ns = _of_role(identity, parts), self._now_ns()
        engine = self._engines.get(identity.decode(errors="replace").removeprefix("engine:"))
        if engine is not None and engine.origin is None and message is not None:
            self.take(engine, message, now_ns)

    def take(self, engine: EngineHandle, message: Message, now_ns: int) -> None:
        """A message of an engine, wherever it is."""
        engine.seen(now_ns)
        if isinstance(message, ipc.Pcm):
            self._progress.moved(engine)
            engine.made(message.samples)
        stream = self._streams.find_key(getattr(message, "key", -1))
        if stream is None or stream.engine is engine:  # else it has moved to another engine
            self._hand_on(partial(self._of_engine, engine), message, stream, now_ns)

    def _of_engine(self, engine: EngineHandle, message: Message, stream: Stream | None, now_ns: int) -> None:
        match message:
            case ipc.Pcm() if stream:
                stream.session.engine.pcm(message, now_ns)
            case ipc.Failed() if stream:
                engine.gave_up(message.text)
                stream.session.engine.gave_up(message)
            case ipc.Ready() | ipc.Load():
                engine.handle(message, [placed.session for placed in self._streams.placed_in(engine)], now_ns)

    def from_speaker(self, identity: bytes, parts: list[bytes]) -> None:
        """A message of the speaker."""
        message, now_ns = _of_role(identity, parts), self._now_ns()
        if message is None:
            return
        self._speaker.seen(now_ns)
        self._hand_on(self._of_speaker, message, self._streams.find_key(getattr(message, "key", -1)), now_ns)

    def _of_speaker(self, message: Message, stream: Stream | None, now_ns: int) -> None:
        match message:
            case ipc.Position() if stream:
                stream.session.sinks.position(message)
            case ipc.Underrun() if stream:
                stream.session.sinks.underrun(message)
            case ipc.Limited() if stream:
                stream.session.sinks.limited(message)
            case ipc.Played() if stream:
                stream.session.sinks.played(message)
            case ipc.Flushed() if stream:
                stream.session.sinks.flushed(message)
            case ipc.Failed() if stream:
                stream.session.sinks.failed(message.text)
            case ipc.DeviceReady() | ipc.DeviceGone() | ipc.Load():
                self._speaker.handle(message, self.sessions(), now_ns)

    def _hand_on(self, take: Take, message: Message, stream: Stream | None, now_ns: int) -> None:
        """Have a message taken, which is about a stream or about the process that has sent it."""
        try:
            take(message, stream, now_ns)
        except Exception as error:  # the edge between peers
            if stream is None:
                give_up(error, message.TYPE, lambda _: None)
            else:
                give_up(error, f"stream {stream.name}: {message.TYPE}", partial(self._streams.give_up, stream))

    def sessions(self) -> list[Session]:
        """Those of all streams."""
        return [stream.session for stream in self._streams]


def _of_role(identity: bytes, parts: list[bytes]) -> Message | None:
    """A message of an engine or the speaker; None if it cannot be decoded, which is a bug of ours but ends no stream."""
    try:
        return ipc.decode(parts)
    except WireError as error:
        log.error("refused a message of %s: %s", identity.decode(errors="replace"), error)
        return None
