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
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_TEST_NAME = 400, 60, 60
EDGE = re.compile(r"#.*\bedge\b")
"""The comment on an except that may catch everything: at the edge of a process or a thread, where it is logged."""

SHARED = (
    "daemon.wire",
    "daemon.ipc",
    "daemon.engine_link",
    "daemon.config",
    "daemon.config_voices",
    "daemon.config_reader",
    "daemon.runtime",
)
"""What the processes of the daemon share."""
ENGINE = (*SHARED, "daemon.engine")
STREAMS = (*SHARED, "daemon.gateway.containment", "daemon.gateway.streams")
"""What every room of the gateway may import: one stream, which knows no other room."""
PLAIN = ("flow.mel", "flow.new_file", "flow.options", "flow.recognition", "flow.recordings")
"""Files of flow that need no torch."""

MAY_IMPORT = {
    "flow": ("flow",),
    "flow/mel_formats": ("flow.mel", "flow.mel_formats"),
    "flow/network": ("flow.mel", "flow.options", "flow.latents", "flow.network"),
    "flow/inversion": ("flow.mel", "flow.options", "flow.latents", "flow.network", "flow.inversion"),
    "flow/phase_recovery": ("flow.mel", "flow.vocoder", "flow.phase_recovery"),
    "flow/evaluation/live.py": ("flow", "clients.launch"),
    "flow/recognition": ("flow.recognition",),
    "flow/torchfile": ("flow.recognition", "flow.torchfile"),
    "flow/importing": (*PLAIN, "flow.network", "flow.checkpoint", "flow.torchfile", "flow.importing"),
    "flow/training": (*PLAIN, "flow.mel_formats", "flow.devices", "flow.network", "flow.checkpoint", "flow.training"),
    "daemon": ("daemon",),
    "daemon/app.py": ("daemon", "flow.missing_package", "flow.recognition"),
    "daemon/config.py": ("daemon.config", "daemon.config_voices", "daemon.wire.ip_version", "flow.options"),
    "daemon/config_voices.py": ("flow.options",),
    "daemon/config_reader.py": ("daemon.config", "daemon.config_voices", "flow.options"),
    "daemon/doctor.py": ("daemon", "flow.checkpoint", "flow.mel_formats"),
    "daemon/wire": ("daemon.wire",),
    "daemon/ipc.py": ("daemon.wire",),
    "daemon/cluster": (*SHARED, "daemon.cluster"),
    "daemon/cluster/daemon_client.py": ("daemon.wire", "clients"),
    "daemon/cluster/demand.py": ("daemon.cluster", "daemon.runtime.status"),
    "daemon/cluster/node_engine.py": (*SHARED, "daemon.cluster", "daemon.engine.command"),
    "daemon/cluster/policy.py": ("daemon.cluster", "daemon.runtime.status"),
    "daemon/cluster/serving.py": (*SHARED, "daemon.cluster", "clients.errors"),
    "daemon/engine_link.py": ("daemon.wire", "daemon.ipc"),
    "daemon/runtime": (*SHARED, "flow.recognition"),
    "daemon/gateway": (*SHARED, "daemon.gateway"),
    "daemon/gateway/containment.py": ("daemon.wire",),
    "daemon/gateway/streams": (*STREAMS, "flow.mel_formats", "flow.new_file"),
    "daemon/gateway/clients": (*STREAMS, "daemon.gateway.clients"),
    "daemon/gateway/handles": (*STREAMS, "daemon.gateway.handles"),
    "daemon/gateway/placement": (
        *STREAMS, "daemon.gateway.clients", "daemon.gateway.handles", "daemon.gateway.placement",
    ),
    "daemon/speaker": (*SHARED, "daemon.speaker"),
    "daemon/web": (*SHARED, "daemon.web", "clients.web"),
    "daemon/wyoming": (*SHARED, "daemon.wyoming", "clients.wyoming", "clients.upstream"),
    "daemon/engine": ENGINE,
    "daemon/engine/vocoders.py": (*ENGINE, "flow"),
    "daemon/engine/renderer.py": (*ENGINE, "flow.vocoder", "flow.timing", "flow.mel"),
    "daemon/engine/process.py": (*ENGINE, "flow.vocoder"),
    "daemon/engine/joined.py": (*ENGINE, "flow.vocoder"),
    "daemon/engine/scheduler.py": (*ENGINE, "flow.vocoder"),
    "daemon/engine/stream.py": (*ENGINE, "flow.vocoder"),
    "daemon/engine/capacity.py": (*ENGINE, "flow.vocoder", "flow.timing"),
    "daemon/engine/overhead.py": (*ENGINE, "flow.vocoder", "flow.mel"),
    "clients": (
        "clients", "daemon.wire", "flow.mel", "flow.mel_formats", "flow.missing_package", "flow.new_file", "flow.options",
        "flow.recordings", "flow.recognition", "flow.torchfile",
    ),
}  # fmt: skip
"""Modules of ours, without the glowd in front, that a room, a part of it or a file may import; the most particular entry
holds. So gateway, engine and speaker never import one another, and clients know of the daemon nothing but the protocol. The
web process and the Wyoming process are clients; the daemon only starts them. The cluster process is one, too. In the gateway,
the loop and the readers of messages import the rooms, placement/ the other three, and clients/ and handles/ only streams/."""

HEAVY = ("torch", "librosa", "numba", "scipy")
WEB = ("starlette", "uvicorn", "websockets", "prometheus_client")
"""The packages of the extra `web`."""
MUST_NOT_IMPORT = {
    "flow": ("zmq", "msgpack", "sounddevice"),
    "flow/mel.py": ("torch", "zmq", "msgpack", "sounddevice"),
    "flow/mel_formats": (*HEAVY, "zmq", "msgpack", "sounddevice"),
    "flow/options.py": ("numpy", *HEAVY, "zmq", "msgpack", "sounddevice"),
    "flow/recordings.py": (*HEAVY, "zmq", "msgpack", "sounddevice"),
    "flow/recognition": ("numpy", "torch", "zmq", "msgpack", "sounddevice"),
    "flow/torchfile": ("torch", "zmq", "msgpack", "sounddevice"),
    "daemon": (*HEAVY, *WEB, "wyoming", "sounddevice", "ray"),
    "daemon/cluster/engine_actor.py": (*HEAVY, *WEB, "wyoming", "sounddevice", "zmq"),
    "daemon/cluster/fleet.py": (*HEAVY, *WEB, "wyoming", "sounddevice", "zmq"),
    "daemon/engine/vocoders.py": ("sounddevice",),
    "daemon/doctor.py": ("sounddevice",),
    "daemon/speaker/device.py": HEAVY,
    "daemon/wire": (*HEAVY, "sounddevice", "zmq", "soxr"),
    "clients": (*WEB, "wyoming", "torch", "sounddevice"),
    "clients/web": ("wyoming", "torch", "sounddevice"),
    "clients/wyoming": (*WEB, "torch", "sounddevice"),
}
"""Third-party modules that a room or a file must not import, not even inside a function."""

MAY_PRINT = (
    "daemon/app.py", "daemon/engine/command.py", "flow/cli.py", "clients/cli/keys.py", "clients/cli/glowctl.py",
    "clients/cli/controlling.py", "clients/cli/operating.py",
    "clients/cli/top.py", "clients/cli/demo.py", "clients/cli/speaking.py",
)  # fmt: skip


MAY_READ_CLOCKS = (
    "daemon/gateway/clock.py", "daemon/runtime/role.py", "daemon/runtime/role_process.py",
    "daemon/runtime/service_manager.py", "clients/client.py", "clients/aio.py", "clients/cli/demo.py",
    "clients/cli/mel_sources.py",
)  # fmt: skip
"""Where others are waited for, a clock that was read for itself would count the time in which nobody looked: see
daemon/wire/liveness.py. These hand a clock on, measure durations for people, say how old a figure is or when a
message was sent, or pace what they send."""


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


