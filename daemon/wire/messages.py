"""The wire protocol, versions 1 to 4: every message between a client and the daemon, as a typed and checked dataclass.

Rules of this file: no I/O and no session state, so that client libraries, the gateway and fuzzers can share it. It imports
numpy and the other files of this package, nothing else. The range of each field is declared here and nowhere else.
PROTOCOL.md explains the messages; tests/daemon/golden/ has the bytes of each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from glowd.daemon.wire.codec import DEFAULT_LIMITS, Codec, Limits, LocalError, WireError
from glowd.daemon.wire.fields import (
    MAX_INDEX,
    NAME,
    Array,
    Code,
    Message,
    WarningCode,
    array,
    choice,
    flag,
    identifier,
    integer,
    mapping,
    mappings,
    message,
    nanoseconds,
    number,
    sample_rate,
    string,
    string_list,
    timestamps,
)

__all__ = [  # noqa: RUF022 (by kind)
    "CLIENT_LIMITS", "CLIENT_MESSAGES", "DAEMON_MESSAGES", "MAX_INDEX", "MEL_HIGH", "MEL_LOW", "NAME", "OLDEST_VERSION",
    "STATED_HIGH", "STATED_LOW", "VERSION", "WHOLE_DAEMON", "Array", "Code", "Limits", "WarningCode", "since",
    "LocalError", "Message", "WireError", "decode", "encode", "error_for", "mel_message",
    "Hello", "Open", "Mel", "End", "Flush", "Pause", "Resume", "Gain", "Close", "Bye", "Ping", "Listen", "Unlisten", "Status",
    "Engine", "Welcome", "Opened", "Credit", "Position", "Audio", "Flushed", "Played", "State", "Error", "Warning", "Pong",
]  # fmt: skip

OLDEST_VERSION, VERSION = 1, 4
WHOLE_DAEMON = "*"
"""As the name of an engine."""
MAX_GENERATION = 2**31 - 1
MAX_CYCLES = 1e12
MEL_LOW, MEL_HIGH = -20.0, 20.0  # natural-log magnitudes; 1e-5 is -11.5
STATED_LOW, STATED_HIGH = -1000.0, 1000.0  # what they may be before they are converted: dB, say
SINK = r"device|socket|null|file:[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"  # a file name cannot begin with a dot

# What a client accepts from the daemon: state and welcome may be longer than any message of a client.
CLIENT_LIMITS = Limits(max_message_bytes=4 << 20, max_header_bytes=1 << 18, max_map_len=1024, max_array_len=1024)


# ---- client -> daemon


@message
class Hello(Message):
    """The first message of a client: its name and the protocol versions that it supports."""

    client: str = identifier()
    min_version: int = integer(1, 65535, default=OLDEST_VERSION)
    max_version: int = integer(1, 65535, default=OLDEST_VERSION)
    t_client_ns: int = nanoseconds(default=0)


@message
class Open(Message):
    """Open a stream. `voice` "" is the default voice; `format` {} is the mel format of the voice.

    With `key` > 0 a generation goes on that was running when the daemon was lost: see Going on.
    """

    stream: str = identifier()
    voice: str = identifier("", default="")
    format: dict[str, Any] = mapping(2, default={})
    sinks: list[str] = string_list(1, 8, SINK, Code.BAD_SINK, default=["device"])
    seed: int = integer(default=0)
    gain_db: float = number(-120, 24, default=0.0)
    prefill_ms: int = integer(-1, 10_000, default=-1)
    sigma: float = number(-1, 2, default=-1.0)
    audio_rate_hz: int = sample_rate(default=0, added=True)
    audio_dtype: str = choice("f32", "s16", default="f32", added=True)
    catch_up: str = choice("auto", "live", "never", default="auto", added=True)
    max_lead_ms: int = integer(0, 60_000, default=0, added=True)
    position_ms: int = integer(0, 10_000, default=0, added=True)
    generation: int = integer(0, MAX_GENERATION, default=0, added=True)
    key: int = integer(default=0, added=True)
    samples: int = integer(default=0, added=True)
    first_frame: int = integer(default=0, added=True)
    start_frame: int = integer(default=0, added=True)
    phase: float = number(-1, MAX_CYCLES, default=-1.0, added=True)
    t_ns: int = nanoseconds(default=0, added=True)
    underruns: int = integer(default=0, added=True)
    paused: bool = flag(default=False, added=True)
    after: str = identifier("", default="", added=True)


@message
class Mel(Message):
    """Mel frames, natural log; payload [frames, bins]. `seq` and `first_frame` must be the next ones, without a gap."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    seq: int = integer()
    first_frame: int = integer()
    frames: int = integer(1, 65536)
    dtype: str = choice("f32", "f16", default="f32")
    bins: int = integer(1, 1024, default=80)
    t_client_ns: int = nanoseconds(default=0)
    payload: Array = array(
        "frames", "bins", dtype="dtype", low=STATED_LOW, high=STATED_HIGH, chunked=True, default=None
    )


