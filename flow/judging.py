"""The commands of `glowlab` that judge: their arguments, and how their parts are put together.

Rules: nothing heavy is imported before a command runs. What is printed goes through `say`, which the command line gives.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow.systems import System

Say = Callable[[str], None]
PROCESSES = 2


def add_arguments(commands: Any, evaluate: Callable[..., int]) -> None:
    """Add `evaluate` to the sub-commands of `glowlab`."""
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


def _add_systems(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="*", default=["embedded"], help="voices (embedded: the one of glowd)"
    )
    sub.add_argument("--data", nargs="+", required=True, metavar="FOLDER", help="recordings, one set for each folder")
    sub.add_argument("--chunk-frames", type=int, default=4, help="frames in a chunk of a streamed system (4)")
    sub.add_argument("--jobs", type=int, default=PROCESSES, metavar="N", help=f"processes ({PROCESSES})")


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises ValueError for an option that must be at least 1 and is not."""
    for name in names:
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; allowed: at least 1")


def systems_of(args: argparse.Namespace, sigmas: list[float]) -> "list[System]":
    """Real audio, the engines without a network, then what the checkpoints make. Raises ValueError."""
    from flow.systems import classical, of_checkpoint

    if wrong := [sigma for sigma in sigmas if not 0 <= sigma <= 2]:
        raise ValueError(f"--sigma is {wrong[0]:g}; allowed: 0 to 2")
    many = len(args.checkpoints) > 1
    titles = [Path(path).stem if many else "" for path in args.checkpoints]
    if many and len(set(titles)) < len(titles):
        raise ValueError("two checkpoints have the same file name; rename one, so that a table can tell them apart")
    made = [of_checkpoint(path, sigmas, args.chunk_frames, title) for path, title in zip(args.checkpoints, titles)]
    return [*classical(), *(system for systems in made for system in systems)]


def evaluate(args: argparse.Namespace, say: Say) -> int:
    """`glowlab evaluate`."""
    from tqdm import tqdm

    from flow import scores
    from flow.evaluate import plan, run
    from flow.metrics import LIBRARIES, library
    from flow.systems import format_of, group_of

    check_counts(args, "seeds", "jobs", "chunk_frames")
    for name in LIBRARIES:
        library(name)
    systems = systems_of(args, args.sigma)
    jobs = plan([Path(f) for f in args.data], systems, args.seeds, args.clips, (format_of(systems), group_of(systems)))
    began_s = time.monotonic()
    found = list(tqdm(run(jobs, args.jobs), total=len(jobs), unit="render", disable=None))
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


def provenance() -> dict[str, Any]:
    """How a result was made: the command, the day, and the commit where there is one."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*here, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        commit, changed = "unknown", 0
    words = [Path(sys.argv[0]).name if Path(sys.argv[0]).suffix != ".py" else "glowlab", *sys.argv[1:]]
    return {
        "commit": commit + (" with changes" if changed else ""),
        "command": shlex.join(words),
        "date": time.strftime("%Y-%m-%d"),
    }
