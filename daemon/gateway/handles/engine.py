"""The engine processes of the voices, as the gateway sees them.

Rules: no socket. Messages go out through a `send` that may fail: a process that is not alive gets everything it needs when
it is back (EngineSide.resume, SinkSide.resume). A changed instance number means that the process was restarted and has lost
its state. Every process repeats its Ready each second; one that is silent for longer is lost. Which engine renders which
stream is decided in placement/pool.py and kept in placement/registry.py; here the sessions concerned are passed in.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from glowd.daemon import ipc
from glowd.daemon.gateway.handles.link import Link
from glowd.daemon.gateway.streams.session import Session, for_each
from glowd.daemon.runtime.status import AWAY, LOADING, READY, RoleState
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo
from glowd.daemon.wire.voices import check_voice

SILENT_NS = 3_000_000_000
"""A process that is silent for this long is not alive."""
STARTS = 2
"""A restart may take so many times as long as the first start did: other programs may be busy, and it pauses before."""

MAX_FAILURES = 3
"""Streams that an engine gives up in a row, before it is the last choice."""

log = logging.getLogger("glowd.gateway")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an engine that has joined is. `name`: what it calls itself; `key_name`, `public_key`: of its connection.

    It may stay while the public key counts. The name tells whose place is taken by an engine that comes back: a new key of the
    same name is that of its successor.
    """

    name: str
    key_name: str
    host: str
    cores: int
    public_key: bytes = b""


def same_shape(one: VoiceInfo, other: VoiceInfo) -> bool:
    """Whether a stream that was opened with one voice could go on with the other: the same frames, the same delays."""
    return _shape(one) == _shape(other)


def _shape(info: VoiceInfo) -> VoiceInfo:
    return replace(info, name="", default=False, capacity=None)


