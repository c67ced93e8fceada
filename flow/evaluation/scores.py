"""Tables of measurements: a row for each system and set of clips, as lines for a terminal, as JSON and as CSV.

Rules: no signal and no network here. A row's mean is over clips and seeds; its spread is the standard deviation, over
seeds, of the mean over clips, that is, how much another seed would change the figure. What was not measured is absent.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glowd.flow.evaluation.evaluate import Job, Measured, Problem
from glowd.flow.evaluation.systems import REAL

ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as it stands in a table."""

    key: str
    heading: str
    form: str
    text: str
    """What it is, and whether higher or lower is better."""
    goals: tuple[float, float] | None = None
    """For speakers that the voice was trained on, and for others."""
    higher_is_better: bool = False

    def cell(self, value: float | None) -> str:
        """A figure as text."""
        return ABSENT if value is None else format(value, self.form)

    def goal(self, stranger: bool) -> float | None:
        """For a row of speakers that the voice was not trained on, or was."""
        return None if self.goals is None else self.goals[stranger]

    def shortfall(self, row: "Row") -> float | None:
        """How far a row is from the goal; 0 where it is reached, None where there is no goal or no figure."""
        goal, value = self.goal(row.stranger), row.mean.get(self.key)
        if goal is None or value is None:
            return None
        return max(0.0, goal - value if self.higher_is_better else value - goal)


