"""A snapshot of the daemon as tables, for `glowctl top`, `glowctl status` and the demo.

Rules: pure functions of a snapshot (PROTOCOL.md, Telemetry). A figure that was not measured is shown as "-", never as 0.
What peers have named is shown without control characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "-"
STAGES = ("client", "transport", "wait", "network", "return", "device")
NARROW_COLUMNS = 110
Snapshot = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the columns' headings ("<" in front: aligned left) and the rows' cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


# ---- cells


def clean(value: object) -> str:
    """Text without control characters."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def cell(value: object, form: str = "", scale: float = 1.0) -> str:
    """A figure by its format; "-" for one that is absent."""
    if value is None or value == "":
        return ABSENT
    if form and isinstance(value, int | float):
        return format(value * scale, form)
    return clean(value)


def dig(table: object, *keys: str) -> Any:
    """The value under nested keys, None where one is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def entries(snapshot: Snapshot, key: str) -> list[tuple[str, dict[str, Any]]]:
    found = snapshot.get(key)
    shown = [(clean(name), value) for name, value in found.items()] if isinstance(found, dict) else []
    return sorted(shown, key=lambda entry: entry[0])  # by name alone: two may look the same once cleaned


def spread(stage: object) -> str:
    """p50/p99 in milliseconds."""
    if dig(stage, "p50_ms") is None:
        return ABSENT
    return f"{cell(dig(stage, 'p50_ms'), '.1f')}/{cell(dig(stage, 'p99_ms'), '.1f')}"


# ---- tables


def streams_table(snapshot: Snapshot, narrow: bool = False) -> Table:
    """What each stream is and does. VOICE: its engine. XRUN: how often client/engine was late for the device."""
    columns = [
        "<STREAM",
        "<CLIENT",
        "<STATE",
        "<VOICE",
        "<SINKS",
        "GEN",
        "TTFA",
        "RTF",
        "QUEUE",
        "CREDIT",
        "XRUN",
    ]
    rows = [
        [
            name, cell(dig(s, "client")), cell(dig(s, "state")), cell(dig(s, "engine") or dig(s, "voice")),
            cell(",".join(map(str, dig(s, "sinks") or []))), cell(dig(s, "generation")), cell(dig(s, "ttfa_ms"), ".0f"),
            cell(dig(s, "rtf"), ".2f"), cell(dig(s, "queue_frames")), cell(dig(s, "credit_frames")),
            f"{cell(dig(s, 'underruns', 'client'))}/{cell(dig(s, 'underruns', 'engine'))}",
        ]
        for name, s in entries(snapshot, "streams")
    ]  # fmt: skip
    return without(
        Table("streams (TTFA in ms; XRUN: client/engine too late for the device)", columns, rows),
        ("<CLIENT", "<VOICE", "GEN") if narrow else (),
    )


def without(table: Table, dropped: Sequence[str]) -> Table:
    """The table without some columns."""
    kept = [number for number, column in enumerate(table.columns) if column not in dropped]
    rows = [[row[number] for number in kept] for row in table.rows]
    return Table(table.title, [table.columns[number] for number in kept], rows)


def stages_table(snapshot: Snapshot) -> Table:
    rows = [
        [
            name,
            *(spread(dig(stream, "stages", stage)) for stage in STAGES),
            cell(dig(stream, "stages", "total", "mean_ms"), ".1f"),
        ]
        for name, stream in entries(snapshot, "streams")
    ]
    return Table("stages, p50/p99 in ms", ["<STREAM", *(stage.upper() for stage in STAGES), "MEAN SUM"], rows)


def voices_table(snapshot: Snapshot, narrow: bool = False) -> Table:
    """A row for each voice, and below it for each of its engines if there are several."""
    rows = []
    for name, voice in entries(snapshot, "voices"):
        found = engines(voice)
        places = [cell(dig(about, "device")) for _, about in found]
        where = places[0] if len(places) == 1 else f"{len(places)} engines" if places else ABSENT
        rows.append(_voice_row(name + (" *" if dig(voice, "default") else ""), voice, where))
        if len(found) > 1:
            rows += [_voice_row(f"  {engine}", about, cell(dig(about, "device"))) for engine, about in found]
    columns = ["<VOICE", "<STATE", "<DEVICE", "SPEAKING", "OPEN", "BUSY %", "STOLEN %", "LATE %", "LEVEL", "CALLS/s",
               "AUDIO s/s"]  # fmt: skip
    title = "voices (OPEN: streams/most; STOLEN: by other programs; LEVEL: of overload, 0 is none)"
    return without(Table(title, columns, rows), ("<DEVICE", "STOLEN %", "CALLS/s") if narrow else ())


def engines(voice: object) -> list[tuple[str, dict[str, Any]]]:
    """A voice's engines, in the order of their devices."""
    found = dig(voice, "engines")
    return [(clean(name), about) for name, about in found.items()] if isinstance(found, dict) else []


