"""What the documents say about the repository is true: file tables, links, commands, the index of the log.

Rules: each check is a function from text (and the files that exist) to a list of faults, so that it is tried on a planted
fault as well as on the repository.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import left_out

ROOT = Path(__file__).parents[1]
ROOMS = ("flow", "daemon", "clients")
VOICES = ("glow", "rtisi", "griffin-lim")
README_LINES, LOG_COLUMNS = 130, 130
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md", "daemon/README.md", "daemon/PROTOCOL.md", "flow/README.md",
    "clients/README.md", "tests/README.md",
)  # fmt: skip
ROW = re.compile(r"^\| `([^`]+)` \| \S", re.M)
HISTORY = ("CHANGELOG.md", "LOG.md")
"""They name files of the past."""
VERDICT = re.compile(r"\((kept|not kept|open)\)$")


def read(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def files_section(text: str) -> str:
    """The part of a README under its heading "Files", up to the next heading."""
    return text.partition("\n## Files\n")[2].partition("\n## ")[0]


def table_faults(room: str, text: str, files: Iterable[str]) -> Iterator[str]:
    """Differences between the table under "Files" of a room's README and the .py files [paths inside the room]."""
    rows, present = ROW.findall(files_section(text)), set(files)
    for missing in sorted(present - set(rows)):
        folder = missing.rpartition("/")[0]
        beside = [row for row in rows if row.rpartition("/")[0] == folder]
        place = f"below the row of `{beside[-1]}`" if beside else 'at the end of the table under "## Files"'
        yield f"{room}/README.md: add {place} the line: | `{missing}` | WHAT IT IS FOR |"
    for path in rows:
        if path.endswith(".py") and path not in present:
            yield f"{room}/README.md: delete or rename the row of `{path}`: there is no {room}/{path}"
    yield from (f"{room}/README.md: two rows for `{path}`" for path in sorted({p for p in rows if rows.count(p) > 1}))


def modules_of(room: str) -> list[str]:
    """Every .py file of a room by its path inside it, but for __init__.py and __main__.py."""
    return [path.relative_to(ROOT / room).as_posix() for path in (ROOT / room).rglob("*.py") if "__" not in path.name]


def anchor(heading: str) -> str:
    """The fragment that GitHub gives to a heading: lower case, spaces as hyphens, other signs dropped."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.M)


def dead_links(path: str, text: str) -> Iterator[str]:
    """Relative links of a Markdown file whose file, or heading in that file, does not exist."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (ROOT / path).parent / name if name else ROOT / path
        if not file.exists():
            yield f"{path} links to {target}; that file does not exist"
        elif fragment and fragment not in map(anchor, headings(file.read_text("utf-8") if name else text)):
            yield f"{path} links to {target}; that file has no such heading"


def index_faults(text: str) -> Iterator[str]:
    """LOG.md: entries newest first, each with a verdict, and an index with a line for each, in the same order."""
    entries = re.findall(r"^## (\d.+)$", text, re.M)
    expected = [f"- {entry}" for entry in entries]
    index = re.findall(r"^- \d{4}-.+$", text, re.M)
    yield from (f"LOG.md: add to the index: {line}" for line in expected if line not in index)
    yield from (f"LOG.md: delete from the index: {line}" for line in index if line not in expected)
    if index != expected and sorted(index) == sorted(expected):
        yield "LOG.md: the index is not in the order of the entries"
    if entries != sorted(entries, key=lambda entry: entry[:10], reverse=True):
        yield "LOG.md: the entries are not newest first"
    undecided = [entry for entry in entries if not VERDICT.search(entry)]
    yield from (f"LOG.md: end the heading with (kept), (not kept) or (open): {entry}" for entry in undecided)


def lines_too_long(path: str, text: str, columns: int) -> list[str]:
    return [f"{path}:{n} has {len(line)} columns" for n, line in enumerate(text.splitlines(), 1) if len(line) > columns]


