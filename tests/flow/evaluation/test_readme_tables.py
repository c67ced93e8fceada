"""The tables of `glowlab evaluate --readme`: written, read back, and as they stand in the documents of this repository."""

import re
import shlex
from pathlib import Path

import pytest

from glowd.flow.cli import parser
from glowd.flow.evaluation import readme_tables, scores
from glowd.flow.evaluation.scores import Row
from glowd.flow.evaluation.systems import GRIFFIN_LIM, REAL, RTISI_LA, STREAMED
from tests.harness.daemon import ROOT

MEAN = {"pesq": 2.971, "stoi": 0.9584, "f0_gross": 0.0123, "overload": 0.05, "peak": 1.0004, "nll": -5.7}
ROWS = [Row("lj", REAL, 12, 1, {"stoi": 1.0}, {}), Row("lj", "WaveGlow streamed", 1, 3, MEAN, {"pesq": 0.1})]
MARKS = f"before\n{readme_tables.BEGIN}\nold\n{readme_tables.END}\nafter\n"


def table(*rows: Row) -> list[str]:
    return readme_tables.table("recordings", rows)


def test_table_has_a_cell_for_each_figure() -> None:
    heading, rule, real, voice = table(*ROWS)
    assert heading.split(" | ")[:4] == ["| recordings", "system", "STOI", "PESQ"] and heading.count("|") == rule.count(
        "|"
    )
    assert real.startswith("| lj (12 clips) | Real audio | 1.000 | - | - |")
    assert voice == "| lj (1 clip) | WaveGlow streamed | 0.958 | 2.97 | - | - | 1.2% | - | -5.70 | 5% | 1 |"


def test_table_read_back_makes_the_same_lines() -> None:
    assert table(*readme_tables.read(table(*ROWS))) == table(*ROWS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("| lj | X | 0.958 | 2.97 | - | - | 1.2% | - | -5.70 | 5% | 1 |", "not a line of `glowlab evaluate --readme`"),
        ("| lj (1 clip) | X | 0.958 |", "not a line of"),
        ("| lj (1 clip) | X | 0.95 | 2.97 | - | - | 1.2% | - | -5.70 | 5% | 1 |", "STOI is 0.95; .* would write 0.950"),
        ("| lj (1 clip) | X | 0.958 | about 3 | - | - | 1.2% | - | -5.70 | 5% | 1 |", "about 3"),
    ],
)
def test_line_written_by_hand_is_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(readme_tables.read([line]))


def test_write_replaces_what_is_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(MARKS)
    readme_tables.write(path, ["new", "lines"])
    assert readme_tables.between(path) == ["new", "lines"]
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text


@pytest.mark.parametrize("text", ["none", MARKS + MARKS, f"{readme_tables.END}\n{readme_tables.BEGIN}\n"])
def test_document_without_a_pair_of_marks_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.md").write_text(text)
    with pytest.raises(ValueError, match=r"a\.md cannot take tables; it needs the lines"):
        readme_tables.write(tmp_path / "a.md", [])


# ---- this repository


def own_rows() -> list[Row]:
    return list(readme_tables.read(readme_tables.between(ROOT / "flow" / "README.md")))


def test_tables_of_readme_are_those_of_the_command() -> None:
    lines = readme_tables.between(ROOT / "flow" / "README.md")
    args = parser().parse_args(shlex.split(lines[0])[1:])
    rows = own_rows()
    sets = [row for row in rows if "/" not in row.set]
    speakers = [row for row in rows if "/" in row.set]
    assert readme_tables.tables(sets, speakers, shlex.split(lines[0])) == lines
    assert list(dict.fromkeys(row.set for row in sets)) == [*args.data, *args.strangers, scores.STRANGERS]
    for name in {row.set for row in sets}:
        systems = [row.system for row in sets if row.set == name]
        assert systems[:3] == [REAL, GRIFFIN_LIM, RTISI_LA] and systems[3].startswith(STREAMED)
    assert len({row.set for row in speakers}) >= 8 and {row.set.partition("/")[0] for row in speakers} == {"many"}


def test_first_page_has_the_figures_of_the_table() -> None:
    own = {row.system: row for row in own_rows() if row.set == "lj"}
    text = (ROOT / "README.md").read_text("utf-8")
    for voice, system in (("rtisi", RTISI_LA), ("griffin-lim", GRIFFIN_LIM), ("glow", STREAMED)):
        mean = next(row.mean for name, row in own.items() if name.startswith(system))
        quality = f"{mean['pesq']:.2f}, {mean['stoi']:.3f}"
        assert re.search(rf"^\| `{voice}`.*\| {quality} \|", text, re.M), f"{voice}: the table has {quality}"
