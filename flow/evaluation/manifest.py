"""Where recordings come from and what their licences allow: a table beside them, a line for each file.

file <tab> speaker <tab> licence <tab> source       the first line; other columns may stand between
test/lj/LJ001-0083.flac <tab> ...                   `file` is relative to the table
"""

import csv
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("file", "speaker", "licence", "source")


class ManifestError(ValueError):
    """A table that cannot be used, or that does not have a recording. The text names both and says what is needed."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What must be said of a recording that is passed on."""

    speaker: str
    licence: str
    source: str


def read_manifest(path: Path) -> dict[Path, Origin]:
    """Origins by absolute path. Raises ManifestError for a table without the columns, and OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
            raise ManifestError(
                f"{path} has no column {', '.join(missing)}; needed: a first line with {', '.join(COLUMNS)}, between tabs"
            )
        return {(path.parent / row["file"]).resolve(): _origin(row) for row in table}


def _origin(row: dict[str, str]) -> Origin:
    return Origin(row["speaker"] or "unknown", row["licence"] or "unknown", row["source"] or "unknown")


def origins_of(recordings: list[Path], manifest: Path | None) -> dict[Path, Origin]:
    """The origin of each recording; none at all without a manifest.

    Raises ManifestError for a recording that it does not have.
    """
    if manifest is None:
        return {}
    known = read_manifest(manifest)
    if missing := [path for path in recordings if path.resolve() not in known]:
        raise ManifestError(f"{manifest} has no line for {missing[0]}; add one, or leave the recording out")
    return {path: known[path.resolve()] for path in recordings}
