"""Wire protocol v1: every message between a client and the daemon, as typed, checked dataclasses.

Rules of this file: no I/O and no session state, so that a client library, the gateway and a fuzzer can share it;
it imports numpy, msgpack and the codec beside it, nothing else of ours. Each field states its range here and nowhere
else. The words for people are in PROTOCOL.md; the bytes of every message are in tests/daemon/golden/.
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
    timestamps,
    word_list,
    words,
)

__all__ = [  # noqa: RUF022 (by kind)
    "CLIENT_LIMITS", "CLIENT_MESSAGES", "DAEMON_MESSAGES", "MAX_INDEX", "MEL_HIGH", "MEL_LOW", "NAME", "VERSION",
    "Array", "Code", "Limits",
    "LocalError", "Message", "WireError", "decode", "encode", "error_for", "mel_message",
    "Hello", "Open", "Mel", "End", "Flush", "Pause", "Resume", "Gain", "Close", "Bye", "Ping", "Listen", "Unlisten", "Status",
    "Welcome", "Opened", "Credit", "Audio", "Flushed", "Played", "State", "Error", "Pong",
]  # fmt: skip

VERSION = 1
MAX_GENERATION = 2**31 - 1
MEL_LOW, MEL_HIGH = -20.0, 20.0  # natural-log magnitudes; 1e-5 is -11.5
SINK = r"device|socket|null|file:[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"  # a file name cannot begin with a dot

# What a client accepts from the daemon: status and welcome may be longer than anything a client sends.
CLIENT_LIMITS = Limits(max_message_bytes=4 << 20, max_header_bytes=1 << 18, max_map_len=1024, max_array_len=1024)


# ---- client -> daemon


@message
class Hello(Message):
    """First message of a client: its name and the protocol versions it speaks."""

    client: str = identifier()
    min_version: int = integer(1, 65535, default=VERSION)
    max_version: int = integer(1, 65535, default=VERSION)
    t_client_ns: int = nanoseconds(default=0)


@message
class Open(Message):
    """Asks for a stream. `voice` "" is the default voice; `format` {} means: the voice's own mel format."""

    stream: str = identifier()
    voice: str = identifier("", default="")
    format: dict[str, Any] = mapping(1, default={})
    sinks: list[str] = word_list(1, 8, SINK, Code.BAD_SINK, default=["device"])
    seed: int = integer(default=0)
    gain_db: float = number(-120, 24, default=0.0)
    prefill_ms: int = integer(-1, 10_000, default=-1)
    sigma: float = number(-1, 2, default=-1.0)


@message
class Mel(Message):
    """`frames` mel frames, natural log; payload [frames, bins]. `seq` and `first_frame` are exactly the next ones."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    seq: int = integer()
    first_frame: int = integer()
    frames: int = integer(1, 65536)
    dtype: str = choice("f32", "f16", default="f32")
    bins: int = integer(1, 1024, default=80)
    t_client_ns: int = nanoseconds(default=0)
    payload: Array = array("frames", "bins", dtype="dtype", low=MEL_LOW, high=MEL_HIGH, chunked=True, default=None)


@message
class End(Message):
    """No more frames in this generation: play what is there, then say `played`."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    total_frames: int = integer()


@message
class Flush(Message):
    """Barge-in: fade out over `fade_ms`, drop the rest, say `flushed`."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    fade_ms: int = integer(0, 1000, default=15)


@message
class Pause(Message):
    """Hold the stream's position, silently."""

    stream: str = identifier()


@message
class Resume(Message):
    """Go on where `pause` stopped."""

    stream: str = identifier()


@message
class Gain(Message):
    """Set the stream's volume on the device."""

    stream: str = identifier()
    gain_db: float = number(-120, 24)


@message
class Close(Message):
    """End the stream. A running generation is flushed first."""

    stream: str = identifier()


@message
class Bye(Message):
    """The client leaves: its streams are closed, and its place is free."""


@message
class Ping(Message):
    """Asks for a `pong`."""

    t_client_ns: int = nanoseconds(default=0)


@message
class Listen(Message):
    """Send the audio of a stream ("*": of every stream) to this peer too."""

    stream: str = identifier("*")


@message
class Unlisten(Message):
    """Undo `listen`."""

    stream: str = identifier("*")


@message
class Status(Message):
    """Asks for the `state` of the whole daemon."""


# ---- daemon -> client


