"""What every role process shares: arguments, logs, status lines, and being told to stop.

The supervisor starts a role as `python -m glowd.daemon.ROLE --run-dir D [--config F] [--engine NAME] [--set KEY=VALUE]...`.
Rules between the two:
- stdout is the role's status, one JSON map a line: {"ready": {...}} once, {"alive": 1} every second from the role's own
  main loop (so that a loop that hangs is seen), {"failed": "text"} before it gives up. Whatever else the process prints
  goes to stderr, which is the log.
- stdin's end means that the supervisor is gone: the role stops; if it has not within ORPHAN_GRACE_S, it ends at once.
- SIGTERM means stop; SIGINT is ignored: what a Ctrl-C does is the supervisor's to decide, because it has an order.

A plain loop:                                     asyncio:
    with Role.start("speaker") as role:               with Role.start("gateway") as role:
        ...                                               asyncio.run(serve(role))
        role.ready(device="pulse")                    # in serve: role.ready(); then either
        while not role.stopping.wait(0.5):            #   await role.run_until_stop()
            role.alive()
"""

import argparse
import asyncio
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glowd.daemon.config import Config, ConfigError, load
from glowd.daemon.runtime.system import set_niceness

ALIVE_EVERY_S = 1.0
NICENESS = {"speaker": -12, "gateway": -11, "engine": -8}
"""Live sound comes before whatever else the machine does, where the system lets us say so."""
ORPHAN_GRACE_S = 5.0
EXIT_FAILED, EXIT_ORPHAN = 1, 70

log = logging.getLogger("glowd")


def plain(text: str) -> str:
    """`text` with control, format and line-separating characters shown as escapes: one line that no peer can forge."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LineFormatter(logging.Formatter):
    """`12:34:56.789 gateway WARNING text`, always one line; an exception is `[module:line function > ... > error]`."""

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d {role} %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record as one printable line."""
        return plain(super().format(record))

    def formatException(self, ei: Any) -> str:
        """The traceback on one line, outermost call first."""
        frames = [f"{Path(f.filename).stem}:{f.lineno} {f.name}" for f in traceback.extract_tb(ei[2])]
        return "[" + " > ".join([*frames, f"{ei[0].__name__}: {ei[1]}"]) + "]"


def setup_logging(role: str, level: str) -> None:
    """Send the log to stderr in our format; replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(role))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def config_arguments() -> argparse.ArgumentParser:
    """The arguments that choose a configuration; a parent parser for roles and for glowd."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; see config.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override: server.max_streams=4"
    )
    return parser


class Role:
    """A running role process. Owner: its main thread; `stop`, `on_stop` and `stopping` are for any thread."""

    def __init__(self, name: str, config: Config, run_dir: Path, engine: str) -> None:
        self.name, self.config, self.run_dir, self.engine = name, config, run_dir, engine
        self.stopping = threading.Event()
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._alive_at_s = 0.0
        self._status_fd = os.dup(sys.stdout.fileno())
        self._signal_in, self._signal_out = os.pipe()

    @classmethod
    def start(cls, name: str, argv: Sequence[str] | None = None) -> "Role":
        """Parse the arguments, take over signals, stdin and stdout. A bad configuration exits with a `failed` line."""
        parser = argparse.ArgumentParser(prog=f"python -m glowd.daemon.{name}", parents=[config_arguments()])
        parser.add_argument(
            "--run-dir", type=Path, required=True, metavar="DIR", help="directory of the daemon's sockets"
        )
        parser.add_argument("--engine", default="", metavar="NAME", help="engine: which of the configuration's it is")
        arguments = parser.parse_args(argv)
        try:
            config = load(arguments.config, arguments.set)
            if arguments.engine and arguments.engine not in config.engines:
                raise ConfigError(f"there is no engine {arguments.engine}; known: {', '.join(config.engines)}")
        except ConfigError as error:
            sys.stdout.write(json.dumps({"failed": str(error)}) + "\n")
            sys.exit(EXIT_FAILED)
        setup_logging(arguments.engine or name, config.log.level)
        set_niceness(NICENESS.get(name, 0))
        role = cls(name, config, arguments.run_dir.absolute(), arguments.engine)
        role._take_over()
        return role

    def _take_over(self) -> None:
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not garble the status lines
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._watch, name="stop-watcher", daemon=True).start()

    def _on_signal(self, *_: Any) -> None:
        os.write(self._signal_out, b"T")  # no locks here: a handler may interrupt whoever holds them

    # ---------------------------------------------------------------- status

    def ready(self, **info: Any) -> None:
        """Tell the supervisor that this role can work; `info` is shown by `glowd` and `glowctl status`."""
        self._status({"ready": info})

    def alive(self) -> None:
        """Tell the supervisor that the main loop turns. Call it in every turn: a line is written once a second."""
        now_s = time.monotonic()
        if now_s - self._alive_at_s >= ALIVE_EVERY_S:
            self._alive_at_s = now_s
            self._status({"alive": 1})

    def failed(self, text: str) -> None:
        """Tell the supervisor why this role is about to give up."""
        self._status({"failed": text})

    def _status(self, line: dict[str, Any]) -> None:
        try:
            os.write(self._status_fd, (json.dumps(line) + "\n").encode())
        except BrokenPipeError:
            self.stop()

    # ---------------------------------------------------------------- stopping

    def stop(self) -> None:
        """Begin to stop: set `stopping`, call what `on_stop` was given. Any thread; only the first call counts."""
        with self._lock:
            if self.stopping.is_set():
                return
            self.stopping.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once, in another thread, when the role is to stop; at once if it is stopping."""
        with self._lock:
            if not self.stopping.is_set():
                self._callbacks.append(callback)
                return
        callback()

    async def run_until_stop(self) -> None:
        """For asyncio: returns when the role is to stop, and says `alive` meanwhile."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self.on_stop(lambda: loop.is_closed() or loop.call_soon_threadsafe(stopped.set))
        while not stopped.is_set():
            self.alive()
            try:
                await asyncio.wait_for(stopped.wait(), ALIVE_EVERY_S)
            except TimeoutError:
                continue

    def _watch(self) -> None:
        """Stop-watcher thread: waits for SIGTERM or for the end of stdin."""
        stdin = sys.stdin.fileno()
        while True:
            readable, _, _ = select.select([stdin, self._signal_in], [], [])
            if self._signal_in in readable:
                os.read(self._signal_in, 64)
                self.stop()
            if stdin in readable and not os.read(stdin, 4096):
                break
        self.stop()
        time.sleep(ORPHAN_GRACE_S)
        log.error("the supervisor is gone and this role did not stop in %g s: ending it", ORPHAN_GRACE_S)
        os._exit(EXIT_ORPHAN)

    # ---------------------------------------------------------------- the process's edge

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The role's edge: whatever was raised is logged and reported, and ends the process with status 1."""
        if error is None or isinstance(error, SystemExit):
            return
        log.error("%s gives up", self.name, exc_info=error)
        self.failed(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)
