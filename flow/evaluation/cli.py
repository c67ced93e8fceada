"""The commands of `glowlab` that measure and compare: their arguments and their steps.

Rules: nothing heavy is imported before a command runs. Lines of output go to `report`, which the command line provides.
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowd.flow.new_file import PUBLIC, NewFile, claim_output

if TYPE_CHECKING:
    from glowd.flow.evaluation.evaluate import Job

Report = Callable[[str], None]
PROCESSES = 2


def add_arguments(
    commands: Any, evaluate: Callable[..., int], compare: Callable[..., int], exactness: Callable[..., int]
) -> None:
    """Add `evaluate`, `compare` and `exactness` to the sub-commands of `glowlab`."""
    _add_evaluate(commands, evaluate)
    _add_exactness(commands, exactness)
    _add_compare(commands, compare)


def _add_evaluate(commands: Any, evaluate: Callable[..., int]) -> None:
    sub = commands.add_parser("evaluate", help="measure voices, and systems without a network, on recordings")
    _add_systems(sub)
    sub.add_argument("--seeds", type=int, default=3, help="renders of each clip, with the seeds 0, 1, ... (3)")
    sub.add_argument(
        "--sigma",
        type=float,
        nargs="+",
        default=[],
        help="also measure whole utterances with these standard deviations of the latents (streamed only, with the voice's)",
    )
    sub.add_argument("--clips", type=int, default=0, metavar="N", help="at most N clips of each folder (all)")
    sub.add_argument(
        "--readme", default="", metavar="FILE.md", help="write the tables between the marks in this document"
    )
    sub.add_argument("--json", default="", metavar="OUT", help="write rows and every measurement here")
    sub.add_argument("--csv", default="", metavar="OUT", help="write a line for each clip, system and seed here")
    sub.add_argument(
        "--overwrite", action="store_true", help="replace the files of --json and --csv, whatever they are"
    )
    sub.set_defaults(run=evaluate)


def _add_compare(commands: Any, compare: Callable[..., int]) -> None:
    sub = commands.add_parser("compare", help="write a page for comparing voices by ear")
    _add_systems(sub)
    sub.add_argument("--out", required=True, metavar="OUT", help="the page: FILE.html, or a folder for compare.html")
    sub.add_argument("--overwrite", action="store_true", help="replace the file, even if it is no page")
    sub.add_argument("--count", type=int, default=10, metavar="N", help="sentences, from the folders in turn (10)")
    sub.add_argument("--longest", type=float, default=8.0, metavar="S", help="leave out longer recordings (8)")
    sub.add_argument("--seed", type=int, default=0, help="seed of the latents (0)")
    sub.add_argument(
        "--audio",
        choices=("opus", "flac"),
        default="opus",
        help="sound of the page; flac is lossless (opus)",
    )
    sub.add_argument("--no-live", action="store_true", help="leave out the daemon, which renders at the pace of speech")
    sub.add_argument(
        "--manifest",
        default="",
        metavar="FILE.tsv",
        help="where the recordings come from: file, speaker, licence, source",
    )
    sub.add_argument(
        "--picture", default="", metavar="FILE.png", help="also write spectrograms of the first sentence by each system"
    )
    sub.add_argument(
        "--evaluation", default="", metavar="FILE.json", help="show this result of `evaluate --json` as the table"
    )
    sub.set_defaults(run=compare)


def _add_exactness(commands: Any, exactness: Callable[..., int]) -> None:
    sub = commands.add_parser(
        "exactness",
        help="measure how far streamed samples are from the network's definition, with float64 as the judge",
    )
    sub.add_argument(
        "checkpoint", metavar="CHECKPOINT", nargs="?", default="embedded", help="a causal voice (embedded)"
    )
    sub.add_argument("--data", nargs="+", required=True, metavar="FOLDER", help="recordings")
    sub.add_argument("--clips", type=int, default=40, metavar="N", help="recordings, spread over the folders (40)")
    sub.add_argument("--frames", type=int, default=300, metavar="N", help="first frames of each; 0: all (300)")
    sub.add_argument("--chunk-frames", type=int, default=4, help="frames in a chunk (4)")
    sub.set_defaults(run=exactness)


def _add_systems(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="*", default=["embedded"], help="voices (embedded: the one of glowd)"
    )
    sub.add_argument("--data", nargs="+", default=[], metavar="FOLDER", help="recordings, a set for each folder")
    sub.add_argument(
        "--strangers",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="the same, of speakers that the voices were not trained on: they have goals of their own",
    )
    sub.add_argument("--chunk-frames", type=int, default=4, help="frames in a chunk of a streamed system (4)")
    sub.add_argument("--jobs", type=int, default=PROCESSES, metavar="N", help=f"processes ({PROCESSES})")


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises ValueError for an option that must be at least 1 and is not."""
    for name in names:
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; allowed: at least 1")


def evaluate(args: argparse.Namespace, report: Report) -> int:
    """`glowlab evaluate`."""
    jobs = _plan_evaluation(args)
    with contextlib.ExitStack() as outputs:
        made = {
            out: outputs.enter_context(claim_output(out, "text", args.overwrite, PUBLIC))
            for out in (args.json, args.csv)
            if out
        }
        _evaluate(args, jobs, made, report)
    return 0


def _evaluate(args: argparse.Namespace, jobs: "list[Job]", outputs: Mapping[str, NewFile], report: Report) -> None:
    from glowd.flow.evaluation import readme_tables, scores
    from glowd.flow.evaluation.evaluate import measure, run_jobs

    began_s = time.monotonic()
    found = list(_progress(run_jobs(measure, jobs, args.jobs), len(jobs), "render"))
    order = {job: number for number, job in enumerate(jobs)}
    found.sort(key=lambda one: order[one.job])
    rows = scores.rows(found)
    if not rows:
        raise ValueError(f"nothing could be measured: {scores.skipped(found)[0]}")
    speakers = scores.speaker_rows(found)
    for line in [*scores.table(rows), *scores.speaker_table(speakers)]:
        report(line)
    for text in scores.skipped(found):
        report(f"skipped: {text}")
    made = provenance() | {"seconds": round(time.monotonic() - began_s), "processes": args.jobs}
    if args.json:
        outputs[args.json].file.write((json.dumps(scores.as_dict(rows, found, made), indent=1) + "\n").encode())
    if args.csv:
        outputs[args.csv].file.write(scores.as_csv(found).encode())
    if args.readme:
        readme_tables.write(Path(args.readme), readme_tables.tables(rows, speakers, _short_command(args)))


def _short_command(args: argparse.Namespace) -> list[str]:
    """What was measured, without where its results went, and without the folders that this machine's data lie in."""
    words = ["glowlab", "evaluate", *args.checkpoints]
    for option in ("data", "strangers"):
        if folders := getattr(args, option):
            words += [f"--{option}", *(Path(folder).name for folder in folders)]
    if args.sigma:
        words += ["--sigma", *(f"{sigma:g}" for sigma in args.sigma)]
    if args.clips:
        words += ["--clips", str(args.clips)]
    return [*words, "--seeds", str(args.seeds), "--readme", Path(args.readme).name]


def _plan_evaluation(args: argparse.Namespace) -> "list[Job]":
    """Raises ValueError for every mistake that would otherwise show after the work."""
    from glowd.flow.evaluation.evaluate import plan_jobs
    from glowd.flow.evaluation.metrics import require_libraries
    from glowd.flow.evaluation.readme_tables import between
    from glowd.flow.evaluation.systems import WAVEGLOW, systems_of

    check_counts(args, "seeds", "jobs", "chunk_frames")
    if wrong := [sigma for sigma in args.sigma if not 0 <= sigma <= 2]:
        raise ValueError(f"--sigma is {wrong[0]:g}; allowed: 0 to 2")
    for out in (args.json, args.csv):
        if out and not Path(out).parent.is_dir():
            raise ValueError(f"{out} cannot be written: there is no folder {Path(out).parent}")
    if not args.data and not args.strangers:
        raise ValueError("there is nothing to measure; give folders of recordings with --data or --strangers")
    if args.readme:
        between(Path(args.readme))
    require_libraries()
    systems = systems_of(args.checkpoints, args.sigma, args.chunk_frames)
    if not args.sigma:
        # What is streamed is measured, and is the same.
        systems = [system for system in systems if system.kind != WAVEGLOW]
    data, strangers = ([Path(folder) for folder in folders] for folders in (args.data, args.strangers))
    return plan_jobs(data, systems, args.seeds, args.clips, strangers)


def exactness(args: argparse.Namespace, report: Report) -> int:
    """`glowlab exactness`."""
    import torch

    from glowd.flow import checkpoint
    from glowd.flow.evaluation.exactness import clips, differences, table

    check_counts(args, "clips", "chunk_frames")
    if args.frames < 0:
        raise ValueError(f"--frames is {args.frames}; allowed: at least 0")
    torch.set_num_threads(1)
    voice = checkpoint.load(args.checkpoint)
    mels = list(clips(voice, [Path(folder) for folder in args.data], args.clips, args.frames))
    for line in table(list(_progress(differences(voice, mels, args.chunk_frames), len(mels), "clip"))):
        report(line)
    return 0


def compare(args: argparse.Namespace, report: Report) -> int:
    """`glowlab compare`."""
    from glowd.flow.evaluation.compare import page_text, picture_of, plan_page, render_page

    check_counts(args, "count", "jobs", "chunk_frames")
    if not args.data and not args.strangers:
        raise ValueError(
            "there is nothing to compare; give folders of recordings, or recordings, with --data or --strangers"
        )
    plan = plan_page(args)
    with contextlib.ExitStack() as outputs:
        page = outputs.enter_context(claim_output(plan.out, "html", args.overwrite, PUBLIC))
        drawn = (
            outputs.enter_context(claim_output(plan.picture, "picture", args.overwrite, PUBLIC))
            if plan.picture
            else None
        )
        renders = render_page(plan, _progress)
        page.file.write(page_text(plan, renders, provenance()).encode())
        if drawn:
            drawn.file.write(picture_of(renders))
    for note in renders.notes:
        report(f"note: {note}")
    systems, megabytes = len(plan.systems) + len(plan.live), plan.out.stat().st_size / 1e6
    report(f"{plan.out}: {len(plan.sentences)} sentences, {systems} systems, {megabytes:.1f} MB")
    return 0


def _progress(work: Iterable[Any], total: int, unit: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(work, total=total, unit=unit, disable=None)


def provenance() -> dict[str, Any]:
    """How a result was made: the command, the date, and the commit of a checkout."""
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