@message
class Welcome(Message):
    """Answer to `hello`.

    Each voice: name, rate_hz, hop, format, look_ahead_frames, latency_ms, whole_utterance, default.
    """

    version: int = integer(1, 65535)
    server: str = words(64)
    voices: list[dict[str, Any]] = mappings()
    sinks: list[str] = word_list(0, 8, r"[a-z]{1,16}", Code.BAD_FIELD)
    limits: dict[str, Any] = mapping(1)
    t_client_ns: int = nanoseconds(default=0)
    t_daemon_ns: int = nanoseconds(default=0)


@message
class Opened(Message):
    """The stream exists, in `generation`, and the client may send `credit_frames` frames."""

    stream: str = identifier()
    voice: str = identifier()
    rate_hz: int = integer(1, 384_000)
    hop: int = integer(1, 65536)
    credit_frames: int = integer()
    generation: int = integer(0, MAX_GENERATION, default=0)


@message
class Credit(Message):
    """The client may send `frames` more."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    frames: int = integer(1)


@message
class Audio(Message):
    """Payload [samples]: the generation's samples from `first_sample` on. `gap`: samples before these were lost."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    seq: int = integer()
    first_sample: int = integer()
    samples: int = integer(0, 1 << 20)
    dtype: str = choice("f32", default="f32")
    rate_hz: int = integer(1, 384_000, default=22_050)
    last: bool = flag(default=False)
    gap: bool = flag(default=False)
    stamps: dict[str, int] = timestamps(default={})
    payload: Array = array("samples", default=None)


@message
class Flushed(Message):
    """The generation ended by `flush`: the index of the last sample heard (-1: none), and how many were dropped."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    last_sample_played: int = integer(-1)
    dropped_samples: int = integer()


@message
class Played(Message):
    """The generation ended by `end`, and its last sample has left every sink."""

    stream: str = identifier()
    generation: int = integer(0, MAX_GENERATION)
    total_samples: int = integer()
    underruns: int = integer(default=0)


@message
class State(Message):
    """A stream's state changed; or, with stream "", the daemon's answer to `status`."""

    stream: str = identifier("")
    state: str = identifier()
    info: dict[str, Any] = mapping(8, default={})


@message
class Error(Message):
    """`code` with its `name`. `fatal`: it ended the generation, or without a stream the session.

    `expected_frame` >= 0: a mel was refused, and the stream goes on with this frame.
    """

    code: int = integer(0, 999)
    name: str = identifier()
    text: str = words(1024)
    stream: str = identifier("", default="")
    generation: int = integer(0, MAX_GENERATION, default=0)
    fatal: bool = flag(default=False)
    expected_frame: int = integer(-1, default=-1)


@message
class Pong(Message):
    """Answer to `ping`."""

    t_client_ns: int = nanoseconds(default=0)
    t_daemon_ns: int = nanoseconds(default=0)


CLIENT_MESSAGES: tuple[type[Message], ...] = (
    Hello, Open, Mel, End, Flush, Pause, Resume, Gain, Close, Bye, Ping, Listen, Unlisten, Status,
)  # fmt: skip
DAEMON_MESSAGES: tuple[type[Message], ...] = (
    Welcome, Opened, Credit, Audio, Flushed, Played, State, Error, Pong,
)  # fmt: skip
CODEC = Codec(CLIENT_MESSAGES + DAEMON_MESSAGES)


def encode(msg: Message) -> list[bytes]:
    """The parts of a message. Raises LocalError when it breaks its own declaration."""
    return CODEC.encode(msg)


def decode(parts: Sequence[Any], limits: Limits = DEFAULT_LIMITS) -> Message:
    """The message in bytes-like `parts`. Raises WireError, and nothing else."""
    return CODEC.decode(parts, limits)


def mel_message(
    stream: str, generation: int, seq: int, first_frame: int, mel: Array, *, dtype: str = "f32", t_client_ns: int = 0
) -> Mel:
    """A Mel of an array [frames, bins]. Raises LocalError for another number of axes."""
    if np.ndim(mel) != 2:
        raise LocalError(f"a mel has shape [frames, bins]; this one has {np.shape(mel)}")
    frames, bins = np.shape(mel)
    return Mel(stream, generation, seq, first_frame, frames, dtype, bins, t_client_ns, np.asarray(mel, np.float32))


def error_for(fault: WireError, *, fatal: bool = False) -> Error:
    """The message that tells a peer of its fault."""
    return Error(int(fault.code), fault.code.name, fault.text[:1024], fault.stream, fatal=fatal)
