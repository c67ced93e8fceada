"""Maps of the protocol as typed records: frozen dataclasses that become maps and are read from maps.

Rules of this file: no bytes, no I/O, and no particular record. The fields of a record are the keys of its map, in order.
An annotation says what a value may be: bool, int, float (an int too), str, Any, a list, a dict by name, another record, or
a union of these and None.
"""

import contextlib
import dataclasses
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin

INLINE = {"inline": True}
"""The metadata of a field whose record has its keys beside those of the record that holds it."""


class Record:
    """Base of all records. Subclasses are dataclasses."""

    __slots__ = ()

    def to_map(self) -> dict[str, Any]:
        """The map of this record. An inline record adds its keys to those of the record that holds it."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _write(getattr(self, field.name))
            found |= value if "inline" in field.metadata else {field.name: value}
        return found

    @classmethod
    def from_map(cls, source: object) -> Self:
        """Read a record; unknown keys are ignored.

        A field whose key is missing, or whose value is of another type, takes its default.
        Raises ValueError if a field without a default cannot be read, or if `source` is not a map.
        """
        if not isinstance(source, dict):
            raise ValueError(f"{cls.__name__} is read from a map; this is {type(source).__name__}")
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            try:
                values[field.name] = read(field.type, source if "inline" in field.metadata else source[field.name])
            except (KeyError, ValueError):
                if _is_required(field):
                    found = repr(source[field.name])[:60] if field.name in source else "missing"
                    raise ValueError(f"{cls.__name__}.{field.name} is {found}; expected {_name(field.type)}") from None
        return cls(**values)


def required_keys(kind: Any) -> str:
    """The keys that a map must have to be read as a record, or as one of a union of records; for error messages."""
    kinds = get_args(kind) or (kind,)
    return " or ".join(", ".join(f.name for f in dataclasses.fields(one) if _is_required(f)) for one in kinds)


def read(kind: Any, value: object) -> Any:
    """`value` as what an annotation says: a record for a map, the first that fits of a union. Raises ValueError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _read_union(arguments, value)
    if origin is list and isinstance(value, list):
        return [read(arguments[0], item) for item in value]
    if origin is dict and isinstance(value, dict):
        return _read_dict(arguments[1], value)
    if origin is None and isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_map(value)
    if kind is Any or type(value) is kind or (kind is float and type(value) is int):
        return value
    raise ValueError(f"{type(value).__name__} is not {_name(kind)}")


def _read_union(kinds: tuple[Any, ...], value: object) -> Any:
    if value is None and NoneType in kinds:
        return None
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return read(kind, value)
    raise ValueError(f"{type(value).__name__} is none of {', '.join(map(_name, kinds))}")


def _read_dict(kind: Any, source: dict[Any, Any]) -> dict[str, Any]:
    """The entries that can be read; the others are left out."""
    found: dict[str, Any] = {}
    for key, item in source.items():
        with contextlib.suppress(ValueError):
            found[read(str, key)] = read(kind, item)
    return found


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)


def _write(value: object) -> Any:
    if isinstance(value, Record):
        return value.to_map()
    if isinstance(value, dict):
        return {key: _write(item) for key, item in value.items()}
    return value
