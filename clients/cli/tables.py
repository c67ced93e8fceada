"""A snapshot of the daemon as tables, for `glowctl top`, `glowctl status` and the demo.

Rules: pure functions of a snapshot (PROTOCOL.md, Telemetry). A figure that was not measured is shown as "-", never as 0.
Names that clients have chosen are shown without control characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from glowd.daemon.wire.telemetry import (
    STAGES,
    Degradation,
    EngineSnapshot,
    LinkSnapshot,
    Role,
    Snapshot,
    SpeakerRole,
    StageTimes,
    VoiceSnapshot,
)

T = TypeVar("T")
ABSENT = "-"
NARROW_COLUMNS = 110


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the headings of the columns ("<" in front: aligned left) and the cells of the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


# ---- cells


def clean(value: object) -> str:
    """Text without control characters."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def cell(value: object, form: str = "", scale: float = 1.0) -> str:
    """A figure in a format; "-" if it is absent."""
    if value is None or value == "":
        return ABSENT
    if form and isinstance(value, int | float):
        return format(value * scale, form)
    return clean(value)


def entries(found: Mapping[str, T]) -> list[tuple[str, T]]:
    """The names and values of a map, sorted by name."""
    shown = [(clean(name), value) for name, value in found.items()]
    return sorted(shown, key=lambda entry: entry[0])  # not by value: two names may be equal once cleaned


def spread(stage: StageTimes | None) -> str:
    """p50/p99 in milliseconds."""
    if stage is None or stage.p50_ms is None:
        return ABSENT
    return f"{cell(stage.p50_ms, '.1f')}/{cell(stage.p99_ms, '.1f')}"


# ---- tables


def streams_table(snapshot: Snapshot, narrow: bool = False) -> Table:
    """A row for each stream. VOICE: its engine. BEHIND: the delay that a gap has left, which is caught up. LATENCY: from the
    arrival of frames to their sound. DRIFT: of the client's clock against the device's.

    XRUN: how often client or engine was late for the device, or the device was gone.
    """
    columns = [
        "<STREAM", "<CLIENT", "<STATE", "<VOICE", "<SINKS", "GEN", "TTFA", "RTF", "QUEUE", "CREDIT", "LATENCY", "DRIFT",
        "BEHIND", "XRUN",
    ]  # fmt: skip
    rows = [
        [
            name, cell(s.client), cell(s.state), cell(s.engine or s.voice), cell(",".join(s.sinks)), cell(s.generation),
            cell(s.ttfa_ms, ".0f"), cell(s.rtf, ".2f"), cell(s.queue_frames), cell(s.credit_frames),
            cell(s.latency_ms, ".0f"), cell(s.drift_ppm, "+.0f"), cell(s.behind_ms, ".0f"),
            "/".join(map(cell, (s.underruns.client, s.underruns.engine, s.underruns.device))),
        ]
        for name, s in entries(snapshot.streams)
    ]  # fmt: skip
    return without(
        Table("streams (TTFA, LATENCY, BEHIND: ms; DRIFT: ppm; XRUN by client/engine/device)", columns, rows),
        ("<CLIENT", "<VOICE", "<SINKS", "GEN", "CREDIT") if narrow else (),
    )


def without(table: Table, dropped: Sequence[str]) -> Table:
    """The table without some columns."""
    kept = [number for number, column in enumerate(table.columns) if column not in dropped]
    rows = [[row[number] for number in kept] for row in table.rows]
    return Table(table.title, [table.columns[number] for number in kept], rows)


def stages_table(snapshot: Snapshot) -> Table:
    """A row for each stream: the latency of every stage, and the mean of their sum."""
    rows = [
        [
            name,
            *(spread(stream.stages.times.get(stage)) for stage in STAGES),
            cell(stream.stages.mean_sum_ms, ".1f"),
        ]
        for name, stream in entries(snapshot.streams)
    ]
    return Table("stages, p50/p99 in ms", ["<STREAM", *(stage.upper() for stage in STAGES), "MEAN SUM"], rows)


