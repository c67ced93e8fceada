"""The commands of `glowlab` that judge: their arguments, and how their parts are put together.

Rules: nothing heavy is imported before a command runs. What is printed goes through `say`, which the command line gives.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glowd.flow.evaluation.scores import Row
    from glowd.flow.evaluation.systems import System

Say = Callable[[str], None]
PROCESSES = 2


def add_arguments(commands: Any, evaluate: Callable[..., int], compare: Callable[..., int]) -> None:
    """Add `evaluate` and `compare` to the sub-commands of `glowlab`."""
    _add_evaluate(commands, evaluate)
    _add_compare(commands, compare)


def _add_evaluate(commands: Any, evaluate: Callable[..., int]) -> None:
    sub = commands.add_parser("evaluate", help="measure voices, and what they compete with, on recordings")
    _add_systems(sub)
    sub.add_argument("--seeds", type=int, default=3, help="renders of each clip, with the seeds 0, 1, ... (3)")
    sub.add_argument(
        "--sigma", type=float, nargs="+", default=[0.6, 0.8, 1.0], help="spreads of the latents (0.6 0.8 1)"
    )
    sub.add_argument("--clips", type=int, default=0, metavar="N", help="at most N clips of each folder (all)")
    sub.add_argument("--json", default="", metavar="OUT", help="write rows and every measurement here")
    sub.add_argument("--csv", default="", metavar="OUT", help="write a line for each clip, system and seed here")
    sub.set_defaults(run=evaluate)


def _add_compare(commands: Any, compare: Callable[..., int]) -> None:
    sub = commands.add_parser("compare", help="a page on which anyone can judge voices by ear")
    _add_systems(sub)
    sub.add_argument("--out", required=True, metavar="OUT", help="the page: FILE.html, or a folder for compare.html")
    sub.add_argument("--count", type=int, default=10, metavar="N", help="sentences, from the folders in turn (10)")
    sub.add_argument("--longest", type=float, default=8.0, metavar="S", help="leave out longer recordings (8)")
    sub.add_argument("--seed", type=int, default=0, help="of the latents (0)")
    sub.add_argument("--audio", choices=("opus", "flac"), default="opus", help="flac is lossless, and larger (opus)")
    sub.add_argument("--no-live", action="store_true", help="leave out the daemon, which speaks at the pace of speech")
    sub.add_argument(
        "--evaluation", default="", metavar="FILE.json", help="show this result of `evaluate --json` as the table"
    )
    sub.set_defaults(run=compare)


def _add_systems(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="*", default=["embedded"], help="voices (embedded: the one of glowd)"
    )
    sub.add_argument("--data", nargs="+", required=True, metavar="FOLDER", help="recordings, a set for each folder")
    sub.add_argument("--chunk-frames", type=int, default=4, help="frames in a chunk of a streamed system (4)")
    sub.add_argument("--jobs", type=int, default=PROCESSES, metavar="N", help=f"processes ({PROCESSES})")


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises ValueError for an option that must be at least 1 and is not."""
    for name in names:
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; allowed: at least 1")


def systems_of(args: argparse.Namespace, sigmas: list[float]) -> "list[System]":
    """Real audio, the engines without a network, then what the checkpoints make. Raises ValueError."""
    from glowd.flow.evaluation.systems import classical, of_checkpoint

    if wrong := [sigma for sigma in sigmas if not 0 <= sigma <= 2]:
        raise ValueError(f"--sigma is {wrong[0]:g}; allowed: 0 to 2")

    def made(titles: list[str]) -> "list[System]":
        of = [of_checkpoint(path, sigmas, args.chunk_frames, title) for path, title in zip(args.checkpoints, titles)]
        return [*classical(), *(system for systems in of for system in systems)]

    for titles in ([""] * len(args.checkpoints), [Path(path).stem for path in args.checkpoints]):
        systems = made(titles)
        if len({system.name for system in systems}) == len(systems):
            return systems
    raise ValueError("two checkpoints have the same file name; rename one, so that a table can tell them apart")