def paths_absent(path: str, text: str) -> Iterator[str]:
    """Paths in a text, from the root, from a room or from the text's folder, where no file is."""
    folders = (ROOT, (ROOT / path).parent, *(ROOT / room for room in ROOMS))
    for name in sorted(set(re.findall(r"(?<![\w/.$-])[\w-]+(?:/[\w.-]+)*\.(?:py|toml|md|json)\b", text))):
        if "/" in name and not any((folder / name).exists() for folder in folders):
            yield f"{path} names {name}; that file does not exist"


def quotes_absent(text: str, code: str) -> Iterator[str]:
    """Messages in the first column of a table of troubleshooting whose words are not in the code; N, DIR, ...: any text."""
    for row in re.findall(r"^\| (.*?) \|", text.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0], re.M):
        for quote in re.findall(r"`([^`]+)`", row):
            if not all(part in code for part in re.split(r"\.\.\.|\bN\b|\bDIR\b", quote)):
                yield f"troubleshooting quotes `{quote}`; no program prints it"


def settings_faults(text: str, config: dict[str, Any]) -> Iterator[str]:
    """Differences between the tables of settings in daemon/README.md and config.toml: names and defaults."""
    defaults = dict(settings_of(config))
    rows = dict(settings_rows(text))
    for name in sorted(defaults.keys() - rows.keys()):
        yield f"daemon/README.md: add a row: | `{name}` | `{defaults[name]}` | WHAT IT DOES |"
    yield from (f"daemon/README.md: delete the row of `{name}`" for name in sorted(rows.keys() - defaults.keys()))
    for name in sorted(defaults.keys() & rows.keys()):
        if rows[name] != defaults[name]:
            yield f"daemon/README.md: the default of `{name}` is {defaults[name]}, not {rows[name]}"


def settings_rows(text: str) -> Iterator[tuple[str, str]]:
    """The settings named in a text and their defaults: rows `| name | default |`, or with a default for each voice."""
    for name, default in re.findall(r"^\| `(\w+\.\w+)` \| `([^`]*)` \| \S", text, re.M):
        yield name, default
    for name, *defaults in re.findall(r"^\| `(\w+)` \| (\S.*?) \| (\S.*?) \| (\S.*?) \| \S", text, re.M):
        for voice, default in zip(VOICES, defaults, strict=True):
            if default != "-":
                yield f"voices.{voice}.{name}", default.strip("`")


def settings_of(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting of a configuration by its full name, with its value as it stands in TOML."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from settings_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value)


def commands_of_check(makefile: str) -> list[str]:
    """What `make check` runs."""
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert recipe, "the Makefile has a target check"
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]


@pytest.mark.parametrize("room", ROOMS)
def test_readme_of_each_room_describes_its_files(room: str) -> None:
    assert list(table_faults(room, read(f"{room}/README.md"), modules_of(room))) == []


def test_described_files_and_folders_exist() -> None:
    rows = [ROOT / room / row for room in ROOMS for row in ROW.findall(files_section(read(f"{room}/README.md")))]
    assert [str(path) for path in rows if not path.exists()] == []


def test_readme_of_tests_describes_its_folders() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("*.py")} - {"."}
    described = {row.rstrip("/") for row in ROW.findall(files_section(read("tests/README.md")))}
    top = {folder.split("/")[0] for folder in folders}
    assert top - described == set(), 'add a row to the table under "## Files" in tests/README.md'
    assert {row for row in described if not (ROOT / "tests" / row).exists()} == set()


def test_readme_is_short_and_names_the_two_commands() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= README_LINES
    assert "make demo" in text and "make test" in text and "git clone" in text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_link_to_what_exists(document: str) -> None:
    text = read(document)
    assert [*dead_links(document, text), *(paths_absent(document, text) if document not in HISTORY else ())] == []


def test_commands_of_make_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    used = {name for path in DOCUMENTS for name in re.findall(r"(?:`|^    )make ([a-z-]+)", read(path), re.M)}
    assert used - targets == set()


