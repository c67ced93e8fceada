"""A pickle reader that runs no code of the pickle: every opcode is interpreted here, and no name in it is imported.

Rules: standard library only. A name in a pickle (`GLOBAL`) becomes a `GlobalName`, two strings. A call of it (REDUCE, NEWOBJ,
INST, OBJ) follows the first rule that applies:

1. A name in the reader's `known` table: the function in that table, which is ours, builds plain data.
2. A name in one of `REFUSED_MODULES`: `UnsafeCheckpoint`, as soon as the name occurs.
3. A name that looks like a class (`Conv1d`, `WeightNorm`, `Outer.Inner`): an `Opaque`, which records module, name,
   arguments, items and state (BUILD), and does nothing with them.
4. Any other name is a function that would have to run to give a value: `UnsafeCheckpoint` names it.

The refusals inform the user that the file asks for code to be run. Safety does not depend on them: this file cannot import
anything, look up attributes, or call any function that is not in `known`.
"""

import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_DEPTH = 200
MAX_KEY_DEPTH = 4
MAX_OPCODES = 1_000_000
"""A checkpoint of WaveGlow with its optimiser has 100,000; each takes a microsecond."""
MAX_COPIED_ITEMS = 2**24
"""Limit of text and items passed to all calls of `known` functions together, beyond what the file has itself: one big list can
be passed many times."""

REFUSED_MODULES = frozenset([
    "__builtin__", "builtins", "os", "posix", "nt", "ntpath", "posixpath", "sys", "subprocess", "commands", "popen2",
    "importlib", "imp", "pkgutil", "runpy", "pty", "socket", "shutil", "ctypes", "cffi", "code", "codeop", "codecs",
    "types", "operator", "functools", "inspect", "marshal", "pickle", "cPickle", "_pickle", "dill", "cloudpickle",
    "joblib", "shelve", "dbm", "asyncio", "multiprocessing", "threading", "_thread", "signal", "resource", "mmap",
    "tempfile", "io", "_io", "fileinput", "webbrowser", "urllib", "http", "ftplib", "smtplib", "telnetlib", "ssl",
    "xmlrpc", "pdb", "bdb", "cProfile", "profile", "timeit", "trace", "doctest", "unittest", "pip", "setuptools",
    "distutils", "venv", "ensurepip", "site", "atexit",
])  # fmt: skip
_CLASS_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)*_*[A-Z]\w*", re.ASCII)


class CheckpointFileError(ValueError):
    """The file is not a readable checkpoint: damaged, truncated, or of another format."""