def parsed(*folders: str) -> tuple[Source, ...]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths)


@cache
def sources() -> tuple[Source, ...]:
    return parsed(*ROOMS)


def inside(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def imported(source: Source) -> Iterator[str]:
    """Full names: `from glowd.daemon import wire` is glowd.daemon.wire, `from glowd.daemon.wire import Mel` ends in .Mel."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_way_imports(source: Source) -> Iterator[str]:
    for name in imported(source):
        ours = name.startswith("glowd.")
        if ours and not inside(name.removeprefix("glowd."), source.rule(MAY_IMPORT)):
            yield f"{source.path} imports {name}"
        if inside(name, source.rule(MUST_NOT_IMPORT)):
            yield f"{source.path} imports {name}"


def short_names(source: Source) -> Iterator[str]:
    """`import daemon` works in this repository's folder only, and there makes a second copy of what glowd.daemon is."""
    for name in imported(source):
        if name.split(".")[0] in ROOMS:
            yield f"{source.path} imports {name}; its name is glowd.{name}"


PROGRAM = re.compile(rf"(?:\b(?:from|import|-m) |^)((?:{'|'.join(ROOMS)})(?:\.[a-z_]+)+)(?=$|[ ;,\n])", re.M)


def short_names_in_strings(source: Source) -> Iterator[str]:
    """The same in programs that are strings, and in names of modules for `python -m` or for monkeypatch."""
    for node in source.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in PROGRAM.findall(node.value):
                yield f"{source.path}:{node.lineno} names {name}; its name is glowd.{name}"


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


def clocks_read(source: Source) -> Iterator[str]:
    """A monotonic clock that is read in a part that judges whether others are still there."""
    if not source.path.startswith(("daemon/gateway/", "daemon/runtime/", "clients/")) or source.path in MAY_READ_CLOCKS:
        return
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith(("monotonic", "perf_counter", "clock_gettime")):
            yield f"{source.path}:{node.lineno} reads a clock; silence is judged by wire/liveness.py"


def docstrings_missing(source: Source) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(source.text)):
        yield f"{source.path} does not open with a docstring that states its rules"


