"""The supervisor: starts the roles in order, restarts those that end, and stops all in reverse order.

Rules: asyncio, one task for each role; what a role does is not known here. A role that fails at the first start stops the
daemon, with the role's own reason, because a daemon that half works is worse than one that says why it does not. Later, a
role that ends or hangs is restarted after a pause that grows. No role outlives this process: each has its stdin from here
and stops when that ends.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime.role_process import RoleProcess, RoleSpec

BACK_OFF_S, MAX_BACK_OFF_S = 0.2, 5.0
HEALTHY_S = 30.0
"""The pause before a restart is the shortest again after a role has run this long."""

log = logging.getLogger("glowd")


class StartError(Exception):
    """A role could not be started. The text names the role and the reason."""


class SupervisedRole:
    """Keeps one role running until `stop`. `info` is what it reported when it was last ready."""

    def __init__(self, spec: RoleSpec, settings: SupervisorSettings) -> None:
        self.spec, self.settings = spec, settings
        self.info: Mapping[str, Any] = {}
        self._first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process: RoleProcess | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {spec.name}")

    async def wait_ready(self) -> None:
        """Wait until the role is ready for the first time. Raises StartError if it ends before, or takes too long."""
        await self._first_ready

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Returns when the process has ended."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=self.settings.grace_s)
        if not done:
            log.warning("%s did not stop within %g s: killing it", self.spec.name, self.settings.grace_s)
            self.kill()
        await self._task

    def kill(self) -> None:
        """End the process at once, without a restart."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.signal(number)

    # ---------------------------------------------------------------- the role's task

    async def _keep_running(self) -> None:
        back_off_s = BACK_OFF_S
        while not self._stopping.is_set():
            age_s, reason = await self._run_once()
            if self._stopping.is_set():
                break
            if not self._first_ready.done():
                self._first_ready.set_exception(StartError(f"{self.spec.name} could not start: {reason}"))
                break
            back_off_s = BACK_OFF_S if age_s >= HEALTHY_S else back_off_s
            log.error("%s ended: %s; restarting it in %.1f s", self.spec.name, reason, back_off_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), back_off_s)
            back_off_s = min(back_off_s * 2, MAX_BACK_OFF_S)
        self._first_ready.cancel()

    async def _run_once(self) -> tuple[float, str]:
        """Run one process of the role to its end; returns its age in seconds and why it ended."""
        try:
            process = self._process = await RoleProcess.start(self.spec, self.settings, self._on_ready)
        except OSError as error:
            return 0.0, f"{self.spec.command[0]} cannot be run: {error.strerror}"
        if self._stopping.is_set():  # a stop that came while the process was being started
            process.signal(signal.SIGTERM)
        reason = await process.run_to_end()
        return process.age_s, reason

    def _on_ready(self, info: Mapping[str, Any]) -> None:
        self.info = info
        if not self._first_ready.done():
            self._first_ready.set_result(None)


class Supervisor:
    """All roles of the daemon."""

    def __init__(self, stages: Sequence[Sequence[RoleSpec]], settings: SupervisorSettings) -> None:
        """`stages` start one after the other, the roles of a stage together."""
        self.stages, self.settings = stages, settings
        self.roles: list[list[SupervisedRole]] = []
        self._stop_requested = asyncio.Event()

    def info(self, role: str) -> Mapping[str, Any]:
        """What the role reported when it was last ready; {} for a role that is not configured."""
        return next((found.info for stage in self.roles for found in stage if found.spec.name == role), {})

    def request_stop(self) -> None:
        """For SIGINT and SIGTERM: the first call stops the roles in order, the second kills them at once."""
        if self._stop_requested.is_set():
            log.warning("stop requested twice: killing the roles that still run")
            for role in (role for stage in self.roles for role in stage):
                role.kill()
        self._stop_requested.set()

    async def run(self, on_ready: Callable[[], object]) -> None:
        """Start, call `on_ready`, wait for `request_stop`, stop. Raises StartError; leaves no process behind."""
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
        """Start all stages; returns when every role is ready. Raises StartError; leaves no process behind then."""
        try:
            for stage in self.stages:
                self.roles.append([SupervisedRole(spec, self.settings) for spec in stage])
                await asyncio.gather(*(role.wait_ready() for role in self.roles[-1]))
        except BaseException:  # a start that is cancelled leaves no process behind, either
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all roles in reverse order; returns when every process has ended."""
        for stage in reversed(self.roles):
            await asyncio.gather(*(role.stop() for role in stage))