def _voice_row(name: str, voice: dict[str, Any], where: str) -> list[str]:
    return [
        name,
        _state_of(voice),
        where,
        cell(dig(voice, "streams")),
        f"{cell(dig(voice, 'open'))}/{cell(dig(voice, 'max_streams'))}",
        cell(dig(voice, "busy"), ".0f", 100),
        cell(dig(voice, "stolen"), ".0f", 100),
        cell(dig(voice, "late"), ".0f", 100),
        cell(dig(voice, "level")),
        cell(dig(voice, "batches_per_s"), ".1f"),
        cell(dig(voice, "audio_per_s"), ".2f"),
    ]


def _state_of(voice: dict[str, Any]) -> str:
    if not dig(voice, "ready"):
        return "away"
    away = any(not dig(engine, "ready") for _, engine in engines(voice))
    return "degraded" if away or dig(voice, "degraded") else "ready"


def roles_table(snapshot: Snapshot) -> Table:
    rows = [
        [
            name,
            "alive" if dig(role, "alive") else "gone",
            cell(dig(role, "rss_bytes"), ".0f", 1 / (1 << 20)),
            cell(dig(role, "device") or dig(role, "why_not")),
        ]
        for name, role in entries(snapshot, "roles")
    ]
    return Table("roles", ["<ROLE", "<STATE", "MiB", "<DEVICE"], rows)


# ---- all of it


def headline(snapshot: Snapshot) -> str:
    streams = len(entries(snapshot, "streams"))
    return (
        f"glowd {cell(snapshot.get('state'))}, up {cell(snapshot.get('uptime_s'), '.0f')} s, "
        f"{cell(snapshot.get('clients'))} clients, {streams} of {cell(snapshot.get('max_streams'))} streams"
    )


def notices(snapshot: Snapshot) -> list[str]:
    """A line for each engine that falls behind: what is done about it, since when and why."""
    return [
        _notice(name, degraded, snapshot.get("t_ns"))
        for entry in entries(snapshot, "voices")
        for name, engine in engines(entry[1]) or [entry]
        if isinstance(degraded := dig(engine, "degraded"), dict)
    ]


def _notice(name: str, degraded: dict[str, Any], t_ns: object) -> str:
    since_ns = degraded.get("since_ns")
    seconds = (t_ns - since_ns) / 1e9 if isinstance(t_ns, int) and isinstance(since_ns, int) else None
    refuses = ", new streams refused" if degraded.get("refuses") else ""
    return (
        f"{name} degraded for {cell(seconds, '.0f')} s: level {cell(degraded.get('level'))} of "
        f"{cell(degraded.get('last_level'))}, chunks of {cell(degraded.get('chunk_frames'))} frames{refuses} "
        f"({cell(degraded.get('reason'))})"
    )


def tables(snapshot: Snapshot, narrow: bool = False) -> list[Table]:
    return [
        streams_table(snapshot, narrow), stages_table(snapshot), voices_table(snapshot, narrow), roles_table(snapshot),
    ]  # fmt: skip


def as_text(snapshot: Snapshot) -> str:
    """All tables as plain text."""
    return "\n".join(
        [headline(snapshot), *notices(snapshot), *(lines(table) for table in tables(snapshot) if table.rows)]
    )


def lines(table: Table) -> str:
    """A table as plain text, under its title."""
    titles = [column.lstrip("<") for column in table.columns]
    widths = [max(map(len, column)) for column in zip(titles, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = (
            text.ljust(width) if column.startswith("<") else text.rjust(width)
            for text, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(placed).rstrip()

    return "\n".join([f"\n{table.title}", line(titles), *map(line, table.rows)])


def as_rich(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(title=table.title, title_justify="left", title_style="dim", box=None, pad_edge=False)
    for column in table.columns:
        left = column.startswith("<")
        made.add_column(column.lstrip("<"), justify="left" if left else "right", no_wrap=True, header_style="cyan")
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made
