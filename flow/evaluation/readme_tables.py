"""Tables of an evaluation as Markdown, between two marks in a document that `glowlab evaluate --readme` rewrites.

Rules: a table can be read back (`read`), and what is read makes the same lines again, so that a test finds a table that was
written by hand.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from glowd.flow.evaluation.scores import ABSENT, COLUMNS, Column, Row
from glowd.flow.evaluation.systems import WAVEGLOW

BEGIN, END = "<!-- glowlab evaluate --readme: begin -->", "<!-- glowlab evaluate --readme: end -->"
SHOWN = [
    column
    for key in (
        "stoi", "pesq", "dnsmos", "f0_cents", "f0_gross", "comb_db", "nll", "overload", "peak",
    )
    for column in COLUMNS
    if column.key == key
]  # fmt: skip
"""The columns."""
CELL = re.compile(r"^(\S.*?) \((\d+) clips?\)$")


def tables(found: Sequence[Row], speakers: Sequence[Row], command: Sequence[str]) -> list[str]:
    """Lines: the command, a table of `rows`, and one of the `speaker_rows` of the voices."""
    lines = [f"    {shlex.join(command)}", "", *table("recordings", found)]
    own = [row for row in speakers if row.system.startswith(WAVEGLOW)]
    return [*lines, "", *table("speaker", own)] if own else lines


def table(first: str, found: Sequence[Row]) -> list[str]:
    """A Markdown table whose first column has this heading."""
    headings = [first, "system", *(column.heading for column in SHOWN)]
    return [_line(headings), "|---|---|" + "---:|" * len(SHOWN), *(_line(_cells(row)) for row in found)]


def _cells(row: Row) -> list[str]:
    name = f"{row.set} ({row.clips} clip{'' if row.clips == 1 else 's'})"
    return [name, row.system, *(column.cell(row.mean.get(column.key)) for column in SHOWN)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read(lines: Sequence[str]) -> Iterator[Row]:
    """The rows of such tables, as far as they were printed. Raises ValueError for another line of a table."""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells or cells[1:2] == ["system"] or cells[0] == "---":
            continue
        name, system, *cells = cells if len(cells) > 1 else [*cells, ""]
        if not (found := CELL.match(name)) or len(cells) != len(SHOWN):
            raise ValueError(f"not a line of `glowlab evaluate --readme`: {line}")
        figures = {column.key: _value(column, cell) for column, cell in zip(SHOWN, cells)}
        mean = {key: value for key, value in figures.items() if value is not None}
        yield Row(found[1], system, int(found[2]), 1, mean, {})


def _value(column: Column, cell: str) -> float | None:
    """The inverse of `Column.cell`. Raises ValueError for a cell that it does not make."""
    if cell == ABSENT:
        return None
    value = float(cell.removesuffix("%")) / (100 if cell.endswith("%") else 1)
    if column.cell(value) != cell:
        raise ValueError(f"{column.heading} is {cell}; `glowlab evaluate --readme` would write {column.cell(value)}")
    return value


def between(path: Path) -> list[str]:
    """The lines between the marks of a document. Raises ValueError if it has not both, once each and in order, and OSError."""
    return _parts(path)[1].strip("\n").splitlines()


def write(path: Path, lines: Sequence[str]) -> None:
    """Put lines between the marks of a document. Raises what `between` raises."""
    before, _, after = _parts(path)
    path.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), "utf-8")


def _parts(path: Path) -> tuple[str, str, str]:
    """Before, between and after the marks."""
    text = path.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    if text != before + BEGIN + inside + END + after or BEGIN in inside + after or END in after:
        raise ValueError(f"{path} cannot take tables; it needs the lines {BEGIN} and {END}, once each, in this order")
    return before, inside, after
