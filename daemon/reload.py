"""Reloading the settings while streams run: all of what can take effect does, or nothing.

Rules: asyncio, in the supervisor's process. reload_plan.py says what changes; here it is carried out, in this order:
1. The settings are read and checked. 2. The engines of voices that are new or changed start, and become ready. A fault in 1 or 2
leaves all as it was. 3. The gateway takes over the settings; from then on new streams get the new voices. 4. An engine that is
not wanted any more stops when its last stream is closed.
"""

import asyncio
import logging
from collections.abc import Callable

from glowd.daemon.config import Config, ConfigError
from glowd.daemon.config_reader import as_text
from glowd.daemon.reload_plan import Plan, plan_reload
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.service_manager import ServiceManager
from glowd.daemon.runtime.status import NewLevel, NewSettings
from glowd.daemon.runtime.supervisor import StartError, Supervisor
from glowd.daemon.wire.admin import Reloaded

ENGINES = 1
"""The stage of the engines: after the gateway (app.stages)."""

log = logging.getLogger("glowd")


class Reloader:
    """Reloads the settings on request, one request after the other. Owner of the configuration that is in force."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        stages: Callable[[Config], list[list[RoleSpec]]],
        supervisor: Supervisor,
        manager: ServiceManager,
        describe: Callable[[Config], str],
    ) -> None:
        """`read` reads the settings again and raises ConfigError; `stages` are the roles of a configuration."""
        self._describe = describe
        self.config, self._read, self._stages = config, read, stages
        self._supervisor, self._manager = supervisor, manager
        self._number, self._lock = 0, asyncio.Lock()
        self.can_start = asyncio.Event()
        """Set when the daemon is ready: reloads wait for it."""

    async def reload(self) -> Reloaded:
        """Reload; returns what was changed, or why nothing was."""
        await self.can_start.wait()
        async with self._lock:
            self._manager.reloading()
            try:
                plan = plan_reload(self.config, self._read())
                await self._start_engines(plan.config)
                return _told(plan, await self._take_over(plan))
            except (ConfigError, StartError) as error:
                log.error("the settings were not reloaded, and all is as it was: %s", error)
                return Reloaded(ok=False, text=str(error))
            finally:
                self._manager.ready(self._describe(self.config))

    async def _start_engines(self, config: Config) -> None:
        """Start the engines that do not run yet. Raises StartError, and then nothing has changed."""
        engines = self._stages(config)[ENGINES]
        await self._supervisor.add([spec for spec in engines if not self._supervisor.has(spec.name)], ENGINES)

    async def _take_over(self, plan: Plan) -> str:
        """Put the new settings in force; returns what is not done yet, "" if all is."""
        if plan.is_empty:
            return ""
        self._number, self.config = self._number + 1, plan.config
        specs = {spec.name: spec for stage in self._stages(plan.config) for spec in stage}
        self._supervisor.use(specs, plan.config.supervisor)
        logging.getLogger().setLevel(plan.config.log.level.upper())
        self._supervisor.tell_all(NewLevel(plan.config.log.level))
        new = NewSettings(self._number, as_text(plan.config))
        self._supervisor.tell_role("cluster", new)
        return await self._supervisor.tell_settings(new)


def _told(plan: Plan, late: str) -> Reloaded:
    told = Reloaded(
        ok=not late,
        text=late,
        settings=list(plan.settings),
        added=list(plan.added),
        removed=list(plan.removed),
        changed=list(plan.changed),
        needs_restart=list(plan.needs_restart),
    )
    log.info("reloaded the settings: %s", "; ".join([*told.lines(), *([late] if late else [])]))
    return told
