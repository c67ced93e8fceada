"""GET /metrics: the daemon's figures for Prometheus, made of the newest snapshot when they are asked for.

Rules: nothing is kept between two requests, so a restarted daemon starts its counts at 0, as Prometheus expects. Units are in the
names. Labels are voices, stages, processes and causes, never names of clients or streams, which would grow without end.
"""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from glowd.clients.web.shared import shared_of
from glowd.daemon.wire.telemetry import Snapshot, VoiceSnapshot
from glowd.daemon.wire.totals import BUCKETS_S, Histogram, Totals

STATES = ("ready", "loading", "degraded", "cordoned", "draining", "stopping")
Number = float | int | bool | None


class SnapshotCollector(Collector):
    """The metrics of a snapshot; None: the daemon does not publish any."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """All of them. Without a snapshot only that the daemon is away."""
        yield gauge("glowd_up", "Whether the daemon publishes its figures.", self._snapshot is not None)
        version = importlib.metadata.version("glowd")
        yield labelled("glowd_build_info", "The version of glowd.", "version", {version: 1})
        if self._snapshot is not None:
            yield from of_daemon(self._snapshot)
            yield from of_voices(self._snapshot.voices)
            yield from of_links(self._snapshot.voices)
            yield from of_totals(self._snapshot.totals)


def gauge(name: str, text: str, value: Number) -> Metric:
    """One figure; no sample if it was not measured."""
    found = GaugeMetricFamily(name, text)
    if value is not None:
        found.add_metric([], float(value))
    return found


def labelled(name: str, text: str, label: str, values: dict[str, Number]) -> Metric:
    """A figure for each value of a label, but for those that were not measured."""
    found = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        if value is not None:
            found.add_metric([key], float(value))
    return found


def counted(name: str, text: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    """A count for each value of a label."""
    found = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        found.add_metric([key], value)
    return found


def of_daemon(snapshot: Snapshot) -> Iterator[Metric]:
    """The daemon as a whole, and its processes."""
    yield labelled(
        "glowd_state", "1 for the state of the daemon.", "state", {one: one == snapshot.state for one in STATES}
    )
    yield gauge("glowd_stalled", "Whether frames wait and no audio is made.", bool(snapshot.stall))
    yield gauge("glowd_uptime_seconds", "Since the gateway started.", snapshot.uptime_s)
    yield gauge("glowd_clients", "Connected clients.", snapshot.clients)
    yield gauge("glowd_streams_limit", "The most streams (server.max_streams).", snapshot.max_streams)
    states = Counter(stream.state for stream in snapshot.streams.values())
    yield labelled("glowd_streams", "Open streams, by their state.", "state", dict(states))
    roles = snapshot.roles
    yield labelled(
        "glowd_process_up", "Whether a process answers.", "process", {name: role.alive for name, role in roles.items()}
    )
    yield labelled(
        "glowd_process_resident_memory_bytes", "Memory of a process.", "process",
        {name: role.rss_bytes for name, role in roles.items()},
    )  # fmt: skip
    turn_ms = getattr(roles.get("gateway"), "turn_ms", None)
    yield gauge(
        "glowd_gateway_longest_pass_seconds", "The longest pass of the gateway's loop in the last half second.",
        seconds(turn_ms),
    )  # fmt: skip


def of_voices(voices: dict[str, VoiceSnapshot]) -> Iterator[Metric]:
    """What each voice does now."""

    def by_voice(name: str, text: str, values: dict[str, Number]) -> Metric:
        return labelled(name, text, "voice", values)

    every = voices.items()
    yield by_voice("glowd_voice_ready", "Whether a voice can be used.", {name: voice.ready for name, voice in every})
    yield by_voice("glowd_voice_streams", "Open streams of a voice.", {name: voice.open for name, voice in every})
    yield by_voice(
        "glowd_voice_capacity_streams",
        "The most streams of a voice.",
        {name: voice.max_streams for name, voice in every},
    )
    yield by_voice(
        "glowd_committed_ratio", "Open streams over the most that a voice can take.",
        {name: committed(voice) for name, voice in every},
    )  # fmt: skip
    work = {name: voice.work for name, voice in every}
    yield by_voice("glowd_engine_busy_ratio", "Time in the network.", {name: one.busy for name, one in work.items()})
    yield by_voice(
        "glowd_engine_stolen_ratio", "Time in the network in which other programs had the processor.",
        {name: one.stolen for name, one in work.items()},
    )  # fmt: skip
    yield by_voice("glowd_engine_late_ratio", "Late chunks.", {name: one.late for name, one in work.items()})
    yield by_voice("glowd_overload_level", "0 is normal.", {name: one.level for name, one in work.items()})


def committed(voice: VoiceSnapshot) -> float | None:
    """The share that is taken of what a voice can take, all of it if that is nothing; None if it has no limit."""
    if voice.max_streams is None:
        return None
    return (voice.open or 0) / voice.max_streams if voice.max_streams else 1.0


def of_links(voices: dict[str, VoiceSnapshot]) -> Iterator[Metric]:
    """The way to each engine on another machine."""
    engines = {f"engine:{name}": one for voice in voices.values() for name, one in voice.engines.items()}
    links = {name: engine.link for name, engine in engines.items() if engine.link}
    yield labelled(
        "glowd_engine_round_trip_seconds", "The quickest way to an engine on another machine and back.", "process",
        {name: seconds(link.trip_ms) for name, link in links.items()},
    )  # fmt: skip
    yield labelled(
        "glowd_engine_jitter_seconds", "By how much longer 95 in 100 ways there and back take at most.", "process",
        {name: seconds(link.jitter_ms) for name, link in links.items()},
    )  # fmt: skip


def seconds(milliseconds: float | None) -> float | None:
    """The same in seconds."""
    return None if milliseconds is None else milliseconds / 1000


def of_totals(totals: Totals) -> Iterator[Metric]:
    """What was counted since the gateway started."""
    first = HistogramMetricFamily(
        "glowd_first_audio_seconds", "From the first frames of an utterance to its first samples.", labels=["voice"]
    )
    chunks = HistogramMetricFamily(
        "glowd_chunk_seconds", "How long a chunk takes from stage to stage.", labels=["voice", "stage"]
    )
    utterances = CounterMetricFamily("glowd_utterances", "Utterances, by their ending.", labels=["voice", "ending"])
    for name, voice in totals.voices.items():
        add(first, [name], voice.first_audio)
        for stage, durations in voice.stages.items():
            add(chunks, [name, stage], durations)
        for ending, count in voice.utterances.items():
            utterances.add_metric([name, ending], count)
    yield from (first, chunks, utterances)
    made = {name: voice.audio_s for name, voice in totals.voices.items()}
    yield counted("glowd_audio_seconds", "Audio that was made.", "voice", made)
    yield counted("glowd_starved_seconds", "Audio that a listener lacked, by whose fault.", "by", totals.starved_s)
    yield counted("glowd_gaps", "Gaps that a listener heard, by whose fault.", "by", totals.gaps)
    yield counted("glowd_opens_refused", "Streams that were not opened, by the error.", "reason", totals.refused)


def add(family: HistogramMetricFamily, labels: list[str], durations: Histogram) -> None:
    """One histogram; none if its buckets are not the ones that we know."""
    if len(durations.counts) != len(BUCKETS_S) + 1:
        return
    below, buckets = 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), durations.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    family.add_metric(labels, buckets=buckets, sum_value=durations.sum_s)


async def metrics(request: Request) -> Response:
    """GET /metrics."""
    figures = shared_of(request).figures
    is_known = figures.newest is not None and figures.fresh
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(Snapshot.from_map(figures.newest) if is_known else None))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"content-type": content_type})
