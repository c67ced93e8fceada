"""Two functions for each type of message, made from its declaration: one packs a message, one builds it of a header.

Rules of this file: no I/O, no particular message. A loop over the fields would take three times as long, and the gateway packs
and builds some messages for each chunk of each stream. So the source of the functions is written here, as `dataclasses` does,
with the tests of the fields in it (Spec.test): `FIELD_helper` and `FIELD_default` are what a field declares.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from glowd.daemon.wire.fields import Message, is_name

MISSING = object()
"""The value of a field that a header lacks and that has no default: no test accepts it."""

Fault = Callable[[type[Message], Mapping[str, Any]], Exception]
"""Says what is wrong with the values of a message."""


def packer(cls: type[Message], fault: Fault, pack: Callable[[dict[str, Any]], bytes], pack_array: Any) -> Any:
    """A function of a message that returns its parts. Raises what `fault` returns if a value is not allowed.

    `pack_array` is called with the message's array, its declaration, the type of the message, its shape and type of numbers.
    """
    names = [*cls.FIELDS]
    pairs = ", ".join(f'"{name}": {name}' for name in names)
    values = {name: f"_message.{name}" + (".to_map()" if name in cls.READERS else "") for name in names}
    added = [name for name in names if name in cls.ADDED]
    lines = [
        "def pack(_message):",
        *(f"    {name} = {value}" for name, value in values.items()),
        f"    if not ({_tests(cls)}):",
        f"        raise _fault(_cls, {{{pairs}}})",
        f'    _header = {{"type": "{cls.TYPE}", {pairs}}}',
        *(f"    if {name} == {name}_default: del _header['{name}']" for name in added),
    ]
    if cls.PAYLOAD is None:
        lines.append("    return [_pack(_header)]")
    else:
        lines.append(
            f"    return [_pack(_header), _pack_array(_message.{cls.PAYLOAD.name}, _payload, _cls, {_form(cls)})]"
        )
    return _function(lines, cls, _fault=fault, _pack=pack, _pack_array=pack_array)


def builder(cls: type[Message], fault: Fault, only: Any, unpack_array: Any) -> Any:
    """A function of a header, the other parts, and limits, which returns the message. Raises what `fault` returns.

    `only` is called with the type of the message and the other parts, and returns the one that there is to be; `unpack_array`
    with that, the declaration of the array, the type of the message, shape, type of numbers, and limits.
    """
    order = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    payload = "" if cls.PAYLOAD is None else cls.PAYLOAD.name
    values = {name: f"_read_{name}({name})" if name in cls.READERS else name for name in order}
    if payload:
        values[payload] = f"_unpack_array(_data, _payload, _cls, {_form(cls)}, _limits)"
    lines = [
        "def build(_header, _parts, _limits):",
        "    _get = _header.get",
        *(f"    {name} = {_value(cls, name)}" for name in cls.FIELDS),
        f"    if not ({_tests(cls)}):",
        "        raise _fault(_cls, _header)",
        "    if _parts or _has_payload:",
        "        _data = _only(_cls, _parts)",
        f"    return _cls({', '.join(values.values())})",
    ]
    readers = {f"_read_{name}": read for name, read in cls.READERS.items()}
    return _function(lines, cls, _fault=fault, _only=only, _unpack_array=unpack_array, **readers)


def _tests(cls: type[Message]) -> str:
    return " and ".join(f"({spec.test.format(name, f'{name}_helper')})" for name, spec in cls.FIELDS.items()) or "True"


def _value(cls: type[Message], name: str) -> str:
    """What a header says of a field, or its default; a default that can be changed is made anew."""
    if name in cls.DEFAULTS or name in cls.REQUIRED:
        return f"_get('{name}', {name}_default)"
    return f"_header['{name}'] if '{name}' in _header else {name}_default()"


def _form(cls: type[Message]) -> str:
    """The shape and the type of the numbers of the array: fields, or fixed values."""
    assert cls.PAYLOAD is not None
    shape = "".join(f"{axis}, " for axis in cls.PAYLOAD.shape)
    dtype = cls.PAYLOAD.dtype
    return f"({shape}), {dtype if dtype in cls.FIELDS else repr(dtype)}"


def _function(lines: list[str], cls: type[Message], **names: Any) -> Any:
    """The function that these lines define; they may use what the message declares, and the names."""
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory if made else cls.DEFAULTS.get(field.name, MISSING)
        helper = cls.FIELDS[field.name].helper if field.name in cls.FIELDS else None
        names |= {f"{field.name}_default": default, f"{field.name}_helper": helper}
    names |= {"_cls": cls, "_payload": cls.PAYLOAD, "_has_payload": cls.PAYLOAD is not None, "is_name": is_name}
    exec("\n".join(lines), names)
    return names[lines[0].removeprefix("def ").partition("(")[0]]
