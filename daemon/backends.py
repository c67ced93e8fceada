"""What stands behind the gateway: the engines of the voices, and the speaker.

Rules: no socket; messages go out through a `send` that may fail silently, because a role that is not there will be told
everything when it is (engine_back, speaker_back). A role is known by its instance number: a new number is a new life, whose
state is empty. Roles repeat their Ready every second; one that was silent for longer is lost.
"""

from collections.abc import Callable, Iterable
from typing import Any

from daemon import link
from daemon.message import Message
from daemon.session import Session
from daemon.wire import Code, WireError

SILENT_NS = 3_000_000_000
"""A role not heard of for so long is not there."""


class Engine:
    """The engine of one voice, as far as it is there; streams wait `wait_s` for it to come back."""

    def __init__(self, voice: str, send: Callable[[Message], object], wait_s: float) -> None:
        self.voice, self.send, self._wait_ns = voice, send, int(1e9 * wait_s)
        self.info: dict[str, Any] = {}
        self.load: dict[str, Any] = {}
        self.instance = -1
        self.heard_ns: int | None = None

    def there(self, now_ns: int) -> bool:
        """Whether it has been heard of lately."""
        return self.heard_ns is not None and now_ns - self.heard_ns < SILENT_NS

    def handle(self, message: Message, sessions: Iterable[Session], now_ns: int) -> None:
        """A message of the engine about itself."""
        self.heard_ns = now_ns
        if isinstance(message, link.Load):
            self.load = message.stats
        if isinstance(message, link.Ready) and message.instance != self.instance:
            self.instance, self.info, self.load = message.instance, message.info, {}
            self.send(link.DropAll())
            for session in sessions:
                session.engine_back()

    @property
    def max_streams(self) -> int | None:
        """Streams it can serve; None if it sets no limit."""
        capacity = self.info.get("capacity")
        return capacity["streams"] if capacity else None

    def require_room(self, open_streams: int) -> None:
        """Raises WireError unless one more stream can be served beside those that are open. An open stream counts,
        paused and idle ones too: it may speak at any time, and could not be refused then."""
        most = self.max_streams
        if most is not None and open_streams >= most:
            raise WireError(Code.AT_CAPACITY, _at_capacity(self.voice, open_streams, self.info["capacity"]))
        degraded = self.load.get("degraded")
        if degraded and degraded["refuses"]:
            raise WireError(
                Code.AT_CAPACITY,
                f"voice {self.voice!r} is overloaded and takes no new streams now ({open_streams} are open): "
                f"{degraded['reason']}; try again in some seconds",
            )

    def tick(self, sessions: Iterable[Session], now_ns: int) -> None:
        """Give up streams that have waited too long."""
        if self.heard_ns is not None and now_ns - self.heard_ns > self._wait_ns:
            for session in sessions:
                session.engine_failed(
                    Code.ENGINE_LOST, f"the engine of voice {self.voice} is gone and has not come back"
                )


def _at_capacity(voice: str, open_streams: int, capacity: dict[str, Any]) -> str:
    limit, setting = f"{open_streams} of {capacity['streams']} streams are open", f"voices.{voice}.max_streams"
    if not capacity["measured"]:
        return f"voice {voice!r} is at capacity: {limit}, the most allowed ({setting}); close one, or try again later"
    took = "" if capacity["round_ms"] is None else (
        f", with {capacity['round_ms']:.1f} ms of work for {capacity['chunk_ms']:.1f} ms of sound"
    )  # fmt: skip
    return (
        f"voice {voice!r} is at capacity: {limit}, as many as this machine was measured to keep up with{took}; "
        f"close one, try again later, or set {setting} to another number"
    )


class Speaker:
    """The speaker and its device, as far as they are there; streams wait `wait_s` for them to come back."""

    def __init__(self, send: Callable[[Message], object], enabled: bool, wait_s: float) -> None:
        self.send, self._wait_ns = send, int(1e9 * wait_s)
        self.device: link.DeviceReady | None = None
        self.load: dict[str, Any] = {}
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
            case link.Load():
                self.load = message.stats
            case link.DeviceReady():
                self.device, self._gone_ns = message, None
                self._met(message.instance, sessions)
            case link.DeviceGone():
                self.why_not = message.text
                self._gone_ns = self._gone_ns or now_ns
                self.device = None
                self._met(message.instance, sessions)

    def _met(self, instance: int, sessions: Iterable[Session]) -> None:
        if instance == self.instance:
            return
        self.instance = instance
        self.send(link.DetachAll())
        for session in sessions:
            session.speaker_back()

    def tick(self, sessions: Iterable[Session], now_ns: int) -> None:
        """Give up streams whose device has been away for too long."""
        silent = self.heard_ns is not None and now_ns - self.heard_ns > self._wait_ns
        if silent or (self._gone_ns is not None and now_ns - self._gone_ns > self._wait_ns):
            for session in sessions:
                session.device_lost(f"the sound device is gone: {self.why_not}")
