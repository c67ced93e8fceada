"""What a client asks the whole daemon: who it is, how it is, which engines get streams; without I/O.

Rules: as connection.py, which owns them and passes them the daemon's answers. A question is asked again if the daemon was lost
before it has answered.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.steps import ConnectionPorts, Steps
from glowd.daemon import wire
from glowd.daemon.wire import Message

Control = wire.Flush | wire.Pause | wire.Resume | wire.Gain
"""What may be done to a stream of another client."""
REFUSALS = (wire.Code.NOT_ALLOWED, wire.Code.BAD_FIELD, wire.Code.WRONG_STATE)
"""Of a question."""


class QuestionPorts(ConnectionPorts, Protocol):
    """What questions need of their connection."""

    greetings: int

    @property
    def endpoint(self) -> str: ...
    def hello(self) -> wire.Hello: ...


class Questions:
    """Those of one client. Owner: its connection."""

    def __init__(self, connection: QuestionPorts) -> None:
        self._connection = connection
        self._states: deque[wire.State] = deque(maxlen=1)
        self._pong: wire.Pong | None = None
        self._asking = 0
        self._refusal: GlowdError | None = None
        """How many wait for their answers, and that the daemon does not allow one."""
        self._controlled: dict[str, GlowdError | None] = {}
        """The streams of others to which something is done, and why that is refused."""

    def receive(self, answer: wire.Pong | wire.State) -> None:
        """Take an answer."""
        if isinstance(answer, wire.State):
            self._states.append(answer)
        elif answer.t_client_ns:  # 0: the daemon asks whether the client is alive; to receive it is enough
            self._pong = answer

    def refuse(self, error: wire.Error) -> bool:
        """Take an error about no stream of the client's own; returns whether it answers a question."""
        if error.stream in self._controlled:
            self._controlled[error.stream] = errors.from_message(error)
            return True
        if error.stream or error.code not in REFUSALS or not self._asking:
            return False
        self._refusal = errors.from_message(error)
        return True

    def _ask(self, message: Callable[[], Message], is_answered: Callable[[], object], what: str) -> Steps[None]:
        """Send a message and wait for its answer `what`; ask again if the daemon is lost meanwhile and comes back."""
        asked, connection = None, self._connection
        self._refusal, self._asking = None, self._asking + 1
        try:
            while True:
                connection.check()
                if self._refusal:
                    raise self._refusal
                if asked is not None and is_answered():
                    return
                if asked != connection.greetings:
                    asked = connection.greetings
                    connection.send(message())
                yield what
        finally:
            self._asking -= 1

    def greet(self) -> Steps[wire.Welcome]:
        """Say `hello`, again if the daemon is known, and wait for a new `welcome`, which says what is ready now."""
        before, connection = self._connection.welcome, self._connection
        what = f"`welcome` of the daemon at {connection.endpoint}"
        yield from self._ask(connection.hello, lambda: connection.welcome is not before, what)
        assert connection.welcome
        return connection.welcome

    def status(self) -> Steps[wire.State]:
        """The daemon's state and its figures."""
        self._states.clear()
        yield from self._ask(wire.Status, lambda: self._states, "the state of the daemon")
        return self._states[-1]

    def place(self, engine: str, action: str) -> Steps[wire.State]:
        """Say whether an engine gets streams; the daemon's state then. Raises Refused."""
        welcome = self._connection.welcome
        if welcome and welcome.version < wire.since(wire.Engine):
            raise errors.Refused("this daemon cannot cordon engines; update glowd")
        self._states.clear()
        yield from self._ask(lambda: wire.Engine(engine, action), lambda: self._states, f"{action} of {engine}")
        return self._states[-1]

    def ping(self) -> Steps[int]:
        """Round trip in nanoseconds."""
        sent_ns = 0

        def message() -> wire.Ping:
            nonlocal sent_ns
            sent_ns = self._connection.now_ns()
            return wire.Ping(sent_ns)

        yield from self._ask(message, lambda: self._pong and self._pong.t_client_ns >= sent_ns, "`pong` of the daemon")
        return self._connection.now_ns() - sent_ns

    def control(self, message: Control) -> Steps[None]:
        """Do something to a stream of another client. Raises StreamError or Refused.

        The daemon answers only what it refuses: a pong behind the message says that it was read.
        """
        self._connection.check()
        self._controlled[message.stream] = None
        try:
            self._connection.send(message)
            yield from self.ping()
            if refusal := self._controlled.get(message.stream):
                raise refusal
        finally:
            self._controlled.pop(message.stream, None)
