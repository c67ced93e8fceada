"""What happens to a stream inside the mixer, as events.

Rules: plain values. `at` is an index on the mixer's own output. All other counts are in samples of the stream.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Output sample `at` is sample `sample` of the stream. Emitted when sound starts, then about every 50 ms of it.

    `behind`: by how much the stream is to be shortened, because it was delayed. `skipped`: how much it was shortened so far.
    `latency_s`: from the arrival of frames to their sound; `drift_ppm`: how much faster the client's clock is than the
    device's. None: not known.
    """

    key: int
    at: int
    sample: int
    behind: int = 0
    skipped: int = 0
    latency_s: float | None = None
    drift_ppm: float | None = None


@dataclass(frozen=True, slots=True)
class Underrun:
    """From `at` on, silence of `missing` samples took the place of sample `sample`. Emitted when the gap is over.

    `by_device`: the samples were there, but the device did not play them.
    """

    key: int
    at: int
    sample: int
    missing: int
    by_device: bool = False


@dataclass(frozen=True, slots=True)
class Limited:
    """The mix of `streams` streams, of which this is one, reached `peak` times full scale at its sample `sample`."""

    key: int
    at: int
    sample: int
    peak: float
    streams: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream has ended and its last sample is before output sample `at`. It has played `samples` in all."""

    key: int
    at: int
    samples: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """The flushed stream is silent from `at` on. `last_sample` is -1 if none was played."""

    key: int
    at: int
    last_sample: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream cannot be played, because of a mistake of ours, and has been removed."""

    key: int
    at: int
    error: Exception


Event = Progress | Underrun | Limited | Finished | Flushed | Broken