class UnsafeCheckpoint(CheckpointFileError):
    """The file asks for code to be run. Nothing was run."""


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function that a pickle names: two strings, never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Opaque:
    """A record of an instance of `module.name`: the arguments, state and items it was pickled with."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


Known = Mapping[tuple[str, str], Callable[..., Any]]
Persistent = Callable[[Any], Any]


def load(stream: BinaryIO, known: Known, persistent: Persistent) -> Any:
    """Read one pickle from `stream`, which is left after its STOP.

    `known` maps (module, name) to the function to call for it; `persistent` resolves persistent ids. Raises
    UnsafeCheckpoint (see the rules above), CheckpointFileError for a pickle that is malformed, truncated or too deep.
    """
    machine = _Machine(known, persistent)
    position = 0
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(stream)):
            position = at or 0
            if count >= MAX_OPCODES:
                raise CheckpointFileError(
                    f"its pickle has more than {MAX_OPCODES} instructions, as no checkpoint needs"
                )
            machine.run(opcode.name, argument)
        return _checked_depth(machine.result())
    except CheckpointFileError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointFileError(f"malformed pickle near byte {position}: {error}") from error


def _checked_depth(root: Any) -> Any:
    """`root`, if nothing in it lies deeper than MAX_DEPTH (measured breadth first, so cycles do no harm)."""
    level, seen = [root], {id(root)}
    for _ in range(MAX_DEPTH):
        children = [child for parent in level for child in _children(parent)]
        level = []
        for child in children:
            if id(child) not in seen:
                seen.add(id(child))
                level.append(child)
        if not level:
            return root
    raise CheckpointFileError(f"objects are nested too deep; allowed: at most {MAX_DEPTH} levels")


def _children(parent: Any) -> list[Any]:
    if isinstance(parent, dict):
        return list(parent.values())
    if isinstance(parent, list | tuple):
        return list(parent)
    if isinstance(parent, Opaque):
        return [parent.args, parent.state, parent.items]
    return []


def _checked_key(key: Any, depth: int = 0) -> Any:
    """Keys are hashed, so only plain values are allowed: hashing a deep tuple would exhaust the C stack."""
    if isinstance(key, tuple) and depth < MAX_KEY_DEPTH:
        for item in key:
            _checked_key(item, depth + 1)
    elif not isinstance(key, str | bytes | int | float | GlobalName | None):
        raise CheckpointFileError(f"a {type(key).__name__} is used as a key; expected text or a number")
    return key


class _Machine:
    """The pickle machine: a stack, a stack of marked stacks, a memo."""

    def __init__(self, known: Known, persistent: Persistent) -> None:
        self._known = known
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied_items = self._own_items = 0

    def result(self) -> Any:
        if self._marked or len(self._stack) != 1:
            raise CheckpointFileError(f"malformed pickle: {len(self._stack)} values are left at its end, expected 1")
        return self._stack[0]

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self._stack.append(argument)
            self._own_items += len(argument) if isinstance(argument, str | bytes) else 1
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise CheckpointFileError(f"pickle opcode {opcode} does not occur in PyTorch files and is not supported")

    # Stack and memo.

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def drop_mark(self, _: Any) -> None:
        self._pop_mark()

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    # Containers.

    def short_tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise CheckpointFileError(f"malformed pickle: a tuple of {count} from {len(self._stack)} values")
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    def marked_tuple(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def marked_list(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def marked_dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items)

    def marked_frozenset(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(_checked_key(item) for item in items))

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque):
            target = target.items
        if not isinstance(target, list):
            raise CheckpointFileError(f"malformed pickle: items appended to a {type(target).__name__}")
        target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Opaque):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((_checked_key(key), value) for key, value in pairs)
        else:
            raise CheckpointFileError(f"malformed pickle: keys set in a {type(target).__name__}")

    def add_items(self, _: Any) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise CheckpointFileError(f"malformed pickle: elements added to a {type(target).__name__}")
        target.update(_checked_key(item) for item in items)

    # Names, calls, state.

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._checked_name(module, name))

    def stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointFileError("malformed pickle: a global whose name is not text")
        self._stack.append(self._checked_name(module, name))

    def _checked_name(self, module: str, name: str) -> GlobalName:
        if (module, name) not in self._known and module.partition(".")[0] in REFUSED_MODULES:
            raise UnsafeCheckpoint(
                f"the file refers to {module}.{name}, which no checkpoint needs; do not load it with another program. "
                "Nothing was run"
            )
        return GlobalName(module, name)

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, GlobalName) or not isinstance(args, tuple):
            raise CheckpointFileError(f"malformed pickle: a {type(function).__name__} is called")
        if known := self._known.get((function.module, function.name)):
            self._copied_items += sum(len(arg) for arg in args if isinstance(arg, str | bytes | list | tuple))
            if self._copied_items > MAX_COPIED_ITEMS + self._own_items:
                raise CheckpointFileError(
                    f"its calls copy too many items; allowed: at most {MAX_COPIED_ITEMS} beyond its own"
                )
            return known(*args)
        if not _CLASS_NAME.fullmatch(function.name):
            raise UnsafeCheckpoint(
                f"the file asks to call the function {function}, which PyTorch does not need to rebuild tensors and "
                "modules. Nothing was run"
            )
        return Opaque(function.module, function.name, args)

    def reduce(self, _: Any) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._call(function, args))

    def new_with_keywords(self, _: Any) -> None:
        keywords, args, function = self._stack.pop(), self._stack.pop(), self._stack.pop()
        if keywords:
            args = (*args, keywords)
        self._stack.append(self._call(function, args))

    def inst(self, argument: str) -> None:
        args = tuple(self._pop_mark())
        self.name(argument)
        self._stack.append(self._call(self._stack.pop(), args))

    def obj(self, _: Any) -> None:
        function, *args = self._pop_mark()
        self._stack.append(self._call(function, tuple(args)))

    def build(self, _: Any) -> None:
        """Opaque objects record their state; of our own plain data, only dicts come with one (torch's `_metadata`)."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Opaque):
            target.state = state
        elif not isinstance(target, OrderedDict):
            raise CheckpointFileError(f"malformed pickle: state given to a {type(target).__name__}")

    def text_persistent_id(self, argument: str) -> None:
        self._stack.append(self._persistent(argument))

    def persistent_id(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


_LITERALS = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8",
])  # fmt: skip
_IGNORED = frozenset(["PROTO", "FRAME", "STOP"])
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP_MARK": _Machine.drop_mark,
    "POP": _Machine.pop,
    "DUP": _Machine.dup,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.marked_tuple,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "FROZENSET": _Machine.marked_frozenset,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "PERSID": _Machine.text_persistent_id,
    "BINPERSID": _Machine.persistent_id,
}