COLUMNS = [
    Column("pesq", "PESQ", ".2f", "PESQ wide band, 1.04 to 4.64, higher is better", (3.2, 2.8), True),
    Column("stoi", "STOI", ".3f", "short-time objective intelligibility, to 1, higher is better", (0.965, 0.94), True),
    Column("estoi", "ESTOI", ".3f", "extended STOI, to 1, higher is better"),
    Column("dnsmos", "DNSMOS", ".2f", "DNSMOS P.835 OVRL, 1 to 5, of the sound alone, higher is better"),
    Column("mel_mae", "mel MAE", ".3f", "mean absolute log-mel difference, nats, lower is better"),
    Column("mcd_db", "MCD dB", ".2f", "mel-cepstral distortion, dB, lower is better"),
    Column("mrstft", "MR-STFT", ".2f", "multi-resolution STFT distance, lower is better"),
    Column("f0_cents", "F0 cents", ".1f", "median difference of F0 in voiced frames, cents, lower is better"),
    Column("f0_gross", "F0 gross", ".1%", "share of voiced frames whose F0 is wrong by over 20 %, lower is better"),
    Column("voicing_f1", "V/UV F1", ".3f", "F1 of voiced or unvoiced, to 1, higher is better"),
    Column(
        "comb_db", "comb dB", ".2f", "level at multiples of fs/G against neighbours, dB, mean of all, 0 is best",
        (1.0, 1.0),
    ),
    Column("comb_worst_db", "worst", ".2f", "the same, of the multiple that stands out most"),
    Column("nll", "NLL", ".2f", "negative log-likelihood of the recording, nats per sample, lower is better"),
    Column("streamed_difference", "streamed", ".0e", "largest difference between streamed and offline, full scale = 1"),
    Column("overload", "diverged", ".0%", "share of renders that go 6 dB or more beyond full scale, measured as noise"),
    Column("peak", "peak", ".3g", "largest sample of all renders, full scale = 1"),
    Column("rtf", "RTF", ".2f", "CPU time of one thread over audio time, lower is better"),
]  # fmt: skip
COMB, WORST, STREAMED, PEAK = "comb_db", "comb_worst_db", "streamed_difference", "peak"
KNOWN, STRANGERS = "speakers of the training", "strangers"
"""The sets of all clips of speakers that the voices were trained on, and were not."""


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one set of clips."""

    set: str
    system: str
    clips: int
    seeds: int
    mean: dict[str, float]
    spread: dict[str, float]
    """Absent where there was one seed only."""
    stranger: bool = False
    """Whether the voices were not trained on the speakers."""


def rows(results: Iterable[Measured | Problem]) -> list[Row]:
    """A row for each set and system, in the order of the jobs; then for each system one of all strangers, if there are any."""
    measured = [one for one in results if isinstance(one, Measured)]
    strangers = [one for one in measured if one.job.stranger]
    return [*_grouped(measured, lambda job: job.set), *_grouped(strangers, lambda job: STRANGERS)]


def pooled_rows(measured: Iterable[Measured]) -> list[Row]:
    """Rows of all clips of speakers that the voices were trained on, and of the strangers."""
    return _grouped(measured, lambda job: STRANGERS if job.stranger else KNOWN)


def speaker_rows(results: Iterable[Measured | Problem]) -> list[Row]:
    """A row for each speaker, whose set is SET/SPEAKER, and each system, where a set has a folder for each speaker."""
    spoken = [one for one in results if isinstance(one, Measured) and one.job.speaker]
    return _grouped(spoken, lambda job: f"{job.set}/{job.speaker}")


def _grouped(measured: Iterable[Measured], set_of: Callable[[Job], str]) -> list[Row]:
    found: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        found.setdefault((set_of(one.job), one.job.system.name), []).append(one)
    return [_row(set, system, some) for (set, system), some in found.items()]


def _row(set: str, system: str, measured: list[Measured]) -> Row:
    seeds = sorted({one.job.seed for one in measured})
    by_seed = [_means([one for one in measured if one.job.seed == seed]) for seed in seeds]
    mean = _means(measured)
    spread: dict[str, float] = {}
    for key in mean:
        if len(values := [means[key] for means in by_seed if key in means]) > 1:
            spread[key] = float(np.std(values, ddof=1))
    clips = len({one.job.path for one in measured})
    return Row(set, system, clips, len(seeds), mean, spread, all(one.job.stranger for one in measured))


def _means(measured: list[Measured]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in measured:
        for key, value in one.values.items():
            values.setdefault(key, []).append(value)
    means = {key: float(max(found) if key in (STREAMED, PEAK) else np.mean(found)) for key, found in values.items()}
    # A network's tones have the same frequencies in every clip, so the teeth are averaged before they are compared.
    if combs := [one.comb_db for one in measured if one.comb_db]:
        teeth = np.mean(combs, axis=0)
        means |= {COMB: float(teeth.mean()), WORST: float(teeth.max())}
    return means


# ---- for people


def table(found: Sequence[Row]) -> list[str]:
    """Lines: a table for each set, the spread over seeds under each row, and how far the goals are."""
    lines: list[str] = []
    for set in dict.fromkeys(row.set for row in found):
        inside = [row for row in found if row.set == set]
        lines += ["", f"{set}: {max(row.clips for row in inside)} clips", *_lines(inside, lambda row: row.system)]
        lines += ["", *goal_lines(inside)]
    return lines


def speaker_table(found: Sequence[Row]) -> list[str]:
    """Lines: for each system but real audio a table with a line for each speaker. `found`: `speaker_rows`."""
    lines: list[str] = []
    for system in dict.fromkeys(row.system for row in found if row.system != REAL):
        inside = [row for row in found if row.system == system]
        lines += ["", f"{system}, each speaker", *_lines(inside, lambda row: row.set)]
    return lines


def _lines(found: Sequence[Row], name: Callable[[Row], str]) -> Iterator[str]:
    width = max([len(name(row)) for row in found] + [len("standard deviation")]) + 2
    yield " " * width + "".join(column.heading.rjust(9) for column in COLUMNS)
    for row in found:
        yield name(row).ljust(width) + _cells(row.mean)
        if row.spread:
            yield f"  +/- of {row.seeds} seeds".ljust(width) + _cells(row.spread)


def _cells(values: dict[str, float]) -> str:
    return "".join(column.cell(values.get(column.key)).rjust(9) for column in COLUMNS)


def goal_lines(found: Sequence[Row]) -> list[str]:
    """How far each system is from each goal, a line for each system but real audio."""
    lines = []
    for row in found:
        if row.system == REAL:
            continue
        verdicts = []
        for column in COLUMNS:
            if (short := column.shortfall(row)) is None:
                continue
            sign = ">=" if column.higher_is_better else "<="
            verdict = f"missed by {short:{column.form}}" if short else "reached"
            verdicts.append(f"{column.heading} {sign} {column.goal(row.stranger):g} {verdict}")
        lines.append(f"goal, {row.system}: {'; '.join(verdicts)}")
    return lines


# ---- for programs


def as_dict(found: Sequence[Row], results: Sequence[Measured | Problem], made: dict[str, Any]) -> dict[str, Any]:
    """Everything, for `--json`: how it was made, the goals, rows, and each measurement."""
    goals = {column.key: column.goals for column in COLUMNS if column.goals is not None}
    return {
        "made": made,
        "goals": goals,
        "rows": [asdict(row) for row in found],
        "speakers": [asdict(row) for row in speaker_rows(results)],
        "measurements": [
            {**_of(one), "values": one.values, "problems": one.problems} for one in results if isinstance(one, Measured)
        ],
        "skipped": skipped(results),
    }


def read_rows(document: dict[str, Any]) -> list[Row]:
    """The rows of such a document. Raises ValueError for another one."""
    try:
        return [Row(**row) for row in document["rows"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a result of `glowlab evaluate --json`: {error}") from error


def as_csv(results: Sequence[Measured | Problem]) -> str:
    """One line for each clip, system and seed, for `--csv`."""
    keys = [column.key for column in COLUMNS if column.key not in (COMB, WORST)]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["set", "speaker", "clip", "system", "seed", *keys, COMB])
    for one in results:
        if isinstance(one, Measured):
            comb = float(np.mean(one.comb_db)) if one.comb_db else ""
            writer.writerow([*_of(one).values(), *(one.values.get(key, "") for key in keys), comb])
    return text.getvalue()


def _of(one: Measured) -> dict[str, Any]:
    job = one.job
    return {
        "set": job.set, "speaker": job.speaker, "clip": job.path.name, "system": job.system.name, "seed": job.seed,
    }  # fmt: skip


def skipped(results: Iterable[Measured | Problem]) -> list[str]:
    """Clips that could not be used and metrics that could not be taken, each text once."""
    texts = []
    for one in results:
        if isinstance(one, Problem):
            texts.append(one.text)
        else:
            texts += [
                f"{one.job.path.name}, {one.job.system.name}, seed {one.job.seed}: {text}" for text in one.problems
            ]
    return list(dict.fromkeys(texts))
