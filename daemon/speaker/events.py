"""What happens to a stream inside the mixer, as events.

Rules: plain values. `at` is an index on the mixer's own output; `sample` is an index of the stream.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Output sample `at` is sample `sample` of the stream. Emitted when sound starts, then about every 50 ms of it."""

    key: int
    at: int
    sample: int


@dataclass(frozen=True, slots=True)
class Underrun:
    """From `at` on, `missing` samples of silence took the place of sample `sample`. Emitted when the gap is over."""

    key: int
    at: int
    sample: int
    missing: int


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


Event = Progress | Underrun | Finished | Flushed