def test_log_is_indexed_newest_first_and_narrow() -> None:
    text = read("LOG.md")
    assert [*index_faults(text), *lines_too_long("LOG.md", text, LOG_COLUMNS)] == []


def test_daemon_readme_lists_every_setting() -> None:
    assert list(settings_faults(read("daemon/README.md"), tomllib.loads(read("config.toml")))) == []


def test_troubleshooting_quotes_what_programs_print() -> None:
    code = "".join(path.read_text("utf-8") for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    assert list(quotes_absent(read("daemon/README.md"), code)) == []


def test_pre_commit_runs_what_make_check_runs() -> None:
    entries = re.findall(r"^ +entry: (.+)$", read(".pre-commit-config.yaml"), re.M)
    assert entries == commands_of_check(read("Makefile"))


TABLE = "\n## Files\n\n| file | what |\n|---|---|\n| `a.py` | one |\n| `x/b.py` | two |\n"
LOG = "- 2026-01-02: B (kept)\n- 2026-01-01: A (open)\n\n## 2026-01-02: B (kept)\n\n## 2026-01-01: A (open)\n"


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (table_faults("flow", TABLE, ["a.py"]), ["delete or rename the row of `x/b.py`"]),
        (table_faults("flow", TABLE, ["a.py", "x/b.py", "x/c.py"]), ["below the row of `x/b.py` the line: | `x/c.py` |"]),
        (table_faults("flow", TABLE, ["a.py", "x/b.py", "y/c.py"]), ["at the end of the table"]),
        (table_faults("flow", TABLE + "| `a.py` | 3 |\n", ["a.py", "x/b.py"]), ["two rows for `a.py`"]),
        (dead_links("README.md", "[a](flow/none.py) [b](https://x/y) [c](LOG.md#none)"), ["flow/none.py", "no such heading"]),
        (paths_absent("README.md", "see flow/none.py and flow/mel.py"), ["flow/none.py"]),
        (quotes_absent("\n## Troubleshooting\n\n| `no N at DIR` |\n| `gone ...` |\n", "no 3 at /x"), ["quotes `gone ...`"]),
        (index_faults(LOG.replace("- 2026-01-01: A", "- 2026-01-01: C")), ["add to the index", "delete from the index"]),
        (index_faults(LOG + "\n## 2026-01-03: D (kept)\n"), ["add to the index", "not newest first"]),
        (index_faults(LOG.replace("(kept)", "(good)")), ["end the heading with"]),
        (lines_too_long("LOG.md", "x" * 131, 130), ["LOG.md:1 has 131"]),
        (settings_faults("", {"log": {"level": "info"}}), ['add a row: | `log.level` | `"info"` |']),
        (settings_faults('| `log.level` | `"x"` | y |', {"log": {"level": "info"}}), ['is "info", not "x"']),
        (settings_faults("| `log.level` | `1` | y |", {}), ["delete the row of `log.level`"]),
        (settings_faults("| `a` | - | `1` | - | y |", {"voices": {"rtisi": {"a": 2}}}), ["`voices.rtisi.a` is 2, not 1"]),
    ],
)  # fmt: skip
def test_planted_fault_is_reported(faults: Iterable[str], said: list[str]) -> None:
    found = list(faults)
    assert len(found) == len(said) and all(words in fault for words, fault in zip(said, found)), found


def test_faultless_texts_are_not_reported() -> None:
    assert list(table_faults("flow", TABLE, ["a.py", "x/b.py"])) == []
    assert list(index_faults(LOG)) == []
    assert list(settings_faults("| `a` | - | `1` | - | y |", {"voices": {"rtisi": {"a": 1}}})) == []


def test_left_out_tests_are_counted_by_mark() -> None:
    said = left_out.summary([{"slow", "asyncio"}, {"slow", "process"}])
    assert said.startswith("left out: 2 tests (2 slow, 1 process, 0 device;")
