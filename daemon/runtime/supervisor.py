"""The supervisor: starts the roles in order, restarts those that end, and stops all in reverse order.

Rules: asyncio, one task for each role; what a role does is not known here. A role that fails at the first start stops the
daemon with the role's own reason, unless the role is optional: then the daemon starts without it and keeps trying. Even an
optional role stops the daemon if it says that other settings are the only remedy: they are refused, as every wrong setting.
Later, a role that ends or hangs is restarted after a pause that grows. Roles that want news are told how the others are. No
role outlives this process: each has its stdin from here and stops when that ends.
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime.role_process import LOOK_EVERY_S, RoleProcess, RoleSpec
from glowd.daemon.runtime.service_manager import ServiceManager
from glowd.daemon.runtime.status import (
    AWAY,
    LOADING,
    READY,
    Alive,
    Applied,
    News,
    NewSettings,
    Nodes,
    Released,
    RoleState,
    Status,
)
from glowd.daemon.wire.liveness import AwakeClock, Silence

BACK_OFF_S, MAX_BACK_OFF_S = 0.2, 5.0
RETRY_S, MAX_RETRY_S = 5.0, 300.0
"""The pauses of a role that has never been ready: each attempt loads a voice, and takes time from those that work."""
HEALTHY_S = 30.0
"""The pause before a restart is the shortest again after a role has run this long."""

log = logging.getLogger("glowd")


class StartError(Exception):
    """A role could not be started. The text names the role and the reason."""


class SupervisedRole:
    """Keeps one role running until `stop`. `on_change` is called whenever its `state` changes, `on_status` for other reports."""

    def __init__(
        self,
        spec: RoleSpec,
        settings: SupervisorSettings,
        on_change: Callable[["SupervisedRole"], object],
        on_status: Callable[["SupervisedRole", Status], object],
    ) -> None:
        self.spec, self.settings, self._on_change, self._on_status = spec, settings, on_change, on_status
        self.info: Mapping[str, Any] = {}
        """What it reported when it was last ready."""
        self.state = RoleState(spec.name, LOADING)
        self._first_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_been_ready, self._pause_s = False, BACK_OFF_S
        self._process: RoleProcess | None = None
        self.starts = 0
        """How many processes of it were started."""
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {spec.name}")

    async def wait_started(self) -> None:
        """Wait until the role is ready for the first time, or is away and optional. Raises StartError."""
        await self._first_end

    def tell(self, news: News) -> None:
        """Tell the role something, if it runs."""
        if self._process:
            self._process.tell(news)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Returns when the process has ended."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if not await self._ends_within(self.settings.grace_s):
            log.warning("%s did not stop within %g s: killing it", self.spec.name, self.settings.grace_s)
            self.kill()
        await self._task

    async def _ends_within(self, seconds: float) -> bool:
        """Whether the role's task ends in time; only the time counts in which this process ran."""
        waited = Silence(AwakeClock())
        while not self._task.done() and (left_s := seconds - waited.seconds) > 0:
            await asyncio.wait([self._task], timeout=min(left_s, LOOK_EVERY_S))
        return self._task.done()

    def kill(self) -> None:
        """End the process at once, without a restart."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.signal(number)

    # ---------------------------------------------------------------- the role's task

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            process, reason = await self._run_once()
            if self._stopping.is_set() or self._gives_up(process, reason):
                break
            await self._pause(process, reason)
        self._first_end.cancel()

    async def _run_once(self) -> tuple[RoleProcess | None, str]:
        """Run one process of the role to its end; returns it (None: it could not be run) and why it ended."""
        try:
            process = self._process = await RoleProcess.start(
                self.spec, self.settings, self._on_ready, partial(self._on_status, self)
            )
        except OSError as error:
            return None, f"{self.spec.command[0]} cannot be run: {error.strerror}"
        self.starts += 1
        if self._stopping.is_set():  # a stop that came while the process was being started
            process.signal(signal.SIGTERM)
        self._change(LOADING, self.state.reason)
        return process, await process.run_to_end()

    def _gives_up(self, process: RoleProcess | None, reason: str) -> bool:
        """After the first process: whether the daemon cannot start for it."""
        if self._first_end.done():
            return False
        if self.spec.is_optional and not (process and process.is_refused):
            self._first_end.set_result(None)
            return False
        self._first_end.set_exception(StartError(f"{self.spec.name} could not start: {reason}"))
        return True

    async def _pause(self, process: RoleProcess | None, reason: str) -> None:
        """Say why the process ended, and wait: longer each time, and longest for one that cannot start."""
        was_ready = process is not None and process.is_ready
        if process and was_ready and process.age_s >= HEALTHY_S:
            self._pause_s = BACK_OFF_S
        if not self._has_been_ready:
            self._pause_s = max(self._pause_s, RETRY_S)
        what, again = ("ended", "restarting it") if was_ready else ("could not start", "trying again")
        log.error("%s %s: %s; %s in %.1f s", self.spec.name, what, reason, again, self._pause_s)
        self._change(AWAY, reason)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._pause_s)
        self._pause_s = min(self._pause_s * 2, MAX_BACK_OFF_S if was_ready else MAX_RETRY_S)

    def _on_ready(self, info: Mapping[str, Any]) -> None:
        self.info, self._has_been_ready = info, True
        self._change(READY)
        if not self._first_end.done():
            self._first_end.set_result(None)

    def _change(self, state: str, reason: str = "") -> None:
        self.state = RoleState(self.spec.name, state, reason)
        self._on_change(self)


class Supervisor:
    """All roles of the daemon."""

    def __init__(
        self,
        stages: Sequence[Sequence[RoleSpec]],
        settings: SupervisorSettings,
        manager: ServiceManager = ServiceManager(),
    ) -> None:
        """`stages` start one after the other, the roles of a stage together."""
        self.stages, self.settings, self._manager = stages, settings, manager
        self.roles: list[list[SupervisedRole]] = []
        self._stop_requested = asyncio.Event()
        self._not_wanted: set[str] = set()
        """Roles that a reload has left without settings of their own; streams may still need them."""
        self._told: tuple[int, int] = (0, 0)
        """The number of the newest settings that were told, and how often the role that was told had been started then."""
        self._applied = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    def info(self, role: str) -> Mapping[str, Any]:
        """What the role reported when it was last ready; {} for a role that is not configured."""
        return next((found.info for stage in self.roles for found in stage if found.spec.name == role), {})

    def state(self, role: str) -> RoleState:
        """How the role is. Raises LookupError for one that was not started."""
        for found in (found for stage in self.roles for found in stage):
            if found.spec.name == role:
                return found.state
        raise LookupError(f"role {role} was not started")

    def _on_change(self, changed: SupervisedRole) -> None:
        """Tell the roles that want news; one that has just been started is told everything."""
        self._manager.changed(changed.state)
        for role in (role for stage in self.roles for role in stage):
            if role.spec.wants_news and role is not changed:
                role.tell(changed.state)
            if changed.spec.wants_news:
                changed.tell(role.state)

        if changed.spec.wants_news and changed.state.state == READY and changed.starts > self._told[1]:
            self._applied.set()  # it was started with the newest settings, and knows nothing of roles that these do not have
            for name in list(self._not_wanted):
                self._release(name)

    def _on_status(self, role: SupervisedRole, status: Status) -> None:
        """A report of the role that wants news, which knows what the others do; and one for it."""
        match status:
            case Alive(stall) if role.spec.wants_news:
                self._manager.pulse(stall)
            case Applied(number) if number == self._told[0]:
                self._applied.set()
            case Released(name) if name in self._not_wanted:
                self._release(name)
            case Nodes():
                for other in (found for stage in self.roles for found in stage if found.spec.wants_news):
                    other.tell(status)

    # ---------------------------------------------------------------- a reload

    def has(self, role: str) -> bool:
        """Whether a role is supervised."""
        return any(found.spec.name == role for stage in self.roles for found in stage)

    async def add(self, specs: Sequence[RoleSpec], stage: int) -> None:
        """Start roles in a stage; returns when each is ready. Raises StartError if one cannot be, and leaves none then."""
        if self._stop_requested.is_set():
            raise StartError("the daemon is stopping")
        added = [self._supervised(dataclasses.replace(spec, is_optional=False)) for spec in specs]
        self.roles[stage].extend(added)
        try:
            await asyncio.gather(*(role.wait_started() for role in added))
        except BaseException:  # a start that is cancelled leaves no process behind, either
            await asyncio.gather(*(self._remove(role) for role in added))
            raise
        for role, spec in zip(added, specs, strict=True):
            role.spec = spec

    def use(self, specs: Mapping[str, RoleSpec], settings: SupervisorSettings) -> None:
        """Restart roles as these say from now on. Those that are not among them run until they are released."""
        self.settings = settings
        for role in (role for stage in self.roles for role in stage):
            role.settings, role.spec = settings, specs.get(role.spec.name, role.spec)
            if role.spec.name not in specs:
                self._not_wanted.add(role.spec.name)

    def tell_all(self, news: News) -> None:
        """Tell every role something."""
        for role in (role for stage in self.roles for role in stage):
            role.tell(news)

    def tell_role(self, name: str, news: News) -> None:
        """Tell one role something; nothing if it is not supervised."""
        for role in (role for stage in self.roles for role in stage if role.spec.name == name):
            role.tell(news)

    async def tell_settings(self, new: NewSettings) -> str:
        """Tell the role that wants news the settings; returns "" when it uses them, or that it does not in time."""
        role = next(role for stage in self.roles for role in stage if role.spec.wants_news)
        self._applied.clear()
        self._told = new.number, role.starts
        role.tell(new)
        try:
            async with asyncio.timeout(self.settings.ready_timeout_s):
                await self._applied.wait()
        except TimeoutError:
            limit_s = self.settings.ready_timeout_s
            return f"{role.spec.name} has not taken over the settings within {limit_s:g} s; it will when all engines answer"
        return ""

    def _release(self, name: str) -> None:
        self._not_wanted.discard(name)
        role = next(role for stage in self.roles for role in stage if role.spec.name == name)
        task = asyncio.create_task(self._remove(role), name=f"release {name}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _remove(self, role: SupervisedRole) -> None:
        await role.stop()
        for stage in self.roles:
            if role in stage:
                stage.remove(role)
        self._manager.forget(role.spec.name)
        log.info("%s has ended: it is not needed any more", role.spec.name)

    # ---------------------------------------------------------------- start and stop

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
        """Start all stages; returns when every role has started. Raises StartError; leaves no process behind then.

        A role has started when it is ready, or away and optional.
        """
        try:
            for stage in self.stages:
                self.roles.append([self._supervised(spec) for spec in stage])
                await asyncio.gather(*(role.wait_started() for role in self.roles[-1]))
        except BaseException:  # a start that is cancelled leaves no process behind, either
            await self.stop()
            raise

    def _supervised(self, spec: RoleSpec) -> SupervisedRole:
        return SupervisedRole(spec, self.settings, self._on_change, self._on_status)

    async def stop(self) -> None:
        """Stop all roles in reverse order; returns when every process has ended."""
        self._manager.stopping()
        for stage in reversed(self.roles):
            await asyncio.gather(*(role.stop() for role in stage))