def voices_table(snapshot: Snapshot, narrow: bool = False) -> Table:
    """A row for each voice, and below it for each of its engines if there are several."""
    rows = []
    for name, voice in entries(snapshot.voices):
        found = engines(voice)
        places = [_place(engine) for _, engine in found]
        where = places[0] if len(places) == 1 else f"{len(places)} engines" if places else ABSENT
        links = [way(engine.link) for _, engine in found]
        link = links[0] if len(links) == 1 else ABSENT
        rows.append(_voice_row(name + (" *" if voice.default else ""), voice, where, link))
        if len(found) > 1:
            rows += [
                _voice_row(f"  {label}", engine, place, one)
                for (label, engine), place, one in zip(found, places, links, strict=True)
            ]
    columns = ["<VOICE", "<STATE", "<DEVICE", "SPEAKING", "OPEN", "BUSY %", "STOLEN %", "LATE %", "LEVEL", "CALLS/s",
               "AUDIO s/s", "LINK"]  # fmt: skip
    stolen = "" if narrow else "STOLEN: by other programs; "
    none = "" if narrow else ", 0 is none"
    title = f"voices (OPEN: streams/most; {stolen}LEVEL: of overload{none}; LINK: ms there and back/jitter)"
    return without(Table(title, columns, rows), ("<DEVICE", "STOLEN %", "CALLS/s") if narrow else ())


def engines(voice: VoiceSnapshot) -> list[tuple[str, EngineSnapshot]]:
    """A voice's engines, in the order of their devices."""
    return [(clean(name), engine) for name, engine in voice.engines.items()]


def _place(engine: EngineSnapshot) -> str:
    """Its device, and the machine that has that, if it is another one."""
    return cell(engine.device) + (f" on {clean(engine.host)}" if engine.host else "")


def way(link: LinkSnapshot | None) -> str:
    """What the link to an engine of another machine costs, in milliseconds, and how much that varies."""
    if link is None or link.trip_ms is None:
        return ABSENT
    return "/".join(cell(value, ".1f" if value and value < 100 else ".0f") for value in (link.trip_ms, link.jitter_ms))


def _voice_row(name: str, voice: VoiceSnapshot | EngineSnapshot, where: str, link: str) -> list[str]:
    work = voice.work
    return [
        name,
        _state_of(voice),
        where,
        cell(work.streams),
        f"{cell(voice.open)}/{cell(voice.max_streams)}",
        cell(work.busy, ".0f", 100),
        cell(work.stolen, ".0f", 100),
        cell(work.late, ".0f", 100),
        cell(work.level),
        cell(work.batches_per_s, ".1f"),
        cell(work.audio_per_s, ".2f"),
        link,
    ]


def _state_of(voice: VoiceSnapshot | EngineSnapshot) -> str:
    if not voice.ready:
        return cell(voice.state) if voice.state else "away"
    away = isinstance(voice, VoiceSnapshot) and any(not engine.ready for engine in voice.engines.values())
    return "degraded" if away or voice.work.degraded else _placement_of(voice)


def _placement_of(voice: VoiceSnapshot | EngineSnapshot) -> str:
    """Of what is ready: "ready" if it gets new streams, else what an operator has said, cordoned or draining."""
    found = [
        engine.placement or "open"
        for engine in ([voice] if isinstance(voice, EngineSnapshot) else voice.engines.values())
    ]
    return "ready" if not found or "open" in found else cell(found[0])


def roles_table(snapshot: Snapshot) -> Table:
    """A row for each process."""
    rows = [
        [
            name,
            "alive" if role.alive else "gone",
            cell(role.rss_bytes, ".0f", 1 / (1 << 20)),
            cell(_device_of(role)),
        ]
        for name, role in entries(snapshot.roles)
    ]
    return Table("roles", ["<ROLE", "<STATE", "MiB", "<DEVICE"], rows)


