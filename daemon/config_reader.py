"""Strict reading of TOML tables into frozen dataclasses: the mechanism behind config.py, which has the settings.

Rules: knows no setting by name, except which keys are paths. What is not exactly as declared raises ConfigError.
"""

import difflib
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar

PATH_KEYS = ("run_dir", "checkpoint", "directory")
EMBEDDED = "embedded"  # the checkpoint that ships with glowd: a word, not a path

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used. The text names the key, the value and what is allowed."""


def setting(default: Any, low: float | None = None, high: float | None = None, among: tuple[str, ...] = ()) -> Any:
    """A field with its allowed range (inclusive; of a list, how many entries) or choices."""
    return field(default=default, metadata={"low": low, "high": high, "among": among})


def absolute(value: Any, base: Path) -> Any:
    """A path that is relative, made relative to `base`; anything else unchanged."""
    if isinstance(value, str) and value not in ("", EMBEDDED):
        return str(base / Path(value).expanduser())
    return value


def fill(cls: type[T], table: Any, where: str, base: Path) -> T:
    """Build dataclass `cls` from the TOML table named `where`; relative paths are relative to `base`."""
    kinds = {part.name: part for part in fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(f"{where}.", as_table(where, table), list(kinds))
    values = {name: checked(kinds[name], value, f"{where}.{name}") for name, value in table.items()}
    for name in PATH_KEYS:
        if name in kinds:
            values[name] = absolute(values.get(name, kinds[name].default), base)
    filled = cls(**values)
    if check := getattr(filled, "check", None):
        check(where)
    return filled


def as_table(where: str, table: Any) -> dict[str, Any]:
    """`table` if it is one. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {table!r}")
    return table


def refuse_unknown(where: str, table: dict[str, Any], known: list[str]) -> None:
    """Raises ConfigError for the first key of `table` that is not in `known`."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {where}{near[0]}?" if near else ""
            raise ConfigError(f"unknown setting {where}{key}{hint} (known: {', '.join(known)})")


def checked(part: Any, value: Any, where: str) -> Any:
    """`value` in the type of its field, in range. Raises ConfigError."""
    kind = type(part.default)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and type(value) is list and all(type(item) is str for item in value):
        value = tuple(value)
    if type(value) is not kind:
        words = {
            int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes",
            tuple: "a list of texts in quotes",
        }  # fmt: skip
        raise ConfigError(f"{where} must be {words[kind]}, got {value!r}")
    low, high, among = (part.metadata.get(key) for key in ("low", "high", "among"))
    if among and value not in among:
        raise ConfigError(f"{where} must be one of {', '.join(among)}; got {value!r}")
    size, unit = (len(value), " entries") if kind is tuple else (value, "")
    if low is not None and not low <= size <= high:
        raise ConfigError(f"{where} must be {low} to {high}{unit}, got {size}")
    return value
