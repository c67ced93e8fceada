"""`python -m tests.soak [everything|page|drift]`: run the daemon for long, and say whether it held.

Writes into --out: minutes.jsonl, a line for each minute (drift: seconds.jsonl); figures.txt, the final table; a picture, soak.png
or drift.png. The exit status is 1 if any criterion is missed. `--keep` also puts the figures into tests/bench/RESULTS.md and the
picture beside its plots. tests/README.md says what counts, and what to do on a machine that others use.
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
from tests.soak import drift, everything, page, picture

EVERY_S = 180.0
OUT = Path("soak-results")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", choices=("everything", "page", "drift"), default="everything", help="what is run"
    )
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
    given = parser.parse_args(argv)
    if given.what == "drift" and given.minutes > drift.MAX_MINUTES:
        parser.error(
            f"--minutes is {given.minutes:g}, and drift takes {drift.MAX_MINUTES} at most: an utterance lasts no longer"
        )
    return given


class Lines:
    """The minutes, or seconds, as they come: written, and kept; one in so many is printed, too."""

    def __init__(self, path: Path, every: int = 1) -> None:
        self._path, self._every = path, every
        self.minutes: list[dict[str, Any]] = []
        path.write_text("")

    def add(self, minute: dict[str, Any]) -> None:
        """A minute has ended."""
        line = json.dumps(minute)
        if len(self.minutes) % self._every == 0:
            print(line, flush=True)
        self.minutes.append(minute)
        with self._path.open("a") as file:
            file.write(line + "\n")


def run_everything(given: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """Everything on, every process disturbed."""
    lines = Lines(given.out / "minutes.jsonl")
    results, faults = everything.soak(given.minutes, given.every, given.set, lines.add)
    picture.draw(lines.minutes, given.out / "soak.png", titled(f"{given.minutes:g} minutes with everything on"))
    return results, faults


def run_page(given: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """The browser page."""
    return page.figures(given.minutes, given.set, Lines(given.out / "minutes.jsonl").add), []


def run_drift(given: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """Clients whose clocks differ from that of the sound device."""
    lines = Lines(given.out / "seconds.jsonl", every=60)
    results = drift.figures(given.minutes, given.set, lines.add)
    drift.draw(lines.minutes, given.out / "drift.png", titled(f"{given.minutes:g} minutes of clocks that differ"))
    return results, []


def titled(what: str) -> str:
    """The title of a picture."""
    return f"{what}, commit {report.commit()}"


RUNS = {"everything": run_everything, "page": run_page, "drift": run_drift}
PICTURES = {"soak.png", "drift.png"}


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
    before = report.conditions()
    results, faults = RUNS[given.what](given)
    text = table(results, faults)
    print(text)
    (given.out / "figures.txt").write_text(text)
    if given.keep:
        report.write(results, before)
        for name in PICTURES & {path.name for path in given.out.iterdir()}:
            shutil.copy(given.out / name, report.HERE / "plots" / name)
    return 0 if all(result.met is not False for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
