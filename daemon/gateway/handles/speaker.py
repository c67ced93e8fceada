"""The speaker process and its sound device, as the gateway sees them.

Rules: as in engine.py.
"""

from collections.abc import Callable, Iterable

from glowd.daemon import ipc
from glowd.daemon.gateway.handles.engine import SILENT_NS
from glowd.daemon.gateway.streams.session import Session, for_each
from glowd.daemon.runtime.status import LOADING, RoleState
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message


class SpeakerHandle:
    """The speaker process and its device. Streams wait `wait_s` for them to come back."""

    def __init__(
        self,
        send: Callable[[Message], object],
        enabled: bool,
        wait_s: float,
        voice_rates_hz: Callable[[], set[int]] = lambda: set(),
    ) -> None:
        """`voice_rates_hz` returns the sample rates of the voices that are known."""
        self.send, self._wait_ns, self._voice_rates_hz = send, int(1e9 * wait_s), voice_rates_hz
        self.news = RoleState("speaker", LOADING)
        """How the supervisor says its process is."""
        self.device: ipc.DeviceReady | None = None
        self.load: ipc.SpeakerLoad | None = None
        self.why_not = (
            "the speaker has not started yet" if enabled else "[speaker] enabled is false in the configuration"
        )
        self.instance = -1
        self.last_seen_ns: int | None = None
        self._lost_ns: int | None = None

    def use_waits(self, wait_s: float) -> None:
        """The settings have another time."""
        self._wait_ns = int(1e9 * wait_s)

    def hear(self, news: RoleState) -> None:
        """The supervisor says how its process is."""
        self.news = news

    def seen(self, now_ns: int) -> None:
        """It has sent something."""
        self.last_seen_ns = now_ns

    def require(self, now_ns: int) -> None:
        """Raises WireError unless a stream can be played now."""
        if self.device is None:
            raise WireError(Code.SINK_UNAVAILABLE, f"no sound device: {self.why_not}")
        if self.last_seen_ns is None or now_ns - self.last_seen_ns > SILENT_NS:
            because = f": {self.news.reason}" if self.news.reason else ""
            raise WireError(
                Code.SINK_UNAVAILABLE, f"no sound device: the speaker process is restarting{because}; try again"
            )

    def excuse(self, absent_ns: int) -> None:
        """The gateway did not run for a while: that the speaker was not heard meanwhile says nothing."""
        if self.last_seen_ns is not None:
            self.last_seen_ns += absent_ns
        if self._lost_ns is not None:
            self._lost_ns += absent_ns

    def is_alive(self, now_ns: int) -> bool:
        """Whether a device is open."""
        return self.device is not None and self.last_seen_ns is not None and now_ns - self.last_seen_ns < SILENT_NS

    def handle(self, message: Message, sessions: Iterable[Session], now_ns: int) -> None:
        """A message of the speaker about itself. If it was restarted, all `sessions` are given to it again."""
        self.seen(now_ns)
        match message:
            case ipc.Load(stats=ipc.SpeakerLoad() as load):
                self.load = load
                self._send_rate()
            case ipc.DeviceReady():
                self.device, self._lost_ns = message, None
                self._check_instance(message.instance, sessions)
            case ipc.DeviceGone():
                self.why_not = message.text
                self._lost_ns = self._lost_ns or now_ns
                self.device = None
                self._check_instance(message.instance, sessions)

    def _send_rate(self) -> None:
        """Tell the speaker at which rate to open a device: that of the voices, if they have one in common."""
        rates_hz = self._voice_rates_hz()
        self.send(ipc.OutputRate(rate_hz=rates_hz.pop() if len(rates_hz) == 1 else 0))

    def _check_instance(self, instance: int, sessions: Iterable[Session]) -> None:
        if instance == self.instance:
            return
        self.instance = instance
        self.send(ipc.DetachAll())
        for_each(sessions, "going on in the speaker", lambda session: session.sinks.resume())

    def tick(self, sessions: Iterable[Session], now_ns: int) -> None:
        """Fail the `sessions` that have waited too long for the device."""
        silent = self.last_seen_ns is not None and now_ns - self.last_seen_ns > self._wait_ns
        if silent or (self._lost_ns is not None and now_ns - self._lost_ns > self._wait_ns):
            text = f"the sound device is gone: {self.why_not}"
            for_each(sessions, "losing its device", lambda session: session.sinks.device_lost(text))