def evaluate(args: argparse.Namespace, say: Say) -> int:
    """`glowlab evaluate`."""
    from glowd.flow.evaluation import scores
    from glowd.flow.evaluation.evaluate import measure, plan, run
    from glowd.flow.evaluation.metrics import LIBRARIES, library
    from glowd.flow.evaluation.systems import format_of, group_of

    check_counts(args, "seeds", "jobs", "chunk_frames")
    for out in (args.json, args.csv):
        if out and not Path(out).parent.is_dir():
            raise ValueError(f"{out} cannot be written: there is no folder {Path(out).parent}")
    for name in LIBRARIES:
        library(name)
    systems = systems_of(args, args.sigma)
    jobs = plan([Path(f) for f in args.data], systems, args.seeds, args.clips, (format_of(systems), group_of(systems)))
    began_s = time.monotonic()
    found = list(_progress("render")(run(measure, jobs, args.jobs), len(jobs)))
    order = {job: number for number, job in enumerate(jobs)}
    found.sort(key=lambda one: order[one.job])
    rows = scores.rows(found)
    if not rows:
        raise ValueError(f"nothing could be measured: {scores.skipped(found)[0]}")
    for line in scores.table(rows):
        say(line)
    for text in scores.skipped(found):
        say(f"skipped: {text}")
    made = provenance() | {"seconds": round(time.monotonic() - began_s), "processes": args.jobs}
    if args.json:
        Path(args.json).write_text(json.dumps(scores.as_dict(rows, found, made), indent=1) + "\n", "utf-8")
    if args.csv:
        Path(args.csv).write_text(scores.as_csv(found), "utf-8")
    return 0


def compare(args: argparse.Namespace, say: Say) -> int:
    """`glowlab compare`."""
    from glowd.flow.evaluation import listening_page as show
    from glowd.flow.evaluation import live, plots, scores
    from glowd.flow.evaluation.evaluate import Job
    from glowd.flow.evaluation.metrics import LIBRARIES, library
    from glowd.flow.evaluation.systems import STREAMED, WAVEGLOW, System, format_of, group_of

    check_counts(args, "count", "jobs", "chunk_frames")
    for name in (*LIBRARIES, "jinja2", plots.LIBRARY):
        library(name)
    out = _page_path(Path(args.out))
    given = _evaluation(args.evaluation)
    systems = [system for system in systems_of(args, []) if system.kind != STREAMED]
    spoken = [System(show.LIVE, s.checkpoint, s.title) for s in systems if s.kind == WAVEGLOW and not args.no_live]
    chosen = show.sentences([Path(source) for source in args.data], args.count, args.longest)
    made = format_of(systems), group_of(systems)

    def jobs(some: "list[System]") -> list[Job]:
        return [Job(name, path, system, args.seed, *made) for name, path in chosen for system in some]

    found = show.listen(jobs(systems), args.jobs, _progress("render"))
    for system in spoken:
        lived = show.listen_live(jobs([system]), found.heard, _progress("sentence"))
        found.heard += lived.heard
        found.notes += lived.notes
    if not found.heard:
        raise ValueError(f"nothing could be heard: {found.notes[0]}")
    order = {job: number for number, job in enumerate(jobs([*systems, *spoken]))}
    found.heard.sort(key=lambda one: order[one.measured.job])
    commands = [provenance()["command"], *(line for s in spoken for line in live.commands(s.checkpoint, args.seed))]
    out.write_text(
        show.page(
            sentences=show.shown(found.heard, args.audio),
            tables=show.tables(given[0] or scores.rows(one.measured for one in found.heard)),
            columns=scores.COLUMNS,
            cards=show.cards(systems),
            notes=found.notes,
            made=provenance() | {"seed": args.seed, "commands": [*commands, *given[1]]},
        ),
        "utf-8",
    )
    for note in found.notes:
        say(f"note: {note}")
    say(f"{out}: {len(chosen)} sentences, {len(systems) + len(spoken)} systems, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _page_path(out: Path) -> Path:
    """Where the page goes: the file itself, or compare.html in a folder, which is made."""
    path = out if out.suffix.lower() in (".html", ".htm") else out / "compare.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _evaluation(path: str) -> "tuple[list[Row], list[str]]":
    """Rows of an evaluation, and the command that made it; none without a file. Raises ValueError."""
    from glowd.flow.evaluation import scores

    if not path:
        return [], []
    try:
        document = json.loads(Path(path).read_text("utf-8"))
        return scores.read_rows(document), [document["made"]["command"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--evaluation {path}: {error}") from error


def _progress(unit: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    from tqdm import tqdm

    return lambda work, total: tqdm(work, total=total, unit=unit, disable=None)


def provenance() -> dict[str, Any]:
    """How a result was made: the command, the day, and the commit where there is one."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*here, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        commit, changed = "unknown", 0
    return {
        "commit": commit + (" with changes" if changed else ""),
        "command": shlex.join(["glowlab", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }
