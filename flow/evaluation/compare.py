"""`glowlab compare`: what is on a listening page, and how it is rendered.

Rules: `plan_page` reads arguments and files and finds every mistake; `render_page` renders for minutes; `page_text` makes
one file. The renders are renders.py, the page is listening_page.py.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowd.flow.evaluation import listening_page, live, picture, plots, scores
from glowd.flow.evaluation.evaluate import Job
from glowd.flow.evaluation.manifest import Origin, origins_of
from glowd.flow.evaluation.metrics import library, require_libraries
from glowd.flow.evaluation.renders import LIVE, Progress, Renders, render_live, render_offline, sentences
from glowd.flow.evaluation.systems import STREAMED, WAVEGLOW, System, format_of, group_of, systems_of


@dataclass(frozen=True, slots=True)
class Plan:
    """A listening page before anything is rendered."""

    out: Path
    sentences: list[tuple[str, Path]]
    """(set, recording)."""
    strangers: frozenset[Path]
    """Those whose speakers the voices were not trained on."""
    systems: list[System]
    """Rendered here, whole utterances at once."""
    live: list[System]
    """Rendered by a running daemon."""
    seed: int
    processes: int
    audio: str
    """How sound is stored in the page: opus or flac."""
    rows: list[scores.Row]
    """Of `--evaluation`; empty for the figures of the page's own renders."""
    commands: list[str]
    """The command that made those rows."""
    origins: dict[Path, Origin]
    """Of every recording; empty without `--manifest`."""
    picture: Path | None
    """Where the spectrograms of the first sentence go."""

    def jobs(self, systems: Sequence[System]) -> list[Job]:
        """Every sentence with each of these systems."""
        format, group = format_of(self.systems), group_of(self.systems)
        return [
            Job(name, path, system, self.seed, format, group, stranger=path in self.strangers)
            for name, path in self.sentences
            for system in systems
        ]


def plan_page(args: argparse.Namespace) -> Plan:
    """What the arguments ask for. Raises ValueError, or MetricError for a library that is missing."""
    require_libraries()
    for name in ("jinja2", plots.LIBRARY, *([picture.LIBRARY] if args.picture else [])):
        library(name)
    rows, commands = _evaluation(args.evaluation)
    systems = [s for s in systems_of(args.checkpoints, [], args.chunk_frames) if s.kind != STREAMED]
    data, strangers = ([Path(source) for source in sources] for sources in (args.data, args.strangers))
    chosen = sentences([*data, *strangers], args.count, args.longest)
    return Plan(
        out=_page_path(Path(args.out)),
        sentences=chosen,
        strangers=frozenset(path for _, path in chosen if any(path.is_relative_to(source) for source in strangers)),
        systems=systems,
        live=[] if args.no_live else [System(LIVE, s.checkpoint, s.title) for s in systems if s.kind == WAVEGLOW],
        seed=args.seed,
        processes=args.jobs,
        audio=args.audio,
        rows=rows,
        commands=commands,
        origins=origins_of([path for _, path in chosen], Path(args.manifest) if args.manifest else None),
        picture=Path(args.picture) if args.picture else None,
    )


def render_page(plan: Plan, progress: Progress) -> Renders:
    """Every sentence by every system, in the order of the page. Raises ValueError if nothing could be rendered."""
    renders = render_offline(plan.jobs(plan.systems), plan.processes, progress)
    for system in plan.live:
        renders.extend(render_live(plan.jobs([system]), renders.renders, progress))
    if not renders.renders:
        raise ValueError(f"nothing could be rendered: {renders.notes[0]}")
    order = {job: number for number, job in enumerate(plan.jobs([*plan.systems, *plan.live]))}
    renders.renders.sort(key=lambda one: order[one.measured.job])
    return renders


def page_text(plan: Plan, found: Renders, made: dict[str, Any]) -> str:
    """The page. `made`: how it was made, `provenance` of cli.py."""
    commands = [line for system in plan.live for line in live.commands(system.checkpoint, plan.seed)]
    return listening_page.page(
        sentences=listening_page.sentence_entries(found.renders, plan.audio, plan.origins),
        tables=listening_page.tables(plan.rows or _rows(plan, found)),
        columns=scores.COLUMNS,
        cards=listening_page.cards(plan.systems),
        notes=found.notes,
        made=made | {"seed": plan.seed, "commands": [made["command"], *commands, *plan.commands]},
    )


def _rows(plan: Plan, found: Renders) -> list[scores.Row]:
    """The figures of the page's own renders: by set, or where there are strangers, of them and of the others."""
    measured = [one.measured for one in found.renders]
    return scores.pooled_rows(measured) if plan.strangers else scores.rows(measured)


def picture_of(found: Renders) -> bytes:
    """A PNG of the first sentence by each system."""
    first = found.renders[0].measured.job.path
    return picture.spectrograms([one for one in found.renders if one.measured.job.path == first])


def _page_path(out: Path) -> Path:
    """The file itself, or compare.html in a folder, which is made. Raises OSError."""
    path = out if out.suffix.lower() in (".html", ".htm") else out / "compare.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _evaluation(path: str) -> tuple[list[scores.Row], list[str]]:
    """Rows of an evaluation, and the command that made it; none without a file. Raises ValueError."""
    if not path:
        return [], []
    try:
        document = json.loads(Path(path).read_text("utf-8"))
        return scores.read_rows(document), [document["made"]["command"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--evaluation {path}: {error}") from error
