"""The supervisor: starts the roles in order, watches them, starts again what died, stops them in mirror order.

Rules: knows processes and their status lines (role.py has the contract), nothing of what a role does; asyncio, one task for
each role. A role that fails during the first start stops the daemon, with its last words, because a daemon that half works
is worse than one that says why it does not; afterwards a role that dies or falls silent is started again, with back-off.
No role outlives this process: each holds its stdin and stops when that ends.
"""

import asyncio
import contextlib
import json
import logging
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glowd.daemon.config import Supervisor as Settings
from glowd.daemon.runtime.role import plain

BACK_OFF_S, MAX_BACK_OFF_S = 0.2, 5.0
HEALTHY_S = 30.0
"""A role that ran as long as this before it died is started again without delay, as if for the first time."""
MAX_STATUS_BYTES = 1 << 20

log = logging.getLogger("glowd")


class StartError(Exception):
    """A role could not be started. The text names the role and gives its last words."""


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A role to run: its name in logs, and the command that starts it."""

    name: str
    command: tuple[str, ...]


@dataclass(slots=True)
class Life:
    """One process of a role, from start to death. Owner: the role's task."""

    process: Process
    started_s: float = field(default_factory=time.monotonic)
    heard_s: float = field(default_factory=time.monotonic)
    last_words: str = ""
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.started_s

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def describe_death(self) -> str:
        """Why it ended: what it said itself, else its exit status."""
        if self.last_words:
            return plain(self.last_words)
        code = self.process.returncode or 0
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with status {code} and gave no reason; the log may"


class SupervisedRole:
    """Keeps one role running until `stop`."""

    def __init__(self, spec: RoleSpec, settings: Settings) -> None:
        self.spec, self.settings = spec, settings
        self.info: dict[str, Any] = {}
        self.restarts = 0
        self._first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life: Life | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {spec.name}")

    async def wait_ready(self) -> None:
        """Wait until the role first says ready. Raises StartError if it dies or does not within `ready_timeout_s`."""
        await self._first_ready

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Returns when the process is gone."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=self.settings.grace_s)
        if not done:
            log.warning("%s did not stop within %g s: killing it", self.spec.name, self.settings.grace_s)
            self.kill()
        await self._task

    def kill(self) -> None:
        """End the process at once, for good."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._life:
            self._life.signal(number)

    # ---------------------------------------------------------------- the role's task

    async def _keep_running(self) -> None:
        back_off_s = BACK_OFF_S
        while not self._stopping.is_set():
            age_s, death = await self._live()
            if self._stopping.is_set():
                break
            if not self._first_ready.done():
                self._first_ready.set_exception(StartError(f"{self.spec.name} could not start: {death}"))
                break
            back_off_s = BACK_OFF_S if age_s >= HEALTHY_S else back_off_s
            log.error("%s died: %s; starting it again in %.1f s", self.spec.name, death, back_off_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), back_off_s)
            back_off_s = min(back_off_s * 2, MAX_BACK_OFF_S)
            self.restarts += 1
        self._first_ready.cancel()

    async def _live(self) -> tuple[float, str]:
        """Run one process of the role to its end; returns its age in seconds and why it died."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=PIPE,
                stdout=PIPE,
                limit=MAX_STATUS_BYTES,
                process_group=0,  # a Ctrl-C at the terminal is for the supervisor, which has an order
            )
        except OSError as error:
            return 0.0, f"{self.spec.command[0]} cannot be run: {error.strerror}"
        life = self._life = Life(process)
        if self._stopping.is_set():  # a stop that came while the process was being made
            life.signal(signal.SIGTERM)
        watchdog = asyncio.create_task(self._watchdog(life))
        await self._listen(life)
        await process.wait()
        watchdog.cancel()
        assert process.stdin
        process.stdin.close()
        return life.age_s, life.describe_death()

    async def _listen(self, life: Life) -> None:
        assert life.process.stdout
        while True:
            try:
                line = await life.process.stdout.readline()
            except ValueError:  # asyncio's word for a line over the limit
                life.last_words = f"it wrote a status line of more than {MAX_STATUS_BYTES} bytes and was killed"
                life.signal(signal.SIGKILL)
                return
            if not line:
                return
            life.heard_s = time.monotonic()
            if (status := _parse(line)) is None:
                log.warning("%s wrote something that is not a status line: %.200r", self.spec.name, line)
            else:
                self._on_status(life, status)

    def _on_status(self, life: Life, status: dict[str, Any]) -> None:
        if "failed" in status:
            life.last_words = str(status["failed"])
        if "ready" in status:
            life.ready.set()
            self.info = status["ready"] if isinstance(status["ready"], dict) else {}
            log.info("%s is ready after %.1f s", self.spec.name, life.age_s)
            if not self._first_ready.done():
                self._first_ready.set_result(None)

    async def _watchdog(self, life: Life) -> None:
        """Kill a process that does not become ready, or that is ready and falls silent."""
        ready_timeout_s, watchdog_s = self.settings.ready_timeout_s, self.settings.watchdog_s
        try:
            await asyncio.wait_for(life.ready.wait(), ready_timeout_s)
            while (left_s := life.heard_s + watchdog_s - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            life.last_words = f"it fell silent for {watchdog_s:g} s (supervisor.watchdog_s) and was killed"
        except TimeoutError:
            life.last_words = f"it was not ready for {ready_timeout_s:g} s (supervisor.ready_timeout_s) and was killed"
        life.signal(signal.SIGKILL)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        status = json.loads(line)
    except ValueError:
        return None
    return status if isinstance(status, dict) else None


class Supervisor:
    """All roles of the daemon."""

    def __init__(self, stages: Sequence[Sequence[RoleSpec]], settings: Settings) -> None:
        """`stages` start one after the other, the roles of a stage together."""
        self.stages, self.settings = stages, settings
        self.roles: list[list[SupervisedRole]] = []
        self._stop_requested = asyncio.Event()

    def info(self, role: str) -> dict[str, Any]:
        """What the role said with its last `ready`; {} for one that is not configured."""
        return next((found.info for stage in self.roles for found in stage if found.spec.name == role), {})

    def request_stop(self) -> None:
        """What SIGINT and SIGTERM do: the first asks every role to stop, the second ends them at once."""
        if self._stop_requested.is_set():
            log.warning("told to stop twice: killing what still runs")
            for role in (role for stage in self.roles for role in stage):
                role.kill()
        self._stop_requested.set()

    async def run(self, on_ready: Callable[[], object]) -> None:
        """Start, call `on_ready`, wait for `request_stop`, stop. Raises StartError; leaves nothing running."""
        stop = asyncio.create_task(self._stop_requested.wait())
        start = asyncio.create_task(self.start())
        await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            on_ready()
            await stop
            await self.stop()
        else:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)

    async def start(self) -> None:
        """Start all stages; returns when every role is ready. Raises StartError, and leaves nothing running then."""
        try:
            for stage in self.stages:
                self.roles.append([SupervisedRole(spec, self.settings) for spec in stage])
                await asyncio.gather(*(role.wait_ready() for role in self.roles[-1]))
        except BaseException:  # a cancelled start, too, leaves nothing running
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all roles in mirror order; returns when no process is left."""
        for stage in reversed(self.roles):
            await asyncio.gather(*(role.stop() for role in stage))
