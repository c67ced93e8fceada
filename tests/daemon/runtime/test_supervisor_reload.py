"""Roles that are added, told of settings and released while the others run."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime.role_process import SETTINGS, RoleSpec
from glowd.daemon.runtime.status import NewLevel, NewSettings
from glowd.daemon.runtime.supervisor import StartError, Supervisor
from tests.daemon.runtime.test_optional_roles import FAILS, READS_NEWS, WAITS, role
from tests.daemon.runtime.test_supervisor import LINES, QUICK, Make, exists, spec, supervise, until

__all__ = ["supervise"]

APPLIES = LINES + (
    f"report(ready=dict(pid=os.getpid(), settings=os.environ.get({SETTINGS!r}, '')))\n"
    "for line in sys.stdin:\n"
    "    news = json.loads(line)\n"
    "    if 'settings' in news: report(applied=news['number']); report(released=news['settings'])\n"
)
SAYS_PID = WAITS.replace("ready={}", "ready=dict(pid=os.getpid())")
DEAF = LINES + "report(ready=dict(pid=os.getpid()))\nsys.stdin.read()"


async def started(supervise: Make, gateway: str = APPLIES) -> tuple[Supervisor, dict[str, RoleSpec]]:
    """A gateway and an engine."""
    specs = {"gateway": role("gateway", gateway, news=True), "engine:a": role("engine:a", SAYS_PID)}
    roles = supervise([specs["gateway"]], [specs["engine:a"]])
    await roles.start()
    return roles, specs


async def test_added_role_is_ready_and_restarted_like_others(supervise: Make) -> None:
    roles, _ = await started(supervise)
    await roles.add([role("engine:b", SAYS_PID, optional=True)], 1)
    pid = roles.info("engine:b")["pid"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: roles.info("engine:b")["pid"] != pid)
    await roles.stop()
    assert not exists(roles.info("engine:b")["pid"])


async def test_role_that_cannot_be_added_leaves_nothing(supervise: Make) -> None:
    """Even an optional one: it would have to work before a reload replaces what works."""
    roles, _ = await started(supervise)
    with pytest.raises(StartError, match="engine:c could not start: no home for its cache"):
        await roles.add([role("engine:b", SAYS_PID), role("engine:c", FAILS, optional=True)], 1)
    assert not roles.has("engine:b") and not roles.has("engine:c") and roles.has("engine:a")
    await roles.stop()


async def test_settings_are_taken_over_and_roles_released(supervise: Make) -> None:
    roles, specs = await started(supervise)
    pid = roles.info("engine:a")["pid"]
    roles.use({"gateway": specs["gateway"]}, QUICK)
    assert await roles.tell_settings(NewSettings(1, "engine:a")) == ""
    await until(lambda: not roles.has("engine:a"))
    assert not exists(pid)
    await roles.stop()


async def test_role_that_is_wanted_is_not_released(supervise: Make) -> None:
    roles, specs = await started(supervise)
    roles.use(specs, QUICK)
    assert await roles.tell_settings(NewSettings(1, "engine:a")) == ""
    assert await roles.tell_settings(NewSettings(2, "engine:a")) == ""
    assert roles.has("engine:a")
    await roles.stop()


async def test_restarted_gateway_has_the_new_settings(supervise: Make) -> None:
    """It dies with the old ones; the new process needs nothing told, and knows no stream of a role that is not wanted."""
    roles, _ = await started(supervise, DEAF)
    roles.use({"gateway": replace(spec("gateway", APPLIES), wants_news=True, settings="new")}, QUICK)
    telling = asyncio.create_task(roles.tell_settings(NewSettings(1, "")))
    await asyncio.sleep(0.1)
    os.kill(roles.info("gateway")["pid"], signal.SIGKILL)
    assert await telling == "" and roles.info("gateway")["settings"] == "new"
    await until(lambda: not roles.has("engine:a"))
    await roles.stop()


async def test_gateway_that_does_not_answer_is_said(supervise: Make) -> None:
    roles, specs = await started(supervise, DEAF)
    roles.use(specs, SupervisorSettings(ready_timeout_s=0.3))
    said = await roles.tell_settings(NewSettings(1, ""))
    assert said == "gateway has not taken over the settings within 0.3 s; it will when all engines answer"
    await roles.stop()


async def test_every_role_is_told_the_level(supervise: Make, tmp_path: Path) -> None:
    path = tmp_path / "news"
    roles = supervise([role("gateway", READS_NEWS.format(path=str(path)))])
    await roles.start()
    roles.tell_all(NewLevel("debug"))
    await until(lambda: path.exists() and path.read_text() == '{"level": "debug"}\n')
    await roles.stop()


async def test_nothing_is_added_while_the_daemon_stops(supervise: Make) -> None:
    roles, _ = await started(supervise)
    roles.request_stop()
    with pytest.raises(StartError, match="the daemon is stopping"):
        await roles.add([role("engine:b", SAYS_PID)], 1)
    await roles.stop()
