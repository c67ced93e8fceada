"""The messages between the daemon's processes: gateway and engines, gateway and speaker.

Rules of this file: as in wire/messages.py (no I/O, no state). Both sides are ours, so the limits are wide. The gateway
binds `engine.ipc` and `speaker.ipc` in the run directory as ROUTERs; an engine connects with the identity `engine:NAME`
(its name: EngineSpec in config.py), the speaker with the identity `speaker`.

A `key` is a number that the gateway gives to one generation of one stream and never uses again. Sample indices count from
the start of the generation: frame f is samples f * hop ... (f + 1) * hop - 1. Times are time.monotonic_ns() of this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glowd.daemon.wire.codec import Codec, Limits
from glowd.daemon.wire.fields import (
    Array,
    Message,
    array,
    choice,
    flag,
    identifier,
    integer,
    message,
    nanoseconds,
    number,
    record,
    string,
)
from glowd.daemon.wire.records import Record
from glowd.daemon.wire.telemetry import Degradation, VoiceInfo

MAX_CYCLES, MAX_PEAK = 1e12, 1e6
LIMITS = Limits(
    max_message_bytes=64 << 20, max_chunk_frames=1 << 20, max_header_bytes=1 << 16, max_map_len=256, max_array_len=256
)


# ---- records in these messages


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad(Record):
    """What an engine did since its last report.

    `busy`: share of the time in the network; `stolen`: share of that in which the processor ran other programs; `late`:
    share of late chunks; `level`: of overload, 0 is none. None: not measured.
    """

    streams: int
    busy: float
    stolen: float | None = None
    batches_per_s: float | None = None
    audio_per_s: float | None = None
    rss_bytes: int | None = None
    late: float | None = None
    level: int | None = None
    degraded: Degradation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerLoad(Record):
    """What the speaker did since it started: `limited_samples` were too loud and limited."""

    rss_bytes: int | None = None
    limited_samples: int


# ---- gateway -> engine


@message
class Start(Message):
    """A stream starts; at `first_frame` > 0 it continues after an engine was lost. `sigma` -1: the default of the voice.

    To continue, the frames begin `lead_frames` earlier, and `phase` is that of the Pcm that ended there; -1: that of the seed.
    `attempt`: counts the starts of a key, so that what an engine still sends of an earlier one is told apart.
    """

    key: int = integer()
    seed: int = integer(-(2**63), 2**63 - 1)
    first_frame: int = integer()
    sigma: float = number(-1, 2, default=-1.0)
    lead_frames: int = integer(default=0)
    phase: float = number(-1, MAX_CYCLES, default=-1.0)
    attempt: int = integer(default=0, added=True)


@message
class Frames(Message):
    """Mel frames [frames, bins] in order; when the client sent them and when the gateway received them."""

    key: int = integer()
    first_frame: int = integer()
    frames: int = integer(0)
    bins: int = integer(1, 4096)
    t_client_ns: int = nanoseconds(default=0)
    t_gateway_ns: int = nanoseconds(default=0)
    mel: Array = array("frames", "bins", default=None)


@message
class Finish(Message):
    """No more frames follow: render what the look-ahead held back. The final Pcm has `last`.

    `t_gateway_ns`: when the gateway received the end; 0: not told.
    """

    key: int = integer()
    t_gateway_ns: int = nanoseconds(default=0, added=True)


@message
class Drop(Message):
    """Drop the stream and send nothing more of it. What is already on its way may still arrive."""

    key: int = integer()


@message
class DropAll(Message):
    """Drop every stream: the gateway that started them is gone."""


# ---- engine -> gateway


@message
class Ready(Message):
    """The voice is loaded and warmed up. Sent at start and then every second.

    `instance` changes when the process restarts. `device`: where the voice runs, cpu or cuda:N. `threads`: how many
    threads it uses on a CPU. `start_s`: from the start of the process until it was ready. `digest`: equal where voices make
    equal samples, as far as their settings and weights tell; "": not known.
    """

    voice: str = identifier()
    info: VoiceInfo = record(VoiceInfo)
    instance: int = integer()
    device: str = string(64, default="cpu")
    threads: int = integer(1, 256, default=1)
    start_s: float = number(0, 1e6, default=0.0)
    digest: str = string(64, default="", added=True)


@message
class Pcm(Message):
    """Samples [samples], from the engine to the gateway and from there to the speaker.

    `t_due_ns`: when the engine could have begun with the first of them, by the gateway's receipt of what it needed. The other
    times are when the newest frames passed
    each stage: client, gateway, engine, start and end of the network's call. `frames_done`: frames of the generation
    rendered so far; `phase`: that of the voice's source there, in cycles (0 without a source), for the engine that
    continues. `last`: the generation is complete; there may be no samples. `peak`: the largest sample, if it is above full
    scale, else 0. `silenced`: the voice diverged, and these samples are silence instead. `attempt`: of Start; -1: not told.
    For the speaker only: the newest
    message with frames reached the gateway at `arrived_ns`; it is for the samples from `arrived_first` to `arrived_end`;
    `arrived_freely`: its client had credit left.
    """

    key: int = integer()
    first_sample: int = integer()
    samples: int = integer()
    last: bool = flag(default=False)
    frames_done: int = integer(default=0)
    t_client_ns: int = nanoseconds(default=0)
    t_gateway_ns: int = nanoseconds(default=0)
    t_engine_ns: int = nanoseconds(default=0)
    t_due_ns: int = nanoseconds(default=0)
    t_start_ns: int = nanoseconds(default=0)
    t_end_ns: int = nanoseconds(default=0)
    batch: int = integer(default=0)
    audio: Array = array("samples", default=None)
    phase: float = number(0, MAX_CYCLES, default=0.0)
    peak: float = number(0, MAX_PEAK, default=0.0)
    silenced: bool = flag(default=False)
    arrived_ns: int = nanoseconds(default=0)
    arrived_first: int = integer(default=0)
    arrived_end: int = integer(default=0)
    arrived_freely: bool = flag(default=False)
    attempt: int = integer(-1, default=-1, added=True)


@message
class Failed(Message):
    """The stream cannot continue in this engine, or this speaker. Other streams are not affected. `attempt`: as in Pcm."""

    key: int = integer()
    text: str = string(500)
    attempt: int = integer(-1, default=-1, added=True)


@message
class Load(Message):
    """What a process did since its last report, a second ago or less."""

    stats: EngineLoad | SpeakerLoad = record(EngineLoad | SpeakerLoad)


# ---- gateway -> speaker


@message
class Attach(Message):
    """Play a stream from `first_sample` on, once `prefill_samples` of it or its end have arrived.

    `t_dac_ns`: when `first_sample` was to sound in a speaker, or at a rate, that is gone; 0: the stream starts. `catch_up`:
    whether it is shortened after a gap (catch_up.py); `max_lead_samples`: the most that may wait, 0: no limit. `goes_on`: a
    gateway that is lost has started it. If it is still there it plays on, and samples that it has are ignored. `after`: the key
    of a stream that is played first; 0, or one that is not there: none.
    """

    key: int = integer()
    rate_hz: int = integer(1, 384_000)
    gain_db: float = number(-120, 24, default=0.0)
    prefill_samples: int = integer(default=0)
    first_sample: int = integer(default=0)
    t_dac_ns: int = nanoseconds(default=0)
    catch_up: str = choice("auto", "live", "never", default="auto")
    max_lead_samples: int = integer(default=0)
    goes_on: bool = flag(default=False)
    after: int = integer(default=0)


@message
class OutputRate(Message):
    """The sample rate of all voices, 0 if they differ or are not known yet: the device is opened at it if it can."""

    rate_hz: int = integer(0, 384_000)


@message
class Pause(Message):
    """Fade out and keep the position."""

    key: int = integer()


@message
class Resume(Message):
    """Continue where Pause stopped."""

    key: int = integer()


@message
class Gain(Message):
    """Ramp to a new gain."""

    key: int = integer()
    gain_db: float = number(-120, 24)


@message
class Flush(Message):
    """Fade out over `fade_samples`, drop the rest and answer Flushed."""

    key: int = integer()
    fade_samples: int = integer(default=0)


@message
class Detach(Message):
    """Fade out and drop the stream. There is no answer."""

    key: int = integer()


@message
class DetachAll(Message):
    """The gateway that started the streams is gone: drop each, unless it is attached again (`goes_on`) in some seconds.

    Meanwhile they play what they have.
    """


# ---- speaker -> gateway


@message
class DeviceReady(Message):
    """The sound device is open. Sent when it opens and then every second."""

    name: str = string(200)
    rate_hz: int = integer(1)
    latency_ms: float = number(0, 1e6)
    instance: int = integer()


@message
class DeviceGone(Message):
    """There is no sound device; the text says why and what to do. Sent when it is lost and then every second."""

    text: str = string(1000)
    instance: int = integer()


@message
class Position(Message):
    """The device has the samples before `samples`; sample `samples` will sound at `t_dac_ns`.

    `behind_samples`: by how much the stream is to be shortened; `skipped_samples`: how much it was shortened so far;
    `unheard_ns`: how long after this was sent the sample will sound. `latency_ns`: from the arrival of frames to their sound,
    0: not measured; `is_paced`: a clock paces the stream, which is faster than the device's by `drift_ppm`.
    """

    key: int = integer()
    samples: int = integer()
    t_dac_ns: int = nanoseconds()
    behind_samples: int = integer(default=0)
    skipped_samples: int = integer(default=0)
    unheard_ns: int = nanoseconds(default=0)
    latency_ns: int = nanoseconds(default=0)
    is_paced: bool = flag(default=False)
    drift_ppm: float = number(-1e6, 1e6, default=0.0)


@message
class Underrun(Message):
    """The listener waited for sample `sample`, because it had not arrived, or (`by_device`) because the device was gone.

    Sent when playback continues, with the number of missing samples.
    """

    key: int = integer()
    sample: int = integer()
    missing_samples: int = integer()
    t_ns: int = nanoseconds()
    by_device: bool = flag(default=False)


@message
class Limited(Message):
    """The mix of `streams` streams, of which this is one, reached `peak` times full scale. Sent once of a generation."""

    key: int = integer()
    sample: int = integer()
    peak: float = number(0, MAX_PEAK)
    streams: int = integer()


@message
class Played(Message):
    """The device has played all `samples` of the generation."""

    key: int = integer()
    samples: int = integer()
    t_dac_ns: int = nanoseconds()


@message
class Flushed(Message):
    """The answer to Flush: the index of the last sample played (-1: none), and how many were dropped."""

    key: int = integer()
    last_sample_played: int = integer(-1)
    dropped: int = integer()


CODEC = Codec(
    [
        *(Start, Frames, Finish, Drop, DropAll),
        *(Ready, Pcm, Failed, Load),
        *(Attach, OutputRate, Pause, Resume, Gain, Flush, Detach, DetachAll),
        *(DeviceReady, DeviceGone, Position, Underrun, Limited, Played, Flushed),
    ]
)


def encode(msg: Message) -> list[bytes]:
    """The parts of a multipart message. Raises LocalError if `msg` breaks its own declaration."""
    return CODEC.encode(msg)


def decode(parts: Sequence[Any]) -> Message:
    """The message in `parts`. Raises WireError."""
    return CODEC.decode(parts, LIMITS)
