"""What stands behind the gateway: the engines of the voices, and the speaker.

Rules: no socket; messages go out through a `send` that may fail, because a role that is not there will be told everything
when it is (engine_back, speaker_back). A role is known by its instance number: a new number is a new life, whose state is
empty. Roles repeat their Ready every second; one that was silent for longer is lost. Which streams an engine gets is
decided in placement.py.
"""

from collections.abc import Callable, Iterable

from glowd.daemon import ipc
from glowd.daemon.gateway.session import Session
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo

SILENT_NS = 3_000_000_000
"""A role not heard of for so long is not there."""


class Engine:
    """One engine process, as far as it is there, and the streams in it, which wait `wait_s` for it to come back."""

    def __init__(self, name: str, voice: str, send: Callable[[Message], bool], wait_s: float) -> None:
        """`send` tells whether there was somebody to take the message."""
        self.name, self.voice, self._send, self._wait_ns = name, voice, send, int(1e9 * wait_s)
        self.streams: dict[str, Session] = {}
        self._info: VoiceInfo | None = None
        self.load: ipc.EngineLoad | None = None
        self.device, self.threads = "", 1
        self.instance = -1
        self.heard_ns: int | None = None
        self._reached = False

    def there(self, now_ns: int) -> bool:
        """Whether it has been heard of lately, and took what it was sent since.

        One that renders a whole utterance in one call says nothing meanwhile: it is there as long as its process is.
        """
        if self.heard_ns is None or not self._reached:
            return False
        return self.whole_utterance or now_ns - self.heard_ns < SILENT_NS

    def send(self, message: Message) -> None:
        """Tell it; one that is not there is told everything when it is back."""
        self._reached = self._send(message)

    def heard(self, now_ns: int) -> None:
        """It said something."""
        self.heard_ns, self._reached = now_ns, True

    def handle(self, message: Message, now_ns: int) -> None:
        """A message of the engine about itself."""
        self.heard(now_ns)
        if isinstance(message, ipc.Load) and isinstance(message.stats, ipc.EngineLoad):
            self.load = message.stats
        if isinstance(message, ipc.Ready) and message.instance != self.instance:
            self.instance, self._info, self.load = message.instance, message.info, None
            self.device, self.threads = message.device, message.threads
            self.send(ipc.DropAll())
            for session in self.streams.values():
                session.engine_back()

    @property
    def info(self) -> VoiceInfo:
        """Its voice. Raises LookupError before it has said what that is."""
        if self._info is None:
            raise LookupError(f"engine {self.name} has not said yet what its voice is; ask only if it is there")
        return self._info

    @property
    def whole_utterance(self) -> bool:
        """Whether its voice is heard only when its utterance has ended."""
        return self._info is not None and self._info.whole_utterance

    @property
    def capacity(self) -> Capacity | None:
        """What limits its streams; None if nothing does."""
        return None if self._info is None else self._info.capacity

    @property
    def max_streams(self) -> int | None:
        """Streams it can serve; None if it sets no limit."""
        return None if self.capacity is None else self.capacity.streams

    @property
    def overload(self) -> str:
        """Why it takes no new streams until it has caught up; "" if it does."""
        degraded = None if self.load is None else self.load.degraded
        return degraded.reason if degraded and degraded.refuses else ""

    def tick(self, now_ns: int) -> None:
        """Give up streams that have waited too long."""
        if self.heard_ns is not None and not self.there(now_ns) and now_ns - self.heard_ns > self._wait_ns:
            for session in self.streams.values():
                session.engine_failed(
                    Code.ENGINE_LOST, f"the engine of voice {self.voice} is gone and has not come back"
                )


class Speaker:
    """The speaker and its device, as far as they are there; streams wait `wait_s` for them to come back."""

    def __init__(self, send: Callable[[Message], object], enabled: bool, wait_s: float) -> None:
        self.send, self._wait_ns = send, int(1e9 * wait_s)
        self.device: ipc.DeviceReady | None = None
        self.load: ipc.SpeakerLoad | None = None
        self.why_not = (
            "the speaker has not started yet" if enabled else "[speaker] enabled is false in the configuration"
        )
        self.instance = -1
        self.heard_ns: int | None = None
        self._gone_ns: int | None = None

    def require(self, now_ns: int) -> None:
        """Raises WireError unless a stream can be played now."""
        if self.device is None:
            raise WireError(Code.SINK_UNAVAILABLE, f"no sound device: {self.why_not}")
        if self.heard_ns is None or now_ns - self.heard_ns > SILENT_NS:
            raise WireError(Code.SINK_UNAVAILABLE, "no sound device: the speaker process is restarting; try again")

    def there(self, now_ns: int) -> bool:
        """Whether a device is open."""
        return self.device is not None and self.heard_ns is not None and now_ns - self.heard_ns < SILENT_NS

    def handle(self, message: Message, sessions: Iterable[Session], now_ns: int) -> None:
        """A message of the speaker about itself."""
        self.heard_ns = now_ns
        match message:
            case ipc.Load(stats=ipc.SpeakerLoad() as load):
                self.load = load
            case ipc.DeviceReady():
                self.device, self._gone_ns = message, None
                self._met(message.instance, sessions)
            case ipc.DeviceGone():
                self.why_not = message.text
                self._gone_ns = self._gone_ns or now_ns
                self.device = None
                self._met(message.instance, sessions)

    def _met(self, instance: int, sessions: Iterable[Session]) -> None:
        if instance == self.instance:
            return
        self.instance = instance
        self.send(ipc.DetachAll())
        for session in sessions:
            session.speaker_back()

    def tick(self, sessions: Iterable[Session], now_ns: int) -> None:
        """Give up streams whose device has been away for too long."""
        silent = self.heard_ns is not None and now_ns - self.heard_ns > self._wait_ns
        if silent or (self._gone_ns is not None and now_ns - self._gone_ns > self._wait_ns):
            for session in sessions:
                session.device_lost(f"the sound device is gone: {self.why_not}")
