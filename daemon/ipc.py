"""The messages between our own processes: gateway and engines, gateway and speaker.

Rules of this file: as wire/messages.py (no I/O, no state), but the peers are ours, so the limits are wide. The gateway binds
`engine.ipc` and `speaker.ipc` in the run directory as ROUTERs; an engine connects with the identity `engine:NAME` (its
name: config.py, EngineSpec), the speaker with the identity `speaker`.

A `key` is a number the gateway gives to one generation of one stream and never uses again. Sample indices are absolute in
the generation: frame f is samples f * hop ... (f + 1) * hop - 1. Times are time.monotonic_ns() of this machine.
"""

from collections.abc import Sequence
from typing import Any

from glowd.daemon.wire.codec import Codec, Limits
from glowd.daemon.wire.fields import (
    Array,
    Message,
    array,
    flag,
    identifier,
    integer,
    mapping,
    message,
    nanoseconds,
    number,
    words,
)

MAX_CYCLES = 1e12
LIMITS = Limits(
    max_message_bytes=64 << 20, max_chunk_frames=1 << 20, max_header_bytes=1 << 16, max_map_len=256, max_array_len=256
)


# ---- gateway -> engine


@message
class Start(Message):
    """A stream begins, or begins again at `first_frame` after an engine was lost. `sigma` -1: the voice's own.

    Again: the frames come from `lead_frames` before it on, and `phase` is what the Pcm that ended there said; -1: the seed's.
    """

    key: int = integer()
    seed: int = integer(-(2**63), 2**63 - 1)
    first_frame: int = integer()
    sigma: float = number(-1, 2, default=-1.0)
    lead_frames: int = integer(default=0)
    phase: float = number(-1, MAX_CYCLES, default=-1.0)


@message
class Frames(Message):
    """Mel frames [frames, bins] in order; stamps of the client's and the gateway's clock reading."""

    key: int = integer()
    first_frame: int = integer()
    frames: int = integer(0)
    bins: int = integer(1, 4096)
    t_client_ns: int = nanoseconds(default=0)
    t_gateway_ns: int = nanoseconds(default=0)
    mel: Array = array("frames", "bins", default=None)


@message
class Finish(Message):
    """No more frames: render what the look-ahead held back; the last Pcm says `last`."""

    key: int = integer()


@message
class Drop(Message):
    """Forget the stream; nothing of it is sent any more (but what is on its way may still arrive)."""

    key: int = integer()


@message
class DropAll(Message):
    """Forget every stream: the gateway that knew them is gone."""


# ---- engine -> gateway


@message
class Ready(Message):
    """The voice is loaded and warm. Sent at start and again every second; `instance` names this life of the process.

    `device`: cpu or cuda:N, where the voice runs; `threads`: on a CPU, how many threads work for it.
    """

    voice: str = identifier()
    info: dict[str, Any] = mapping()
    instance: int = integer()
    device: str = words(64, default="cpu")
    threads: int = integer(1, 256, default=1)


@message
class Pcm(Message):
    """Samples [samples], to the gateway and on to the speaker. Stages: client, gateway, engine, network start and end.

    `frames_done`: frames of the stream rendered so far (absolute); `phase`: of the voice's source there, in cycles (0 without
    one), for whoever goes on. `last`: the generation is complete; may be empty.
    """

    key: int = integer()
    first_sample: int = integer()
    samples: int = integer()
    last: bool = flag(default=False)
    frames_done: int = integer(default=0)
    t_client_ns: int = nanoseconds(default=0)
    t_gateway_ns: int = nanoseconds(default=0)
    t_engine_ns: int = nanoseconds(default=0)
    t_start_ns: int = nanoseconds(default=0)
    t_end_ns: int = nanoseconds(default=0)
    batch: int = integer(default=0)
    audio: Array = array("samples", default=None)
    phase: float = number(0, MAX_CYCLES, default=0.0)


@message
class Failed(Message):
    """The stream cannot go on in this engine; the others are not touched."""

    key: int = integer()
    text: str = words(500)


@message
class Load(Message):
    """What the engine did since the last report, a second ago or less: see metrics.py, a voice."""

    stats: dict[str, Any] = mapping()


# ---- gateway -> speaker


@message
class Attach(Message):
    """A stream will be played from `first_sample` on, once `prefill_samples` of it are there or its end is known."""

    key: int = integer()
    gain_db: float = number(-120, 24, default=0.0)
    prefill_samples: int = integer(default=0)
    first_sample: int = integer(default=0)


@message
class Pause(Message):
    """Fade out and hold the position."""

    key: int = integer()


@message
class Resume(Message):
    """Go on where Pause held."""

    key: int = integer()


@message
class Gain(Message):
    """Ramp to a new gain."""

    key: int = integer()
    gain_db: float = number(-120, 24)


@message
class Flush(Message):
    """Fade out over `fade_samples`, drop the rest, answer Flushed."""

    key: int = integer()
    fade_samples: int = integer(default=0)


@message
class Detach(Message):
    """Forget the stream, silently faded; no answer."""

    key: int = integer()


@message
class DetachAll(Message):
    """Forget every stream: the gateway that knew them is gone."""


# ---- speaker -> gateway


@message
class DeviceReady(Message):
    """The sound device is open. Sent at every opening and again every second."""

    name: str = words(200)
    rate_hz: int = integer(1)
    latency_ms: float = number(0, 1e6)
    instance: int = integer()


@message
class DeviceGone(Message):
    """There is no sound device: why, and what to do. Sent when it goes and again every second."""

    text: str = words(1000)
    instance: int = integer()


@message
class Position(Message):
    """Samples before `samples` were given to the device; sample `samples` will sound at `t_dac_ns`."""

    key: int = integer()
    samples: int = integer()
    t_dac_ns: int = nanoseconds()


@message
class Underrun(Message):
    """The device wanted sample `sample` and it was not there; sent when playing goes on, with what was missing."""

    key: int = integer()
    sample: int = integer()
    missing_samples: int = integer()
    t_ns: int = nanoseconds()


@message
class Played(Message):
    """The last sample of the generation was played: all `samples` of it."""

    key: int = integer()
    samples: int = integer()
    t_dac_ns: int = nanoseconds()


@message
class Flushed(Message):
    """Answer to Flush: the index of the last sample that was (or is being) played, -1 for none; how many were dropped."""

    key: int = integer()
    last_sample_played: int = integer(-1)
    dropped: int = integer()


CODEC = Codec(
    [
        *(Start, Frames, Finish, Drop, DropAll),
        *(Ready, Pcm, Failed, Load),
        *(Attach, Pause, Resume, Gain, Flush, Detach, DetachAll),
        *(DeviceReady, DeviceGone, Position, Underrun, Played, Flushed),
    ]
)


def encode(msg: Message) -> list[bytes]:
    """The parts of a multipart message. Raises LocalError if `msg` breaks its own declaration."""
    return CODEC.encode(msg)


def decode(parts: Sequence[Any]) -> Message:
    """The message in `parts`. Raises WireError."""
    return CODEC.decode(parts, LIMITS)
