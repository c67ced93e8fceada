"""What a page and the web process say to each other over the WebSocket /live.

From the page, each a JSON map with `type` and the fields of the class of that name below. The first is `hello`. To the page:

    {"type": "voices", "voices": [{"name", "rate_hz", "default"}]}       the voices that are ready
    {"type": "figures", "n", "snapshot"}                                 the answer to `figures`: PROTOCOL.md, Telemetry
    {"type": "started", "id", "stream", "rate_hz", "cushion_ms"}         the audio of `listen` or `say` follows
    {"type": "ended", "id", "how", "generation", "text"}                 flushed: drop what waits. spoken: all is sent. lost
    {"type": "stopped", "id", "stream", "generation", "heard_sample", "dropped_samples"}     the answer to `stop`, `flush`
    {"type": "error", "id", "text"}                                      something was refused, for people

and audio, in binary: HEADER, then signed 16-bit samples, little-endian. 32767 is 1.0. `id` is that of the page's request.

Rules: values and bytes only, no socket. A message that is not allowed is a PageError that says what is.
"""

import re
import struct
from dataclasses import dataclass, fields
from typing import ClassVar

from glowd.daemon.wire.fields import MAX_RATE_HZ, MIN_RATE_HZ
from glowd.daemon.wire.json_text import read_json

MAX_TEXT = 10_000
"""Characters of a text to speak."""
MOST = 2**53 - 1
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

HEADER = struct.Struct("<IIdII")
"""id, generation, index of the first sample in the generation, flags, sample rate in Hz."""
LAST, GAP = 1, 2
"""Flags: no audio of the generation follows; samples before these were lost."""


class PageError(Exception):
    """A message of a page that is not allowed, or that cannot be done. The text is for people."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message of a page."""

    TYPE: ClassVar[str] = ""

    def check(self) -> None:
        """Raise PageError for a value that is not allowed."""


@dataclass(frozen=True, slots=True)
class Hello(Request):
    """The first message: the token that is behind the # of the address that glowd printed."""

    TYPE: ClassVar[str] = "hello"
    token: str


@dataclass(frozen=True, slots=True)
class Figures(Request):
    """Wants the newest figures as soon as their number is above `seen`. A page that is asleep does not ask."""

    TYPE: ClassVar[str] = "figures"
    seen: int


@dataclass(frozen=True, slots=True)
class Voices(Request):
    """Wants to know which voices are ready. The first `voices` comes unasked."""

    TYPE: ClassVar[str] = "voices"


@dataclass(frozen=True, slots=True)
class Listen(Request):
    """Wants the audio of a stream of any client, at the rate of the page's audio context."""

    TYPE: ClassVar[str] = "listen"
    id: int
    stream: str
    rate_hz: int

    def check(self) -> None:
        """See Request."""
        require(NAME.fullmatch(self.stream), "listen.stream must be the name of a stream", self.stream)
        check_rate(self.rate_hz)


@dataclass(frozen=True, slots=True)
class Say(Request):
    """Speak a text through a stream of its own, and send its audio. `voice` "": the daemon's default."""

    TYPE: ClassVar[str] = "say"
    id: int
    text: str
    voice: str
    rate_hz: int

    def check(self) -> None:
        """See Request."""
        require(len(self.text) <= MAX_TEXT, f"say.text must have at most {MAX_TEXT} characters", len(self.text))
        require(self.text.strip(), "say.text must have something to say", self.text)
        require(not self.voice or NAME.fullmatch(self.voice), "say.voice must be the name of a voice", self.voice)
        check_rate(self.rate_hz)


@dataclass(frozen=True, slots=True)
class Report(Request):
    """Sent every 250 ms while the page plays. `taken`: samples received that no longer wait: the credit for more.

    `generation` and `sample`: the last sample that was heard, -1 before the first.
    """

    TYPE: ClassVar[str] = "report"
    id: int
    taken: int
    generation: int
    sample: int
    buffered_ms: int
    underruns: int


@dataclass(frozen=True, slots=True)
class Stop(Request):
    """Barge-in: the page is silent already, and this was the last sample that was heard. Of `listen`: only stop listening."""

    TYPE: ClassVar[str] = "stop"
    id: int
    generation: int
    sample: int


@dataclass(frozen=True, slots=True)
class Flush(Request):
    """Barge-in on a stream of any client, for everyone who hears it."""

    TYPE: ClassVar[str] = "flush"
    id: int
    stream: str

    def check(self) -> None:
        """See Request."""
        require(NAME.fullmatch(self.stream), "flush.stream must be the name of a stream", self.stream)


KINDS: dict[str, type[Request]] = {
    kind.TYPE: kind for kind in (Hello, Figures, Voices, Listen, Say, Report, Stop, Flush)
}


def require(holds: object, allowed: str, got: object) -> None:
    """Raise PageError unless `holds`."""
    if not holds:
        raise PageError(f"{allowed}; got {got!r:.100}")


def check_rate(rate_hz: int) -> None:
    """Raise PageError for a rate that the daemon does not make."""
    allowed = f"rate_hz must be from {MIN_RATE_HZ} to {MAX_RATE_HZ}"
    require(MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ, allowed, rate_hz)


def parse(text: str) -> Request:
    """The message of a page. Raises PageError."""
    try:
        table = read_json(text)
    except ValueError:
        raise PageError("a message must be a JSON map") from None
    if not isinstance(table, dict) or not isinstance(table.get("type"), str) or table["type"] not in KINDS:
        raise PageError(f"a message must be a JSON map whose type is one of {', '.join(KINDS)}")
    kind = KINDS[table["type"]]
    values = {field.name: value_of(kind, field.name, field.type, table.get(field.name)) for field in fields(kind)}
    request = kind(**values)
    request.check()
    return request


def value_of(kind: type[Request], name: str, annotation: object, value: object) -> str | int:
    """A field of a message. Raises PageError unless it is of its type."""
    if annotation is str and isinstance(value, str):
        return value
    if annotation is int and isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= MOST:
        return value
    wanted = "text" if annotation is str else f"a whole number from -1 to {MOST}"
    raise PageError(f"{kind.TYPE}.{name} must be {wanted}; got {value!r:.100}")