def long_test_names(source: Source) -> Iterator[str]:
    """Names of tests are subject_condition_result; what does not fit is for the docstring."""
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            characters = len(node.name)
            if node.name.startswith("test_") and characters > MAX_TEST_NAME:
                yield f"{source.path}:{node.lineno} {node.name} has {characters} characters; at most {MAX_TEST_NAME}"


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [
    wrong_way_imports, short_names, short_names_in_strings, relative_imports, files_too_long, functions_too_long,
    globals_written, prints, broad_excepts, clocks_read, docstrings_missing,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rooms_keep_the_rules(rule: Rule) -> None:
    assert [violation for source in sources() for violation in rule(source)] == []


@pytest.mark.parametrize("rule", [short_names, short_names_in_strings], ids=lambda rule: rule.__name__)
def test_tests_import_the_installed_names(rule: Rule) -> None:
    others = [source for source in parsed("tests") if source.path != "tests/test_architecture.py"]
    assert [violation for source in others for violation in rule(source)] == []


def test_rules_cover_every_room() -> None:
    assert {source.path.split("/")[0] for source in sources()} == set(ROOMS)
    named = {*MAY_IMPORT, *MUST_NOT_IMPORT, *MAY_PRINT, *MAY_READ_CLOCKS} - set(ROOMS)
    there = {str(place) for source in sources() for place in (Path(source.path), *Path(source.path).parents)}
    assert named <= there, "a rule names what is not there"


def test_names_of_tests_are_short() -> None:
    assert [violation for source in parsed("tests") for violation in long_test_names(source)] == []


GATEWAY = "glowd.daemon.gateway"
LONG_FUNCTION = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES


@pytest.mark.parametrize(
    ("rule", "path", "text", "said"),
    [
        (wrong_way_imports, "flow/mel.py", "from glowd.daemon import wire", " imports glowd.daemon.wire"),
        (wrong_way_imports, "flow/mel.py", "import torch.nn", " imports torch.nn"),
        (wrong_way_imports, "flow/x.py", "import zmq", " imports zmq"),
        (wrong_way_imports, "flow/network/x.py", "import glowd.flow.training.x", " imports glowd.flow.training.x"),
        (wrong_way_imports, "flow/phase_recovery/x.py", "from glowd.flow.network import x", " imports glowd.flow.network.x"),
        (wrong_way_imports, "flow/torchfile/x.py", "import torch", " imports torch"),
        (wrong_way_imports, "daemon/gateway/x.py", "import glowd.flow.mel", " imports glowd.flow.mel"),
        (wrong_way_imports, "daemon/gateway/x.py", "def f():\n import torch", " imports torch"),
        (wrong_way_imports, "daemon/gateway/x.py", "import glowd.daemon.engine.process", " imports glowd.daemon.engine.process"),
        *(
            (wrong_way_imports, f"daemon/gateway/{room}/x.py", f"import {GATEWAY}.{other}", f" imports {GATEWAY}.{other}")
            for room, others in (
                ("streams", ("clients.peers", "handles.link", "placement.pool", "router")),
                ("clients", ("handles.link", "placement.pool", "process")),
                ("handles", ("clients.peers", "placement.pool", "joining")),
                ("placement", ("router", "snapshot")),
            )
            for other in others
        ),
        (wrong_way_imports, "daemon/gateway/containment.py", f"import {GATEWAY}.streams", f" imports {GATEWAY}.streams"),
        (wrong_way_imports, "daemon/engine/x.py", "from glowd.daemon import gateway", " imports glowd.daemon.gateway"),
        (wrong_way_imports, "daemon/engine/vocoders.py", "from glowd.daemon import speaker", " imports glowd.daemon.speaker"),
        (wrong_way_imports, "daemon/speaker/x.py", "import glowd.daemon.gateway", " imports glowd.daemon.gateway"),
        (wrong_way_imports, "daemon/speaker/mixer.py", "import sounddevice", " imports sounddevice"),
        (wrong_way_imports, "daemon/runtime/x.py", "import glowd.daemon.gateway", " imports glowd.daemon.gateway"),
        (wrong_way_imports, "daemon/wire/x.py", "from glowd.daemon import ipc", " imports glowd.daemon.ipc"),
        (wrong_way_imports, "daemon/wire/x.py", "from zmq import Context", " imports zmq.Context"),
        (wrong_way_imports, "flow/evaluation/live.py", "from glowd import clients", " imports glowd.clients"),
        (wrong_way_imports, "flow/options.py", "import numpy", " imports numpy"),
        (wrong_way_imports, "daemon/config.py", "import glowd.flow.mel", " imports glowd.flow.mel"),
        (wrong_way_imports, "daemon/doctor.py", "import glowd.flow.training.train", " imports glowd.flow.training.train"),
        (wrong_way_imports, "clients/x.py", "from glowd.daemon import ipc", " imports glowd.daemon.ipc"),
        (wrong_way_imports, "clients/x.py", "from glowd.daemon.runtime import role", " imports glowd.daemon.runtime.role"),
        (wrong_way_imports, "clients/x.py", "from glowd.flow import checkpoint", " imports glowd.flow.checkpoint"),
        (wrong_way_imports, "clients/x.py", "import torch", " imports torch"),
        (wrong_way_imports, "clients/x.py", "import starlette.routing", " imports starlette.routing"),
        (wrong_way_imports, "clients/web/x.py", "from glowd.daemon import web", " imports glowd.daemon.web"),
        (wrong_way_imports, "daemon/gateway/x.py", "import uvicorn", " imports uvicorn"),
        (wrong_way_imports, "clients/cli/x.py", "import wyoming.event", " imports wyoming.event"),
        (wrong_way_imports, "daemon/wyoming/x.py", "from glowd.clients import aio", " imports glowd.clients.aio"),
        (wrong_way_imports, "daemon/web/x.py", "from glowd.clients import aio", " imports glowd.clients.aio"),
        (short_names, "clients/x.py", "from daemon import wire", " imports daemon.wire; its name is glowd.daemon.wire"),
        (short_names, "tests/x.py", "def f():\n import clients", " imports clients; its name is glowd.clients"),
        (short_names_in_strings, "flow/x.py", "['-m', 'flow.cli']", ":1 names flow.cli; its name is glowd.flow.cli"),
        (short_names_in_strings, "flow/x.py", "'import flow.mel as m'", ":1 names flow.mel; its name is glowd.flow.mel"),
        (relative_imports, "flow/x.py", "from . import mel", ":1 has a relative import"),
        (files_too_long, "flow/x.py", "\n" * 401, " has 401 lines; at most 400"),
        (functions_too_long, "flow/x.py", LONG_FUNCTION, ":1 f has 61 lines; at most 60"),
        (globals_written, "flow/x.py", "def f():\n global a, b", ":2 has a global statement: a, b"),
        (prints, "daemon/gateway/x.py", "print(1)", ":1 prints; only command lines do"),
        (broad_excepts, "flow/x.py", "try: 1\nexcept: 2", ":2 catches everything and is no edge"),
        (broad_excepts, "flow/x.py", "try: 1\nexcept (OSError, Exception): 2", ":2 catches everything and is no edge"),
        (clocks_read, "daemon/gateway/x.py", "time.monotonic_ns()", ":1 reads a clock; silence is judged by wire/liveness.py"),
        (long_test_names, "tests/x.py", f"def test_{'x' * 56}(): 1", f":1 test_{'x' * 56} has 61 characters; at most 60"),
        (docstrings_missing, "flow/x.py", "x = 1", " does not open with a docstring that states its rules"),
    ],
)  # fmt: skip
def test_planted_violation_is_reported(rule: Rule, path: str, text: str, said: str) -> None:
    assert list(rule(Source(path, text))) == [path + said]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (wrong_way_imports, "daemon/engine/vocoders.py", "import torch\nfrom glowd.flow.vocoder import Vocoder"),
        (wrong_way_imports, "daemon/speaker/device.py", "import sounddevice"),
        (wrong_way_imports, "daemon/gateway/x.py", f"import {GATEWAY}.placement.pool, {GATEWAY}.streams.sinks"),
        (wrong_way_imports, "daemon/gateway/placement/x.py", f"import {GATEWAY}.clients.peers, {GATEWAY}.handles.link"),
        (wrong_way_imports, "daemon/gateway/handles/x.py", f"import {GATEWAY}.streams.sinks, {GATEWAY}.containment"),
        (wrong_way_imports, "daemon/web/serving.py", "from glowd.clients.web import server"),
        (wrong_way_imports, "clients/web/x.py", "import starlette\nfrom glowd.clients import aio"),
        (wrong_way_imports, "clients/x.py", "from glowd.daemon import wire\nfrom glowd.flow.mel import log_mel"),
        (wrong_way_imports, "flow/x.py", "import flowers, torch"),
        (short_names, "flow/x.py", "import flowers, glowd.flow.mel"),
        (short_names_in_strings, "flow/x.py", "'import glowd.flow.mel; flow.end, of the daemon.'"),
        (files_too_long, "flow/x.py", "\n" * 400),
        (long_test_names, "tests/x.py", f"async def test_{'x' * 55}(): 1\ndef {'helper' * 20}(): 1"),
        (prints, "daemon/app.py", "print(1)"),
        (clocks_read, "daemon/gateway/clock.py", "time.monotonic_ns()"),
        (clocks_read, "daemon/engine/x.py", "time.monotonic_ns()"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept Exception:  # the process's edge\n 2"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept BaseException:\n 2\n raise"),
        (broad_excepts, "daemon/x.py", "try: 1\nexcept (OSError, ValueError): 2"),
    ],
)
def test_allowed_code_is_not_reported(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []
