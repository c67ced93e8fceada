"""The rules of this repository that a program can check: which way imports go, and how large things may grow.

Every rule is a function of parsed files, so that it is tried on a planted violation as well as on the repository: a rule
that cannot fail says nothing.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("flow", "daemon", "clients")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
EDGE = re.compile(r"#.*\bedge\b")
"""The comment on an except that may catch everything: at the edge of a process or a thread, where it is logged."""

MAY_IMPORT = {
    "flow": ("flow",),
    "flow/network": ("flow.mel", "flow.latents", "flow.network"),
    "flow/inversion": ("flow.mel", "flow.latents", "flow.network", "flow.inversion"),
    "flow/phase": ("flow.mel", "flow.vocoder", "flow.phase"),
    "flow/published": ("flow.mel", "flow.network", "flow.checkpoint", "flow.published"),
    "flow/training": ("flow.mel", "flow.network", "flow.checkpoint", "flow.training"),
    "daemon": ("daemon",),
    "daemon/voices.py": ("daemon", "flow"),
    "daemon/renderer.py": ("daemon", "flow.vocoder", "flow.speed", "flow.mel"),
    "daemon/scheduler.py": ("daemon", "flow.vocoder"),
    "daemon/capacity.py": ("daemon", "flow.vocoder", "flow.speed"),
    "daemon/doctor.py": ("daemon", "flow.checkpoint"),
    "clients": ("clients", "daemon.wire", "flow.mel", "flow.published.ptfile"),
}
"""First-party modules that a room, a part of it or a file may import; the most particular entry holds."""
WIRE = ("daemon/wire.py", "daemon/codec.py", "daemon/message.py")
"""The protocol, which clients share: it must stay free of the rest of the daemon."""
MAY_IMPORT |= dict.fromkeys(WIRE, ("daemon.wire", "daemon.codec", "daemon.message"))

HEAVY = ("torch", "librosa", "numba", "scipy")
MUST_NOT_IMPORT = {
    "flow": ("zmq", "msgpack", "sounddevice"),
    "flow/mel.py": ("torch", "zmq", "msgpack", "sounddevice"),
    "flow/published/ptfile.py": ("torch", "zmq", "msgpack", "sounddevice"),
    "daemon": (*HEAVY, "sounddevice"),
    "daemon/voices.py": ("sounddevice",),
    "daemon/doctor.py": ("sounddevice",),
    "daemon/device.py": HEAVY,
    "clients": ("torch", "sounddevice"),
}
"""Third-party modules that a room or a file must not import, not even inside a function."""
MUST_NOT_IMPORT |= dict.fromkeys(WIRE, (*HEAVY, "sounddevice", "zmq", "soxr"))

MAY_PRINT = (
    "daemon/app.py", "daemon/role.py", "flow/lab.py", "clients/glowctl.py", "clients/top.py", "clients/demo.py",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A parsed file; `path` is relative to the repository."""

    path: str
    text: str

    @property
    def nodes(self) -> Iterator[ast.AST]:
        """Every node of its syntax tree."""
        return ast.walk(ast.parse(self.text))

    def rule(self, table: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The entry of `table` for this file, else the one for the nearest folder around it that has one."""
        path = Path(self.path)
        return next((table[str(place)] for place in (path, *path.parents) if str(place) in table), ())


@cache
def sources() -> tuple[Source, ...]:
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return tuple(Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths)


def inside(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def imported(source: Source) -> Iterator[str]:
    """Full names: `from daemon import wire` is daemon.wire, `from daemon.wire import Mel` is daemon.wire.Mel."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_way_imports(source: Source) -> Iterator[str]:
    for name in imported(source):
        first_party = name.split(".")[0] in ROOMS
        if first_party and not inside(name, source.rule(MAY_IMPORT)):
            yield f"{source.path} imports {name}"
        if inside(name, source.rule(MUST_NOT_IMPORT)):
            yield f"{source.path} imports {name}"


def relative_imports(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{source.path}:{node.lineno} has a relative import"


def files_too_long(source: Source) -> Iterator[str]:
    if (lines := len(source.text.splitlines())) > MAX_FILE_LINES:
        yield f"{source.path} has {lines} lines; at most {MAX_FILE_LINES}"


def functions_too_long(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{source.path}:{node.lineno} {node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}"


def globals_written(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Global):
            yield f"{source.path}:{node.lineno} has a global statement: {', '.join(node.names)}"


def prints(source: Source) -> Iterator[str]:
    for node in source.nodes:
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if is_print and source.path not in MAY_PRINT:
            assert isinstance(node, ast.Call)
            yield f"{source.path}:{node.lineno} prints; only command lines do"


def broad_excepts(source: Source) -> Iterator[str]:
    """`except Exception`, `except BaseException` and bare ones, alone or in a tuple; those that raise again are fine."""
    lines = source.text.splitlines()
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds)
            raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if broad and not raises_again and not EDGE.search(lines[node.lineno - 1]):
                yield f"{source.path}:{node.lineno} catches everything and is no edge"


def docstrings_missing(source: Source) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(source.text)):
        yield f"{source.path} does not open with a docstring that states its rules"


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [
    wrong_way_imports, relative_imports, files_too_long, functions_too_long, globals_written, prints,
    broad_excepts, docstrings_missing,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_its_rules(rule: Rule) -> None:
    assert [violation for source in sources() for violation in rule(source)] == []


def test_all_three_rooms_were_looked_at() -> None:
    assert {source.path.split("/")[0] for source in sources()} == set(ROOMS)
    named = {*MAY_IMPORT, *MUST_NOT_IMPORT, *MAY_PRINT} - set(ROOMS)
    there = {str(place) for source in sources() for place in (Path(source.path), *Path(source.path).parents)}
    assert named <= there, "a rule names what is not there"


def test_the_readme_says_what_is_in_each_file() -> None:
    described = set(re.findall(r"^\| `([\w./-]+\.py)` \| \S", (ROOT / "README.md").read_text("utf-8"), flags=re.M))
    found = {source.path for source in sources() if not source.path.endswith("__init__.py")}
    assert {path for path in described if path.split("/")[0] in ROOMS} == found


LONG_FUNCTION = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES


@pytest.mark.parametrize(
    ("rule", "path", "text", "said"),
    [
        (wrong_way_imports, "flow/mel.py", "from daemon import wire", " imports daemon.wire"),
        (wrong_way_imports, "flow/mel.py", "import torch.nn", " imports torch.nn"),
        (wrong_way_imports, "flow/x.py", "import zmq", " imports zmq"),
        (wrong_way_imports, "daemon/gateway.py", "import flow.mel", " imports flow.mel"),
        (wrong_way_imports, "flow/network/x.py", "import flow.training.x", " imports flow.training.x"),
        (wrong_way_imports, "flow/phase/x.py", "from flow.network import x", " imports flow.network.x"),
        (wrong_way_imports, "daemon/gateway.py", "def f():\n import torch", " imports torch"),
        (wrong_way_imports, "daemon/mixer.py", "import sounddevice", " imports sounddevice"),
        (wrong_way_imports, "daemon/wire.py", "from daemon.role import Role", " imports daemon.role.Role"),
        (wrong_way_imports, "daemon/wire.py", "from zmq import Context", " imports zmq.Context"),
        (wrong_way_imports, "daemon/doctor.py", "import flow.training.train", " imports flow.training.train"),
        (wrong_way_imports, "clients/x.py", "from daemon import link", " imports daemon.link"),
        (wrong_way_imports, "clients/x.py", "from daemon.role import plain", " imports daemon.role.plain"),
        (wrong_way_imports, "clients/x.py", "import torch", " imports torch"),
        (relative_imports, "flow/x.py", "from . import mel", ":1 has a relative import"),
        (files_too_long, "flow/x.py", "\n" * 401, " has 401 lines; at most 400"),
        (functions_too_long, "flow/x.py", LONG_FUNCTION, ":1 f has 61 lines; at most 60"),
        (globals_written, "flow/x.py", "def f():\n global a, b", ":2 has a global statement: a, b"),
        (prints, "daemon/gateway.py", "print(1)", ":1 prints; only command lines do"),
        (broad_excepts, "flow/x.py", "try: 1\nexcept: 2", ":2 catches everything and is no edge"),
        (broad_excepts, "flow/x.py", "try: 1\nexcept (OSError, Exception): 2", ":2 catches everything and is no edge"),
        (docstrings_missing, "flow/x.py", "x = 1", " does not open with a docstring that states its rules"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_named(rule: Rule, path: str, text: str, said: str) -> None:
    assert list(rule(Source(path, text))) == [path + said]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (wrong_way_imports, "daemon/voices.py", "import torch\nfrom flow.vocoder import Vocoder"),
        (wrong_way_imports, "daemon/device.py", "import sounddevice"),
        (wrong_way_imports, "clients/x.py", "from daemon import wire\nfrom flow.mel import log_mel"),
        (wrong_way_imports, "flow/x.py", "import flowers, torch"),
        (files_too_long, "flow/x.py", "\n" * 400),
        (prints, "daemon/app.py", "print(1)"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept Exception:  # the process's edge\n 2"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept BaseException:\n 2\n raise"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept (OSError, ValueError): 2"),
    ],
)
def test_what_is_allowed_is_not_named(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []
