"""How many live streams a voice can keep up with on this machine: measured when the engine starts.

Rules: no socket, no torch. A call for n streams takes T(n). At real-time pace each stream needs one chunk in the duration
of a chunk, so a round over all streams, in calls of at most `max_batch`, may take no longer than that. The capacity is the
largest number of streams whose round takes at most SHARE of it; the rest is for the machine's other work.

T(n) has two parts: the call to the network, and what the process does around it for each stream (overhead.py).

If one thread does all the work, T(n) is processor time, not wall-clock time: the load of other programs while the daemon
starts says nothing about later. If they load the machine later, overload.py reacts.
"""

import contextlib
import math
import time
from collections.abc import Callable
from functools import cache

from glowd.daemon.wire.telemetry import Capacity
from glowd.flow.timing import calls, frames_per_call
from glowd.flow.vocoder import AnyVocoder

SHARE = 0.5
"""Share of a chunk's duration that a round of calls may take. At 0.7 streams at full capacity had underruns (measured): gateway
and speaker need the machine as well, and a stream that falls due just after a round has begun waits for the next."""
REPEATS = 4
LIMIT_S = 6.0
"""The measurement ends after this time, with the result so far."""


Clock = Callable[[], float]


def device_of(vocoder: AnyVocoder) -> str:
    """The device of a voice: cpu or cuda:N."""
    return str(getattr(vocoder, "device", "cpu"))


def is_single_threaded(vocoder: AnyVocoder, threads: int) -> bool:
    """Whether the calling thread does all the work of the voice, without other threads or a GPU."""
    return threads == 1 and device_of(vocoder) == "cpu"


def find_capacity(
    vocoder: AnyVocoder,
    max_streams: int,
    chunk_frames: int,
    max_batch: int,
    clock_s: Clock = time.perf_counter,
    overhead_s: float = 0.0,
) -> Capacity | None:
    """The configured capacity (`max_streams` above 0), else the measured one; None for a voice without live streams.

    A voice that is heard only when its utterance has ended has no pace to keep. A voice too slow for a single stream still
    serves one, which is enough for a file. `clock_s`: time.thread_time for a single-threaded voice; `overhead_s`: of the
    process for each chunk, beside the network.
    """
    if max_streams:
        return Capacity(streams=max_streams, measured=False)
    if vocoder.whole_utterance:
        return None
    frames = frames_per_call(vocoder, chunk_frames)
    vocoder.warm_up(1, frames)  # it may compile for half a minute, where no code was kept from last time
    until_s = time.monotonic() + LIMIT_S
    chunk_s = frames * vocoder.hop / vocoder.rate_hz
    step_s = cache(lambda batch: fastest_s(vocoder, frames, batch, until_s, clock_s) + batch * overhead_s)
    streams = max(1, streams_within(step_s, SHARE * chunk_s, max_batch))
    return Capacity(
        streams=streams,
        measured=True,
        share=SHARE,
        chunk_ms=_ms(chunk_s),
        alone_ms=_ms(step_s(1)),
        round_ms=_ms(round_s(step_s, streams, max_batch)),
    )


def _ms(seconds: float) -> float | None:
    return round(1000 * seconds, 2) if math.isfinite(seconds) else None


def fastest_s(vocoder: AnyVocoder, frames: int, batch: int, until_s: float, clock_s: Clock) -> float:
    """Seconds of the fastest of REPEATS steady calls; infinite if there was none before `until_s` (monotonic clock).

    The fastest, because other work of the machine makes the others slower, and SHARE accounts for that.
    """
    fastest, steady = math.inf, 0
    with contextlib.closing(calls(vocoder, frames, batch, clock_s)) as timed:  # type: ignore[type-var]
        while steady < REPEATS and time.monotonic() < until_s:
            call = next(timed)
            if call.steady:
                fastest, steady = min(fastest, call.seconds), steady + 1
    return fastest


def streams_within(step_s: Callable[[int], float], budget_s: float, max_batch: int) -> int:
    """The most streams that a round of calls serves within `budget_s`; 0 if not even one.

    `step_s(n)`: seconds of a call for n streams, which does not fall with n.
    """
    batch = _largest(step_s, budget_s, max_batch)
    if batch < max_batch:
        return batch
    full = int(budget_s / step_s(max_batch)) if step_s(max_batch) else 1
    return full * max_batch + _largest(step_s, budget_s - full * step_s(max_batch), max_batch - 1)


def _largest(step_s: Callable[[int], float], budget_s: float, limit: int) -> int:
    """The largest n up to `limit` with step_s(n) within the budget: by doubling, then by bisection."""
    fits, size = 0, 1
    while size <= limit and step_s(size) <= budget_s:
        fits, size = size, 2 * size
    too_many = min(size, limit + 1)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if step_s(middle) <= budget_s else (fits, middle)
    return fits


def round_s(step_s: Callable[[int], float], streams: int, max_batch: int) -> float:
    """Seconds of the calls that serve each of `streams` once."""
    full, rest = divmod(streams, max_batch)
    return (full * step_s(max_batch) if full else 0.0) + (step_s(rest) if rest else 0.0)
