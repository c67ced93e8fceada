"""What every role process shares: how it starts, reports its status, and stops.

The supervisor starts a role as `python -m glowd.daemon.ROLE --run-dir D [--config F] [--engine NAME] [--set KEY=VALUE]...`, and
gives it the settings that it has read in $GLOWD_SETTINGS: the file may have changed since.
Rules between the two:
- Standard output has the role's status lines (status.py). Whatever else the process prints goes to standard error: the log.
- Standard input has news of the other roles, for a role that asks for them. Its end means that the supervisor is gone: the
  role stops. If it has not stopped within ORPHAN_GRACE_S, it ends at once.
- SIGTERM means stop. SIGINT is ignored: only the supervisor reacts to Ctrl-C, because it stops the roles in order.

    with Role.start("speaker") as role:
        ...
        role.ready(device="pulse")
        while not role.stopping.wait(0.5):
            role.alive()
"""

import argparse
import logging
import os
import queue
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glowd.daemon.config import Config, ConfigError
from glowd.daemon.config_reader import from_text, load
from glowd.daemon.runtime import status
from glowd.daemon.runtime.logs import setup_logging
from glowd.daemon.runtime.role_process import SETTINGS
from glowd.daemon.runtime.system import set_niceness
from glowd.daemon.wire.liveness import AwakeClock, Silence

ALIVE_EVERY_S = 1.0
NICENESS = {"speaker": -12, "gateway": -11, "engine": -8, "web": -5}
"""Live sound comes before the machine's other work, if the system allows it."""
ORPHAN_GRACE_S, LOOK_EVERY_S = 5.0, 0.1
EXIT_FAILED, EXIT_ORPHAN = 1, 70

RoleNews = status.RoleState | status.NewSettings | status.Nodes

log = logging.getLogger("glowd")


