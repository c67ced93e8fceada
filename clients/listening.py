"""The listeners of a client, without I/O: the audio and endings of streams that may belong to other clients.

Rules: as connection.py, which owns them and passes them the daemon's messages.
"""

from collections import deque
from dataclasses import dataclass, field

from glowd.clients.errors import GlowdError
from glowd.clients.steps import ConnectionPorts, Steps
from glowd.daemon import wire
from glowd.daemon.wire import Audio, Flushed, Played

StreamEvent = Audio | Played | Flushed


@dataclass(slots=True, eq=False)
class ListenerState:
    """What one listener has received and not read yet. `stream` may be "*"."""

    request: wire.Listen
    events: deque[StreamEvent] = field(default_factory=deque)
    warnings: list[wire.Warning] = field(default_factory=list)
    failure: GlowdError | None = None

    @property
    def stream(self) -> str:
        """Its name."""
        return self.request.stream


class Listeners:
    """All of one client. Owner: its connection."""

    def __init__(self, connection: ConnectionPorts) -> None:
        self._connection = connection
        self._listeners: list[ListenerState] = []

    def listen(self, request: wire.Listen) -> ListenerState:
        """Subscribe to the audio and endings of a stream of any client, "*" for all."""
        listener = ListenerState(request)
        self._connection.send(request)
        self._listeners.append(listener)
        return listener

    def unlisten(self, listener: ListenerState) -> None:
        """End a subscription. Does nothing if it has ended."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            if self._connection.usable:
                self._connection.send(wire.Unlisten(listener.stream))

    def listen_again(self) -> None:
        """Subscribe again: the daemon is another one."""
        for listener in self._listeners:
            self._connection.send(listener.request)

    def receive(self, event: StreamEvent) -> None:
        """Take what the daemon sends of a stream."""
        for listener in self._listeners:
            if listener.stream in ("*", event.stream):
                listener.events.append(event)

    def warn(self, warning: wire.Warning) -> None:
        """Take what the daemon warns of a stream of another client."""
        for listener in self._listeners:
            if listener.stream in ("*", warning.stream):
                listener.warnings.append(warning)

    def fail(self, stream: str, failure: GlowdError) -> None:
        """The daemon has rejected a request about a stream."""
        for listener in self._listeners:
            if listener.stream == stream:
                listener.failure = failure

    def next_event(self, listener: ListenerState) -> Steps[StreamEvent]:
        """The next event that the listener has not read."""
        while not listener.events:
            self._check(listener)
            yield f"audio of stream {listener.stream}"
        return listener.events.popleft()

    def flush(self, listener: ListenerState, generation: int, fade_ms: int) -> Steps[Played | Flushed]:
        """Flush the listener's stream, which may be another client's, and wait for its ending."""
        self._connection.check()
        self._connection.send(wire.Flush(listener.stream, generation, fade_ms))
        while True:
            for event in listener.events:
                if not isinstance(event, Audio) and event.generation >= generation:
                    return event
            self._check(listener)
            yield f"the ending of stream {listener.stream}"

    def _check(self, listener: ListenerState) -> None:
        if listener.failure:
            raise listener.failure
        self._connection.check()
