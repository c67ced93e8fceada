"""What limits how many streams there can be: the parts that a stream uses, by what was measured of each.

Rules: arithmetic on named figures; nothing is simulated here. A part is named with how many streams one of it serves, and with
what there is of it, so that the first one to be short can be read off, and what removes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from glowd.daemon.engine.capacity import SHARE
from tests.bench.simulation.curve import CostCurve
from tests.bench.simulation.inputs import CHUNK_FRAMES, HOP, RATE_HZ, EngineFigures, GatewayFigures

CHUNKS_PER_S = RATE_HZ / HOP / CHUNK_FRAMES
TAKEN = 0.8
"""Of the places in all engines, how many live streams may take at the worst hour: the rest is for chance, and for losses."""
MEL_BYTES, SAMPLE_BYTES = 80 * 4, 4
CORE = f"core of a gateway, {SHARE:.0%} of it"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that streams use up. `serves`: streams for one of `what`."""

    what: str
    serves: float
    remedy: str

    def needed(self, streams: int) -> float:
        """How many of it so many streams need."""
        return streams / self.serves


def parts(engine: EngineFigures, gateway: GatewayFigures) -> list[Part]:
    """What a live stream uses, each with what makes it serve more."""
    curve = CostCurve(engine)
    bits = 8 * RATE_HZ * (MEL_BYTES / HOP + SAMPLE_BYTES)
    return [
        Part(f"{engine.name}: the network", curve.capacity().streams, "more engines; larger chunks"),
        Part(
            f"process of a {engine.name}: messages and scheduler",
            SHARE * 1e6 / (CHUNKS_PER_S * engine.host_us),
            "larger chunks (chunk_frames = 8 halves it), or several engines on one device",
        ),
        Part(CORE, SHARE * 1000 / gateway.stream_ms, "several gateways, each with engines of its own"),
        Part("gateway: streams allowed (server.max_streams)", gateway.max_streams, "several gateways"),
        Part("gateway: open files, a connection each", gateway.open_files, "LimitNOFILE in the unit file"),
        Part(
            "gateway: telemetry for one watcher",
            SHARE * gateway.telemetry_period_ms / (gateway.snapshot_us / 1000),
            "nobody who watches (no snapshot is made then), or fewer streams for each gateway",
        ),
        Part("gateway: 10 Gbit/s network, both ways", 10e9 / (2 * bits), "s16 audio and f16 mels halve it"),
    ]


def to_buy(streams: int, found: Sequence[Part], engine: EngineFigures, core_price: float) -> dict[str, float]:
    """Engines' devices, engine processes and gateways for so many live streams, and what an hour of them costs.

    An engine process on a GPU takes a core besides, and so does each gateway.
    """
    serves = {part.what.partition(": messages")[0]: part.serves for part in found}
    devices = math.ceil(streams / serves[f"{engine.name}: the network"] / TAKEN)
    processes = max(devices, math.ceil(streams / serves[f"process of a {engine.name}"] / TAKEN))
    gateways = math.ceil(streams / serves[CORE])
    cores = gateways + (processes if engine.price != core_price else 0)
    price = devices * engine.price + cores * core_price
    return {
        engine.name: devices, "engine processes": processes, "gateways": gateways, "price of an hour": price,
        "of a stream-hour": price / streams,
    }  # fmt: skip


def first_short(found: Sequence[Part], engine: EngineFigures) -> Part:
    """The part of a gateway's machine that is used up by the fewest streams; engines can be added without limit."""
    return min((part for part in found if engine.name not in part.what), key=lambda part: part.serves)
