"""Options, each declared once: type, default, help and range, in a frozen dataclass.

    @dataclass(frozen=True, slots=True)
    class Settings(Options):
        minutes: float = option(60.0, "length of the run", above=0)
        precision: str = option("auto", "precision of the convolutions", choices=PRECISIONS)

What is constructed is valid. `from_dict` reads a table strictly, `to_dict` is its inverse, and `add_arguments` makes command
line arguments of the same declaration. An error names the option, what is allowed and what was given.

Rules: standard library only, because the daemon's torch-free processes read their settings with it. Types of options: int,
float, bool, str, tuple[str, ...], and another Options class for a table inside a table; or any of these `| None`.
"""

import argparse
import difflib
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin

BACKENDS = ("auto", "compiled", "torch", "triton")
"""What computes the flows of a voice (flow/inversion/inverter.py)."""
PRECISIONS = ("auto", "float32", "bf16")
"""Number formats of a network's convolutions."""

LONGEST_SHOWN = 200
"""Characters of a value that an error shows."""

WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes",
    tuple: "a list of texts in quotes",
}  # fmt: skip


class OptionError(ValueError):
    """An option that cannot be used. The text names the option, what is allowed, and the value."""


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
    flag: str = "",
    metavar: str = "",
) -> Any:
    """A field of an Options class. Without a default the option must be given.

    `min` and `max` are themselves allowed, `above` and `below` are not; for a list they bound the number of entries.
    `flag` is the command line argument, where --NAME-OF-THE-FIELD is not to be.
    """
    bounds = {"min": min, "max": max, "above": above, "below": below}
    declared = {"help": help, "choices": choices, "flag": flag, "metavar": metavar}
    return field(default=default, metadata={**bounds, **declared})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of an Options class, as `option` declared it."""

    name: str
    kind: type
    optional: bool
    default: Any
    help: str = ""
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    flag: str = ""
    metavar: str = ""

    @property
    def range(self) -> str:
        """Allowed values in words: "from 1 to 64", "one of a, b", or "" where the type says it all."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.min is not None and self.max is not None:
            return f"from {plain(self.min)} to {plain(self.max)}"
        bounds = {"at least": self.min, "above": self.above, "at most": self.max, "below": self.below}
        return " and ".join(f"{word} {plain(bound)}" for word, bound in bounds.items() if bound is not None)

    @property
    def allowed(self) -> str:
        """Type and range in words; completes "NAME must be ..."."""
        if self.choices:
            return self.range
        word = WORDS.get(self.kind, "a table")
        if not self.range:
            return word
        return f"{word}, {self.range}" + (" of them" if self.kind is tuple else "")

    def accepts(self, value: Any) -> bool:
        """Whether `value` is of the type and in range. NaN and infinity never are."""
        if value is None:
            return self.optional
        if isinstance(value, bool) is not (self.kind is bool):
            return False
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            return False
        if self.choices:
            return value in self.choices
        if isinstance(value, tuple):
            return all(isinstance(item, str) for item in value) and self._bounds(len(value))
        return not isinstance(value, int | float) or (math.isfinite(value) and self._bounds(value))

    def _bounds(self, size: float) -> bool:
        return (
            (self.min is None or self.min <= size)
            and (self.max is None or size <= self.max)
            and (self.above is None or self.above < size)
            and (self.below is None or size < self.below)
        )

    def converted(self, value: Any, where: str) -> Any:
        """`value` as read from TOML or JSON, which spell some types in another way. Raises OptionError inside a table."""
        if issubclass(self.kind, Options) and not (value is None and self.optional):
            return self.kind.from_dict(value, f"{where}{self.name}.")
        if self.kind is float and type(value) is int:
            return float(value)
        return tuple(value) if self.kind is tuple and type(value) is list else value

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Make it an argument of `parser`. Absent, it is None; present, a bool is True."""
        flag = self.flag or "--" + self.name.replace("_", "-")
        named = self.default not in (MISSING, None, "") and self.kind is not bool
        default = f"default {plain(self.default)}" if named else ""
        notes = "; ".join(filter(None, (self.range, default)))
        text = (f"{self.help} ({notes})" if notes else self.help).replace("%", "%%")
        if self.kind is bool:
            parser.add_argument(flag, dest=self.name, help=text, action="store_const", const=True)
        else:
            kind = str if self.kind is tuple else self.kind
            nargs = "+" if self.kind is tuple else None
            parser.add_argument(flag, dest=self.name, help=text, type=kind, nargs=nargs, metavar=self.metavar or None)


class Options:
    """Base of a frozen dataclass of options. Construction raises OptionError for a value of a wrong type or out of range."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, declared in options(type(self)).items():
            self.require(name, declared.accepts(getattr(self, name)), declared.allowed)
        self.check()

    def check(self) -> None:
        """Raise OptionError, by `require`, where options contradict one another."""

    def require(self, name: str, holds: bool, allowed: str) -> None:
        """Raise OptionError for option `name` unless `holds`. `allowed` completes "NAME must be ..."."""
        if not holds:
            raise OptionError(f"{name} must be {allowed}; got {shown(getattr(self, name))}")

    def to_dict(self) -> dict[str, Any]:
        """A plain map; a table inside is a map inside."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}  # type: ignore[arg-type]
        return {name: value.to_dict() if isinstance(value, Options) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, table: Any, where: str = "") -> Self:
        """The inverse of `to_dict`; what is left out has its default. `where` stands before names in errors: "server.".

        Raises OptionError for an unknown key, a value of a wrong type or out of range, and an option that is missing.
        """
        known = options(cls)
        refuse_unknown(as_table(table, where), known, where)
        for name, declared in known.items():
            if declared.default is MISSING and name not in table:
                raise OptionError(f"{where}{name} is missing: {declared.help}")
        values = {name: known[name].converted(value, where) for name, value in table.items()}
        try:
            return cls(**values)
        except OptionError as error:
            raise OptionError(f"{where}{error}") from None


def options(cls: type[Options]) -> dict[str, Option]:
    """The options of a class by name, in their order. A table inside may be declared by `field(default_factory=...)`."""
    declared = {}
    for part in fields(cls):  # type: ignore[arg-type]
        kind, optional = _kind(part.type)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        declared[part.name] = Option(name=part.name, kind=kind, optional=optional, default=default, **part.metadata)
    return declared


def _kind(annotation: Any) -> tuple[type, bool]:
    """The class that an annotation names, and whether None may stand in its place."""
    if isinstance(annotation, UnionType):
        (kind,) = (each for each in get_args(annotation) if each is not NoneType)
        return kind, True
    return get_origin(annotation) or annotation, False


def as_table(table: Any, where: str) -> dict[str, Any]:
    """`table`, if it is one. Raises OptionError."""
    if not isinstance(table, dict):
        raise OptionError(f"{where.removesuffix('.') or 'the settings'} must be a table; got {shown(table)}")
    return table


def refuse_unknown(table: dict[str, Any], known: Iterable[str], where: str = "") -> None:
    """Raise OptionError for the first key of `table` that is not in `known`; the text has the nearest one."""
    known = list(known)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {where}{near[0]}?" if near else ""
            raise OptionError(f"unknown setting {where}{key}{hint} (known: {', '.join(known)})")


def add_arguments(parser: argparse.ArgumentParser, cls: type[Options]) -> None:
    """Give `parser` an argument for each option of `cls`; see `given`."""
    for declared in options(cls).values():
        declared.add_to(parser)


def given(args: argparse.Namespace, cls: type[Options]) -> dict[str, Any]:
    """The options that the command line gave: a table for `from_dict`."""
    return {name: value for name in options(cls) if (value := getattr(args, name)) is not None}


def shown(value: Any) -> str:
    """A value as a settings file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."


def plain(value: Any) -> str:
    """A value as one types it: 60 for 60.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