@message
class End(Message):
    """No more frames follow in this generation. The daemon plays what it has, then sends `played`."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    total_frames: int = integer()


@message
class Flush(Message):
    """Barge-in: the daemon fades out over `fade_ms`, drops the rest and sends `flushed`."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    fade_ms: int = integer(0, 1000, default=15)


@message
class Pause(Message):
    """Stop the sound of the stream and keep its position."""

    stream: str = identifier()


@message
class Resume(Message):
    """Continue where `pause` stopped."""

    stream: str = identifier()


@message
class Gain(Message):
    """Set the volume of the stream on the device."""

    stream: str = identifier()
    gain_db: float = number(-120, 24)


@message
class Close(Message):
    """Close the stream. A running generation is flushed first."""

    stream: str = identifier()


@message
class Bye(Message):
    """The client disconnects: the daemon closes its streams."""


@message
class Ping(Message):
    """Ask for a `pong`."""

    t_client_ns: int = nanoseconds(default=0)


@message
class Listen(Message):
    """Send the audio of a stream ("*": of every stream) to this client too."""

    stream: str = identifier("*")
    audio_rate_hz: int = sample_rate(default=0, added=True)
    audio_dtype: str = choice("f32", "s16", default="f32", added=True)


@message
class Unlisten(Message):
    """Undo `listen`."""

    stream: str = identifier("*")


@message
class Status(Message):
    """Ask for the `state` of the whole daemon."""


@message
class Engine(Message):
    """Say whether an engine, or the daemon ("*"), is given streams; answered by the `state` of the daemon. Since version 4.

    cordon: it gets no new ones. drain: those that it has move on when their utterance ends, too, and an engine that has joined
    from another machine is dismissed then; those of the daemon go to another daemon. uncordon: it is given streams again.
    """

    engine: str = string(200)
    action: str = choice("cordon", "drain", "uncordon")


# ---- daemon -> client


@message
class Welcome(Message):
    """The answer to `hello`. Each voice is the map of a VoiceInfo (telemetry.py)."""

    version: int = integer(1, 65535)
    server: str = string(64)
    voices: list[dict[str, Any]] = mappings()
    sinks: list[str] = string_list(0, 8, r"[a-z]{1,16}", Code.BAD_FIELD)
    limits: dict[str, Any] = mapping(1)
    t_client_ns: int = nanoseconds(default=0)
    t_daemon_ns: int = nanoseconds(default=0)


@message
class Opened(Message):
    """The stream is open, in `generation`; the client may send `credit_frames` frames."""

    stream: str = identifier()
    voice: str = identifier()
    rate_hz: int = integer(1, 384_000)
    hop: int = integer(1, 65536)
    credit_frames: int = integer()
    generation: int = integer(0, MAX_GENERATION, default=0)
    audio_rate_hz: int = sample_rate(default=0, added=True)
    audio_latency_ms: float = number(0, 1000, default=0.0, added=True)


