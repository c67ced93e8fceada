"""One process of a role, from its start to its end, as the supervisor sees it.

Rules: asyncio; knows the process and its status lines (status.py), not whether it is started again. A supervisor that was
itself stopped does not hold the silence against the process: it has not read the lines that wait in the pipe.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime import status
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.flow.recognition.printable import escaped

MAX_STATUS_BYTES = 1 << 20
SETTINGS = "GLOWD_SETTINGS"
"""The environment variable in which a role gets its settings."""
LOOK_EVERY_S = 0.25
"""How often it is checked whether the process is silent."""

log = logging.getLogger("glowd")


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A role to run: its name in logs, the command that starts it, and its settings (config_reader.as_text).

    `is_optional`: the daemon starts without it if it cannot start. `wants_news`: it is told how the other roles are.
    """

    name: str
    command: tuple[str, ...]
    is_optional: bool = False
    wants_news: bool = False
    settings: str = ""


class RoleProcess:
    """A running process. `on_ready` gets what it reports when it is ready, `on_status` what else it reports."""

    def __init__(
        self,
        spec: RoleSpec,
        settings: SupervisorSettings,
        process: Process,
        on_ready: Callable[[Mapping[str, Any]], object],
        on_status: Callable[[status.Status], object] = lambda _: None,
    ) -> None:
        self._spec, self._settings, self._process = spec, settings, process
        self._on_ready, self._on_status = on_ready, on_status
        self.is_ready = self.is_refused = False
        """Whether it has been ready; whether it gave up because it can run nowhere as it is configured."""
        clock = AwakeClock()
        self._starting, self._silence = Silence(clock), Silence(clock)
        self._started_s = time.monotonic()
        self._reason = ""

    @classmethod
    async def start(
        cls,
        spec: RoleSpec,
        settings: SupervisorSettings,
        on_ready: Callable[[Mapping[str, Any]], object],
        on_status: Callable[[status.Status], object] = lambda _: None,
    ) -> "RoleProcess":
        """Start the command. Raises OSError if it cannot be run."""
        process = await asyncio.create_subprocess_exec(
            *spec.command,
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_STATUS_BYTES,
            env={**os.environ, SETTINGS: spec.settings} if spec.settings else None,
            process_group=0,  # Ctrl-C at the terminal is for the supervisor alone, which stops the roles in order
        )
        return cls(spec, settings, process, on_ready, on_status)

    @property
    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started_s

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def tell(self, news: status.News) -> None:
        """Write news to its standard input; a process that has ended needs none."""
        assert self._process.stdin
        if not self._process.stdin.is_closing():
            self._process.stdin.write(status.encode_news(news))

    async def run_to_end(self) -> str:
        """Read its status lines until it has ended, and kill it if it hangs; returns why it ended."""
        watchdog = asyncio.create_task(self._watch())
        await self._read_status()
        await self._process.wait()
        watchdog.cancel()
        assert self._process.stdin
        self._process.stdin.close()
        return self._end_reason()

    def _end_reason(self) -> str:
        """The reason that the process or the watchdog gave, else the exit status."""
        if self._reason:
            return escaped(self._reason)
        code = self._process.returncode or 0
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with status {code} and gave no reason; see the log"

    def _kill(self, reason: str) -> None:
        self._reason = f"{reason} and was killed"
        self.signal(signal.SIGKILL)

    async def _read_status(self) -> None:
        assert self._process.stdout
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # asyncio raises it for a line over the limit
                self._kill(f"it wrote a status line of more than {MAX_STATUS_BYTES} bytes")
                return
            if not line:
                return
            self._silence.end()
            self._on_line(line)

    def _on_line(self, line: bytes) -> None:
        match status.parse(line):
            case status.Failed(text, settings):
                self._reason, self.is_refused = text, settings
            case status.Ready(info):
                self.is_ready = True
                log.info("%s is ready after %.1f s", self._spec.name, self.age_s)
                self._on_ready(info)
            case status.Alive() | status.Applied() | status.Released() | status.Nodes() as report:
                self._on_status(report)
            case None:
                log.warning("%s wrote a line that is not a status: %.200r", self._spec.name, line)

    async def _watch(self) -> None:
        """Kill a process that does not become ready, or that is ready and reports nothing more."""
        while not (reason := self._why_kill()):
            await asyncio.sleep(LOOK_EVERY_S)
        self._kill(reason)

    def _why_kill(self) -> str:
        """Why the process must be killed; "" while it need not be."""
        ready_timeout_s, watchdog_s = self._settings.ready_timeout_s, self._settings.watchdog_s
        if not self.is_ready and self._starting.seconds > ready_timeout_s:
            return f"it was not ready within {ready_timeout_s:g} s (supervisor.ready_timeout_s)"
        if self.is_ready and self._silence.seconds > watchdog_s:
            return f"it reported nothing for {watchdog_s:g} s (supervisor.watchdog_s)"
        return ""
