"""What a simulation takes as given: measured figures, each with its source, and assumptions, each said to be one.

Rules: numbers and their sources only. A figure that is measured again is changed here, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RATE_HZ, HOP = 22_050, 256
CHUNK_FRAMES, MAX_CHUNK_FRAMES, MAX_WAIT_MS = 4, 16, 60.0
"""The defaults of a voice."""


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One kind of engine. A step takes `alone_ms[frames]` + (`batch_ms[streams]` - `batch_ms[1]`) * frames / CHUNK_FRAMES."""

    name: str
    alone_ms: Mapping[int, float]
    """A step for one stream, by the frames in a chunk."""
    batch_ms: Mapping[int, float]
    """A step with chunks of CHUNK_FRAMES, by the streams in a batch."""
    host_us: float
    """Processor time of the engine process for each chunk outside the network: messages, scheduler, report."""
    max_batch: int
    spread: float
    """Of the time of a step: the standard deviation of its logarithm."""
    start_s: float
    """From the start of the process until it is ready."""
    price: float
    """Of an hour. An assumption, and a currency of your own: replace it."""


CPU = EngineFigures(
    # Intel Xeon, one thread, processor time, the voice of 2026-11-26; daemon/engine/capacity.py measures the same.
    name="CPU core",
    alone_ms={4: 3.92, 8: 4.93, 16: 7.97},
    batch_ms={1: 3.92, 2: 5.45, 4: 8.88, 6: 12.29, 8: 15.18, 10: 19.16, 12: 22.54, 16: 27.41},
    host_us=45.0,  # renderer, scheduler and messages with a vocoder that costs nothing, without ZeroMQ
    max_batch=16,
    spread=0.08,  # RESULTS.md: p50 15.8 and p99 19.0 ms of a step for 10 streams
    start_s=6.6,  # build and warm up with kept code, on a busy machine; the first start on a machine compiles for longer
    price=0.05,
)
H100 = EngineFigures(
    # LOG.md, 2026-11-26: one NVIDIA H100, float16, torch in CUDA graphs; `python -m tests.bench backends --device cuda`.
    name="H100",
    alone_ms={4: 1.49, 8: 1.57, 16: 1.62},
    batch_ms={1: 1.49, 64: 2.49, 512: 5.67},
    host_us=45.0,
    max_batch=512,
    spread=0.08,
    start_s=30.0,  # an assumption: loading torch with CUDA and capturing graphs was not timed
    price=3.0,
)


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """One way of a message: a delay, an exponential jitter on it, and now and then a longer stop. All are assumptions."""

    base_ms: float
    jitter_ms: float
    stops_per_s: float = 0.0
    stop_ms: float = 0.0


MACHINES = LinkFigures(base_ms=0.3, jitter_ms=0.2, stops_per_s=0.01, stop_ms=20.0)
"""Between machines of one site."""
CLIENTS = LinkFigures(base_ms=15.0, jitter_ms=4.0, stops_per_s=0.02, stop_ms=80.0)
"""Between a client and the gateway, over the internet."""


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """What a gateway was measured to need, and what it allows."""

    stream_ms: float
    """Processor time for a second of a live stream with the socket sink, at CHUNK_FRAMES."""
    snapshot_us: float
    """Processor time of a snapshot for each stream; none is made while nobody watches."""
    telemetry_period_ms: float
    max_streams: int
    open_files: int

    @property
    def message_us(self) -> float:
        """Processor time for a message that comes in: two for a chunk, the frames and the samples."""
        return 1000 * self.stream_ms * CHUNK_FRAMES * HOP / RATE_HZ / 2


GATEWAY = GatewayFigures(
    # `make bench PARTS=gateway`, 2026-11-26: a full core of an Intel Xeon that other programs used as well (3.6 to 6.0).
    stream_ms=5.9,
    snapshot_us=23.0,  # a snapshot of 1000 streams, packed
    telemetry_period_ms=500.0,
    max_streams=1024,  # daemon/config.py, server.max_streams
    open_files=1024,  # the usual soft limit of a process
)
"""Where RESULTS.md has newer figures of the gateway (`make bench PARTS=gateway`), those are used."""

RECORDED = EngineFigures(
    # RESULTS.md, AMD EPYC x 2, e149e87: the machine and the voice of the overload run there, to compare with it.
    name="CPU core of the overload run",
    alone_ms={1: 1.19, 2: 1.79, 4: 2.39, 8: 4.03, 16: 6.93},
    batch_ms={1: 2.39, 3: 5.44, 10: 15.81},
    host_us=45.0,
    max_batch=16,
    spread=0.08,
    start_s=6.6,
    price=0.05,
)
SAME_MACHINE = LinkFigures(base_ms=0.1, jitter_ms=0.05)
"""Between processes."""