class EngineHandle:
    """One engine process. Streams wait `wait_s` for it to come back; longer, if it needs longer to start."""

    def __init__(
        self, name: str, voice: str, send: Callable[[Message], bool], wait_s: float = 0.0, hang_s: float = 0.0
    ) -> None:
        """`send` returns False if it is known that the message cannot be sent; `gone` may tell it later.

        An engine that hangs is restarted after `hang_s`.
        """
        self.name, self.voice, self._send, self._wait_s, self._hang_s = name, voice, send, wait_s, hang_s
        self.news = RoleState(f"engine:{name}", LOADING)
        """How the supervisor says its process is."""
        self.load: ipc.EngineLoad | None = None
        self.device, self.threads, self.digest = "", 1, ""
        self.origin: Origin | None = None
        """Where it is, if it has joined from elsewhere; None: the supervisor runs it."""
        self.link: Link | None = None
        """What is measured of the way there; None: it is a process of this machine."""
        self.is_cordoned = self.is_leaving = False
        """Whether it gets no new streams; and whether those that it has move on when their utterance ends, too."""
        self.instance = -1
        self.failures = 0
        """Streams that it has given up since it last made samples."""
        self.last_seen_ns: int | None = None
        self._info: VoiceInfo | None = None
        self._is_reachable, self._start_s, self._fault = False, 0.0, ""

    def use_waits(self, wait_s: float, hang_s: float) -> None:
        """The settings have other times. Nobody here restarts an engine that has joined."""
        self._wait_s, self._hang_s = wait_s, hang_s if self.origin is None else 0.0

    def hear(self, news: RoleState) -> None:
        """The supervisor says how its process is."""
        self.news = news

    def connect(
        self, origin: Origin, send: Callable[[Message], bool], link: Link | None = None, instance: int | None = None
    ) -> None:
        """An engine that has joined is reached by a new connection: it knows none of its streams.

        `instance`: its number, if that is known: what was said of its placement does not hold for another process.
        """
        if instance not in (None, self.instance):
            self.is_cordoned = self.is_leaving = False
        self.origin, self._send, self.link, self.instance = origin, send, link, -1
        self.news, self._fault = RoleState(self.news.role, READY), ""

    def disconnect(self, reason: str) -> None:
        """An engine that has joined is used no more."""
        self._send, self._is_reachable, self._fault, self.is_leaving = lambda _: False, False, reason, True

    def leave(self) -> None:
        """It is to get no new streams, and those that it has move on when their utterance ends."""
        self.is_leaving = True

    def place(self, action: str) -> None:
        """An operator says whether it gets streams: cordon, drain or uncordon (wire.Engine). Raises WireError."""
        if action == "uncordon" and self._fault:
            raise WireError(Code.WRONG_STATE, f"engine {self.name} gets no streams: {self._fault}; start it again")
        self.is_cordoned, self.is_leaving = action == "cordon", action == "drain"
        log.info("engine %s: %s", self.name, action)

    @property
    def placement(self) -> str:
        """Whether it gets streams: open, cordoned or draining."""
        return "draining" if self.is_leaving else "cordoned" if self.is_cordoned else "open"

    @property
    def fault(self) -> str:
        """Why it is not used although it is there; "" if it is."""
        return self._fault

    # ---------------------------------------------------------------- what it is

    @property
    def info(self) -> VoiceInfo:
        """Its voice. Raises LookupError before its first Ready; an engine that is alive has sent one."""
        if self._info is None:
            raise LookupError(f"engine {self.name} has not sent Ready; check is_alive first")
        return self._info

    @property
    def rate_hz(self) -> int | None:
        """The sample rate of its voice; None before its first Ready."""
        return None if self._info is None else self._info.rate_hz

    @property
    def whole_utterance(self) -> bool:
        """Whether its voice needs all frames of an utterance before it renders any."""
        return self._info is not None and self._info.whole_utterance

    @property
    def capacity(self) -> Capacity | None:
        """How many streams it can render; None without a limit."""
        return None if self._info is None else self._info.capacity

    @property
    def max_streams(self) -> int | None:
        """The same as a number."""
        return None if self.capacity is None else self.capacity.streams

    @property
    def distance_ms(self) -> float | None:
        """The ms that the way there and back takes; None: it is here."""
        if self.origin is None:
            return None
        return self.link.distance_ms if self.link else 0.0

    @property
    def cushion_ms(self) -> float:
        """How much more audio a device has to collect of its streams than of those of an engine here."""
        return self.link.cushion_ms if self.link else 0.0

    @property
    def is_failing(self) -> bool:
        """Whether it gives up one stream after the other. It would always be empty, and get all new ones."""
        return self.failures >= MAX_FAILURES

    @property
    def overload(self) -> str:
        """Why it refuses new streams until it has caught up; "" if it does not."""
        degraded = None if self.load is None else self.load.degraded
        return degraded.reason if degraded and degraded.refuses else ""

    def makes_the_same(self, other: "EngineHandle") -> bool:
        """Whether a stream of another engine goes on here with the samples that it would have had there."""
        if self._info is None or other._info is None:  # one that was restarted and is not used is not alive either
            return True
        is_equal = self.digest == other.digest or "" in (self.digest, other.digest)
        return is_equal and same_shape(self._info, other._info)

    def is_alive(self, now_ns: int) -> bool:
        """Whether it is ready, has sent something lately, and could be sent to since then.

        An engine that renders a whole utterance in one call is silent during that call: it is alive while it is reachable.
        """
        if self._info is None or self.last_seen_ns is None or not self._is_reachable:
            return False
        return self.whole_utterance or now_ns - self.last_seen_ns < SILENT_NS

    def state(self, now_ns: int) -> str:
        """READY, LOADING, or AWAY."""
        if self.is_alive(now_ns):
            return READY
        is_coming = self.news.state == LOADING or self._is_awaited
        return LOADING if is_coming and not self._fault else AWAY

    @property
    def _is_awaited(self) -> bool:
        """Whether it is said to be ready and has not been heard yet: it is this gateway that has just started."""
        return self.news.state == READY and self.last_seen_ns is None

    @property
    def is_first_load(self) -> bool:
        """Whether it is loading, or not heard yet, and has never been ready or failed."""
        return self.news.state in (LOADING, READY) and not self.news.reason and self.last_seen_ns is None

    def reason(self, now_ns: int) -> str:
        """Why it is not ready; "" if it is, or if it is loading for the first time."""
        if self.is_alive(now_ns) or (self._is_awaited and not self._fault):
            return ""
        if self.news.state == READY and not self._fault:
            return "it does not answer" + ("; it is restarted unless it does soon" if self.origin is None else "")
        return self._fault or self.news.reason

    @property
    def wait_s(self) -> float:
        """How long streams wait for it: long enough for a hang to be noticed and for another start."""
        return max(self._wait_s, self._hang_s + STARTS * self._start_s)

    # ------------------------------------------------------------------ messages

    def excuse(self, absent_ns: int) -> None:
        """The gateway did not run for a while: that the engine was not heard meanwhile says nothing."""
        if self.last_seen_ns is not None:
            self.last_seen_ns += absent_ns

    def send(self, message: Message) -> None:
        """Send; if the engine is down, the state of its streams is replayed when it reconnects."""
        if not self._send(message):
            self.gone()

    def gone(self) -> None:
        """It cannot be sent to, until it is heard again."""
        self._is_reachable = False

    def seen(self, now_ns: int) -> None:
        """It has sent something."""
        self.last_seen_ns, self._is_reachable = now_ns, self.origin is None or not self._fault

    def gave_up(self, text: str) -> None:
        """It has given up a stream."""
        self.failures += 1
        if self.failures == MAX_FAILURES:
            log.warning("engine %s gets streams last: it has given up %d in a row: %s", self.name, MAX_FAILURES, text)

    def made(self, samples: int) -> None:
        """It has made samples."""
        if samples:
            self.failures = 0

    def handle(self, message: Message, sessions: Iterable[Session], now_ns: int) -> None:
        """A message of the engine about itself. If it was restarted, its `sessions` are given to it again."""
        self.seen(now_ns)
        if isinstance(message, ipc.Load) and isinstance(message.stats, ipc.EngineLoad):
            self.load = message.stats
        if isinstance(message, ipc.Ready) and message.instance != self.instance:
            self._meet(message)
            if self._info:
                for_each(sessions, "going on in its engine", lambda session: session.engine.resume())

    def _meet(self, ready: ipc.Ready) -> None:
        """A process that is new to us. Its voice is not served if clients could not be told of it."""
        self.instance, self._info, self.load, self._fault = ready.instance, ready.info, None, ""
        self.failures = 0
        self.device, self.threads, self._start_s = ready.device, ready.threads, ready.start_s
        self.digest = ready.digest
        self.news = RoleState(self.news.role, READY)
        try:
            check_voice(ready.info)
        except ValueError as error:
            log.error("engine %s is not used: %s", self.name, error)
            self._info, self._fault = None, str(error)
        self.send(ipc.DropAll())

    def tick(self, sessions: Iterable[Session], now_ns: int) -> None:
        """Fail its `sessions` if they have waited too long for it."""
        if self.last_seen_ns is None or self.is_alive(now_ns) or now_ns - self.last_seen_ns <= 1e9 * self.wait_s:
            return
        because = f": {reason}" if (reason := self.reason(now_ns)) else ""
        text = f"the engine of voice {self.voice} has been away for {self.wait_s:g} s{because}; try again"
        for_each(sessions, "losing its engine", lambda session: session.engine.failed(Code.ENGINE_LOST, text))
