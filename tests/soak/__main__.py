"""`python -m tests.soak [everything|page]`: run the daemon for long with everything on, and say whether it held.

Writes into --out: minutes.jsonl, a line for each minute; figures.txt, the final table; soak.png. The exit status is 1 if any
criterion is missed. `--keep` also puts the figures into tests/bench/RESULTS.md and the picture beside its plots. On a machine
that others use, `chrt -r 1` before the command keeps their programs from making gaps; the settings of the figures say so.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.report import Result
from tests.soak import everything, page, picture

EVERY_S = 180.0
OUT = Path("soak-results")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("everything", "page"), default="everything", help="what is run")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument(
        "--every", type=float, default=EVERY_S, metavar="S", help="seconds between disturbances (180); 0: none"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the daemon, as `glowd --set` takes it",
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"directory for what is written ({OUT})")
    parser.add_argument("--keep", action="store_true", help="keep the figures in tests/bench")
    return parser.parse_args(argv)


class Lines:
    """The minutes as they come: printed, written, and kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.minutes: list[dict[str, Any]] = []
        path.write_text("")

    def add(self, minute: dict[str, Any]) -> None:
        """A minute has ended."""
        line = json.dumps(minute)
        print(line, flush=True)
        self.minutes.append(minute)
        with self._path.open("a") as file:
            file.write(line + "\n")


def table(results: Sequence[Result], faults: Sequence[str]) -> str:
    """The figures with their verdicts, and what was wrong in words."""
    verdicts = {True: "met", False: "MISSED", None: ""}
    lines = [
        f"{result.name:84} {result.value:10.4g} {result.unit:8} {result.goal:10} {verdicts[result.met]:7}"
        + ", ".join(f"{name} {value:.4g}" for name, value in result.beside.items())
        for result in results
    ]
    return "\n".join([*lines, *(f"wrong: {fault}" for fault in faults)]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run, write everything, and return the exit status."""
    given = arguments(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    before, lines = report.conditions(), Lines(given.out / "minutes.jsonl")
    if given.what == "page":
        results, faults = page.figures(given.minutes, given.set, lines.add), list[str]()
    else:
        results, faults = everything.soak(given.minutes, given.every, given.set, lines.add)
        picture.draw(
            lines.minutes,
            given.out / "soak.png",
            f"{given.minutes:g} minutes with everything on, commit {report.commit()}",
        )
    text = table(results, faults)
    print(text)
    (given.out / "figures.txt").write_text(text)
    if given.keep:
        report.write(results, before)
        if given.what == "everything":
            shutil.copy(given.out / "soak.png", report.HERE / "plots" / "soak.png")
    return 0 if all(result.met is not False for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