def _device_of(role: Role) -> str | None:
    return role.device or role.why_not if isinstance(role, SpeakerRole) else None


def nodes_table(snapshot: Snapshot) -> Table:
    """A row for each node of the Ray cluster, and the engines that it has of this daemon."""
    rows = [
        [
            name, cell(node.host), cell(node.state), cell(node.cpus, "g"), cell(node.gpus, "g"),
            cell(" ".join(node.engines)),
        ]
        for name, node in entries(snapshot.nodes)
    ]  # fmt: skip
    return Table("nodes of the cluster", ["<NODE", "<HOST", "<STATE", "CPUS", "GPUS", "<ENGINES"], rows)


# ---- all of it


def headline(snapshot: Snapshot) -> str:
    """The daemon as a whole, in one line."""
    return (
        f"glowd {cell(snapshot.state)}, up {cell(snapshot.uptime_s, '.0f')} s, "
        f"{cell(snapshot.clients)} clients, {len(snapshot.streams)} of {cell(snapshot.max_streams)} streams"
    )


def notices(snapshot: Snapshot) -> list[str]:
    """A line for each voice or engine that is not ready, or fails, and why; then one for each that is overloaded."""
    dialled = [
        f"the engine at {clean(place)} is not used: {clean(why)}" for place, why in snapshot.dialled.items() if why
    ]
    return (
        _absences(snapshot)
        + dialled
        + [
            _notice(label, work.degraded, snapshot.t_ns)
            for name, voice in entries(snapshot.voices)
            for label, work in [(label, engine.work) for label, engine in engines(voice)] or [(name, voice.work)]
            if work.degraded
        ]
    )


def _absences(snapshot: Snapshot) -> list[str]:
    lines = []
    for name, voice in entries(snapshot.voices):
        if not voice.ready:
            lines.append(_absence(f"voice {name}", voice))
            continue
        lines += [_absence(f"engine {label}", engine) for label, engine in engines(voice) if not engine.ready]
        lines += [
            f"engine {label} has given up {engine.failures} of its streams in a row"
            for label, engine in engines(voice)
            if engine.ready and engine.failures
        ]
    return lines


def _absence(name: str, voice: VoiceSnapshot | EngineSnapshot) -> str:
    return f"{name} is {_state_of(voice)}" + (f": {clean(voice.reason)}" if voice.reason else "")


def _notice(name: str, degraded: Degradation, t_ns: int | None) -> str:
    seconds = (t_ns - degraded.since_ns) / 1e9 if t_ns is not None and degraded.since_ns is not None else None
    refuses = ", new streams refused" if degraded.refuses else ""
    return (
        f"{name} degraded for {cell(seconds, '.0f')} s: level {cell(degraded.level)} of {cell(degraded.last_level)}, "
        f"chunks of {cell(degraded.chunk_frames)} frames{refuses} ({cell(degraded.reason)})"
    )


def tables(snapshot: Snapshot, narrow: bool = False) -> list[Table]:
    """All tables; that of the cluster where there is one."""
    return [
        streams_table(snapshot, narrow), stages_table(snapshot), voices_table(snapshot, narrow), roles_table(snapshot),
        *([nodes_table(snapshot)] if snapshot.nodes else []),
    ]  # fmt: skip


def as_text(snapshot: Snapshot) -> str:
    """The whole snapshot as plain text, without empty tables."""
    filled = [table for table in tables(snapshot) if table.rows]
    return "\n".join([headline(snapshot), *notices(snapshot), *(line for table in filled for line in layout(table))])


def layout(table: Table) -> list[str]:
    """A table as lines of plain text: an empty line, the title, the headings, the rows."""
    titles = [column.lstrip("<") for column in table.columns]
    widths = [max(map(len, column)) for column in zip(titles, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = (
            text.ljust(width) if column.startswith("<") else text.rjust(width)
            for text, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(placed).rstrip()

    return ["", table.title, line(titles), *map(line, table.rows)]