def config_arguments() -> argparse.ArgumentParser:
    """The arguments that choose a configuration; a parent parser for roles and for glowd."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help="file of settings, such as config.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: server.max_streams=4"
    )
    return parser


class CannotStart(Exception):
    """A role cannot do its work, for the reason in the text, which is for people. `settings`: it could not anywhere."""

    def __init__(self, text: str, settings: bool = False) -> None:
        super().__init__(text)
        self.settings = settings


class Role:
    """A running role process. Owner: its main thread; `stopping` is for any thread."""

    def __init__(self, name: str, config: Config, run_dir: Path, engine: str, is_trial: bool = False) -> None:
        self.name, self.config, self.run_dir, self.engine, self.is_trial = name, config, run_dir, engine, is_trial
        self.instance = secrets.randbits(48)
        """Identifies this process, so that the gateway notices that a role was restarted."""
        self.stopping = threading.Event()
        self._news: queue.SimpleQueue[RoleNews] = queue.SimpleQueue()
        self.started_s = time.monotonic()
        self._alive_at_s = 0.0
        self._status_fd = os.dup(sys.stdout.fileno())
        os.set_blocking(self._status_fd, False)
        self._signal_in, self._signal_out = os.pipe()

    @classmethod
    def start(cls, name: str, argv: Sequence[str] | None = None) -> "Role":
        """Parse the arguments, take over signals, stdin and stdout. A wrong configuration exits with a `failed` line."""
        parser = argparse.ArgumentParser(prog=f"python -m glowd.daemon.{name}", parents=[config_arguments()])
        parser.add_argument(
            "--run-dir", type=Path, required=True, metavar="DIR", help="directory of the daemon's sockets"
        )
        parser.add_argument("--engine", default="", metavar="NAME", help="engine: its name in the configuration")
        parser.add_argument("--trial", action="store_true", help="engine: end when it is ready, without a gateway")
        arguments = parser.parse_args(argv)
        try:
            text = os.environ.pop(SETTINGS, "")
            config = from_text(text) if text else load(arguments.config, arguments.set)
            if arguments.engine and arguments.engine not in config.engines:
                raise ConfigError(f"there is no engine {arguments.engine}; known: {', '.join(config.engines)}")
        except ConfigError as error:
            sys.stdout.buffer.write(status.encode(status.Failed(str(error))))
            sys.exit(EXIT_FAILED)
        setup_logging(arguments.engine or name, "error" if arguments.trial else config.log.level)
        set_niceness(NICENESS.get(name, 0))
        role = cls(name, config, arguments.run_dir.absolute(), arguments.engine, arguments.trial)
        role._take_over()
        return role

    def _take_over(self) -> None:
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not mix with the status lines
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._watch, name="stop-watcher", daemon=True).start()

    def _on_signal(self, *_: Any) -> None:
        os.write(self._signal_out, b"T")  # no lock here: a handler may interrupt the thread that holds it

    # ---------------------------------------------------------------- status

    def ready(self, **info: Any) -> None:
        """Report that this role can work. `glowd` shows `info`."""
        self._report(status.Ready(info))

    def alive(self, stall: str = "") -> None:
        """Report that the main loop runs. Call it in every step of the loop: a line is written once a second."""
        now_s = time.monotonic()
        if now_s - self._alive_at_s >= ALIVE_EVERY_S:
            self._alive_at_s = now_s
            self._report(status.Alive(stall))

    def failed(self, text: str, settings: bool = False) -> None:
        """Report why this role is about to give up. `settings`: it can run nowhere as it is configured."""
        self._report(status.Failed(text, settings))

    def applied(self, number: int) -> None:
        """Report that the settings of a reload are used."""
        self._report(status.Applied(number))

    def released(self, role: str) -> None:
        """Report that no stream needs a role that the settings do not have any more."""
        self._report(status.Released(role))

    def nodes(self, nodes: Mapping[str, Any]) -> None:
        """Report the nodes of the Ray cluster, as maps of NodeSnapshot."""
        self._report(status.Nodes(nodes))

    def news(self) -> "list[RoleNews]":
        """What the supervisor has said of the roles and of new settings since the last call, in order."""
        taken = []
        while not self._news.empty():
            taken.append(self._news.get())
        return taken

    def _report(self, message: status.Status) -> None:
        try:
            os.write(self._status_fd, status.encode(message))
        except BrokenPipeError:  # the supervisor is gone
            self.stopping.set()
        except BlockingIOError:  # it is stopped, and has an hour of lines to read: the role goes on without it
            log.debug("the supervisor does not read")

    # ---------------------------------------------------------------- stopping

    def _watch(self) -> None:
        """Stop-watcher thread: waits for SIGTERM, for news, and for the end of stdin."""
        stdin, rest = sys.stdin.fileno(), b""
        while True:
            readable, _, _ = select.select([stdin, self._signal_in], [], [])
            if self._signal_in in readable:
                os.read(self._signal_in, 64)
                self.stopping.set()
            if stdin in readable:
                if not (data := os.read(stdin, 4096)):
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if news := status.parse_news(line):
                        self._take(news)
        self.stopping.set()
        waited = Silence(AwakeClock())
        while waited.seconds < ORPHAN_GRACE_S:
            time.sleep(LOOK_EVERY_S)
        log.error("the supervisor is gone and this role did not stop within %g s: ending it", ORPHAN_GRACE_S)
        os._exit(EXIT_ORPHAN)

    def _take(self, news: status.News) -> None:
        if isinstance(news, status.NewLevel):
            logging.getLogger().setLevel(news.level.upper())
        else:
            self._news.put(news)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The edge of the process: an exception is logged and reported, and ends the process with status 1."""
        if error is None or isinstance(error, SystemExit):
            return
        if isinstance(error, CannotStart):  # the supervisor logs the reason
            self.failed(str(error), error.settings)
            sys.exit(EXIT_FAILED)
        log.error("%s gives up", self.name, exc_info=error)
        self.failed(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)