@message
class Credit(Message):
    """The client may send `frames` more frames."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    frames: int = integer(1)


@message
class Position(Message):
    """Every sink has delivered the samples before `samples`, and how the generation can go on from there. Since version 3.

    Sent to the client that asked for it with `position_ms`.
    """

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    key: int = integer(1)
    samples: int = integer()
    first_frame: int = integer()
    start_frame: int = integer()
    phase: float = number(-1, MAX_CYCLES)
    t_ns: int = nanoseconds(default=0)
    underruns: int = integer(default=0)


@message
class Audio(Message):
    """Samples of a generation, from `first_sample` on; payload [samples]. `gap`: samples before these were lost."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    seq: int = integer()
    first_sample: int = integer()
    samples: int = integer(0, 1 << 20)
    dtype: str = choice("f32", "s16", default="f32")
    rate_hz: int = integer(1, 384_000, default=22_050)
    last: bool = flag(default=False)
    gap: bool = flag(default=False)
    stamps: dict[str, int] = timestamps(default={})
    payload: Array = array("samples", dtype="dtype", default=None)
    latency_ms: float = number(0, 1000, default=0.0, added=True)


@message
class Flushed(Message):
    """A generation ended by `flush`: the index of the last sample played (-1: none), and how many were dropped."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    last_sample_played: int = integer(-1)
    dropped_samples: int = integer()


@message
class Played(Message):
    """A generation ended by `end`, and every sink has delivered its last sample."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    total_samples: int = integer()
    underruns: int = integer(default=0)


@message
class State(Message):
    """The state of a stream changed. With stream "": the state of the daemon, the answer to `status`."""

    stream: str = identifier("")
    state: str = identifier()
    info: dict[str, Any] = mapping(8, default={})


@message
class Error(Message):
    """Something was refused or failed. `fatal`: it ended the generation, or without a stream the session.

    `expected_frame` >= 0: a mel was refused, and the stream continues with this frame.
    """

    code: int = integer(0, 999)
    name: str = identifier()
    text: str = string(1024)
    stream: str = identifier("", default="")
    generation: int = integer(0, MAX_GENERATION, default=0)
    fatal: bool = flag(default=False)
    expected_frame: int = integer(-1, default=-1)


@message
class Warning(Message):
    """`code` with its `name`: something that the client should know; everything goes on. Since version 2.

    `first_frame` >= 0: the frame from which on it holds.
    """

    code: int = integer(0, 999)
    name: str = identifier()
    text: str = string(1024)
    stream: str = identifier("", default="")
    generation: int = integer(0, MAX_GENERATION, default=0)
    first_frame: int = integer(-1, default=-1)


@message
class Pong(Message):
    """The answer to `ping`."""

    t_client_ns: int = nanoseconds(default=0)
    t_daemon_ns: int = nanoseconds(default=0)


CLIENT_MESSAGES: tuple[type[Message], ...] = (
    Hello, Open, Mel, End, Flush, Pause, Resume, Gain, Close, Bye, Ping, Listen, Unlisten, Status, Engine,
)  # fmt: skip
DAEMON_MESSAGES: tuple[type[Message], ...] = (
    Welcome, Opened, Credit, Position, Audio, Flushed, Played, State, Error, Warning, Pong,
)  # fmt: skip
ADDED: dict[type[Message], int] = {Warning: 2, Position: 3, Engine: 4}
CODEC = Codec(CLIENT_MESSAGES + DAEMON_MESSAGES)


def since(kind: type[Message]) -> int:
    """The version of the protocol that first had messages of this type."""
    return ADDED.get(kind, OLDEST_VERSION)


def encode(msg: Message) -> list[bytes]:
    """The parts of a message. Raises LocalError if it breaks its own declaration."""
    return CODEC.encode(msg)


def decode(parts: Sequence[Any], limits: Limits = DEFAULT_LIMITS) -> Message:
    """The message in bytes-like `parts`. Raises WireError, and nothing else."""
    return CODEC.decode(parts, limits)


def mel_message(
    stream: str, generation: int, seq: int, first_frame: int, mel: Array, *, dtype: str = "f32", t_client_ns: int = 0
) -> Mel:
    """A Mel with the frames of an array [frames, bins]. Raises LocalError if the array has another number of axes."""
    if np.ndim(mel) != 2:
        raise LocalError(f"mel has shape {np.shape(mel)}; expected two axes, [frames, bins]")
    frames, bins = np.shape(mel)
    return Mel(stream, generation, seq, first_frame, frames, dtype, bins, t_client_ns, np.asarray(mel, np.float32))


def error_for(fault: WireError, *, fatal: bool = False) -> Error:
    """The message that reports a fault to the peer that made it."""
    return Error(int(fault.code), fault.code.name, fault.text[:1024], fault.stream, fatal=fatal)
