"""Roles without which the daemon starts, and what the others are told of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glowd.daemon.runtime import supervisor as module
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.status import RoleState
from glowd.daemon.runtime.supervisor import StartError
from tests.daemon.runtime.test_supervisor import LINES, ROOT, Make, exists, supervise, until
from tests.harness.waiting import WAIT_S

__all__ = ["supervise"]

READS_NEWS = LINES + "report(ready={{}})\nfor line in sys.stdin: open({path!r}, 'a').write(line)"
WAITS = LINES + "report(ready={})\nsys.stdin.read()"
FAILS = LINES + "report(failed='no home for its cache'); sys.exit(1)"
REFUSED = LINES + "report(failed='rate_hz is 0', settings=True); sys.exit(1)"


def role(name: str, script: str, optional: bool = False, news: bool = False) -> RoleSpec:
    return RoleSpec(name, (sys.executable, "-c", script), is_optional=optional, wants_news=news)


def told(path: Path) -> list[tuple[str, str, str]]:
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["role"], line["state"], line["reason"]) for line in lines]


async def test_optional_role_that_cannot_start_is_away(supervise: Make, caplog: pytest.LogCaptureFixture) -> None:
    roles = supervise([role("engine:a", FAILS, optional=True), role("engine:b", WAITS)])
    await roles.start()
    assert roles.state("engine:a") == RoleState("engine:a", "away", "no home for its cache")
    assert roles.state("engine:b").state == "ready"
    assert "engine:a could not start: no home for its cache; trying again in 5.0 s" in caplog.text
    await roles.stop()


async def test_optional_role_with_wrong_settings_stops_daemon(supervise: Make) -> None:
    with pytest.raises(StartError, match="engine:a could not start: rate_hz is 0"):
        await supervise([role("engine:a", REFUSED, optional=True), role("engine:b", WAITS)]).start()


async def test_optional_role_is_tried_again_until_it_starts(
    supervise: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.3)
    monkeypatch.setattr(module, "MAX_RETRY_S", 1.0)
    third = (
        f"open({str(tmp_path / 'tries')!r}, 'a').write('x')\nif os.path.getsize({str(tmp_path / 'tries')!r}) < 4: {{}}"
    )
    script = LINES + third.format("sys.exit('no')") + "\nreport(ready={})\nsys.stdin.read()"
    roles = supervise([role("engine:a", script, optional=True)])
    await roles.start()
    await until(lambda: roles.state("engine:a").state == "ready")
    waits = [record.getMessage().split(" in ")[1] for record in caplog.records if "again in" in record.getMessage()]
    assert waits == ["0.3 s", "0.6 s", "1.0 s"]
    await roles.stop()


async def test_role_that_wants_news_is_told_every_change(supervise: Make, tmp_path: Path) -> None:
    path = tmp_path / "news"
    gateway = role("gateway", READS_NEWS.format(path=str(path)), news=True)
    roles = supervise([gateway], [role("engine:a", FAILS, optional=True), role("engine:b", WAITS)])
    await roles.start()
    expected = {
        "engine:a": [("loading", ""), ("away", "no home for its cache")],
        "engine:b": [("loading", ""), ("ready", "")],
    }
    await until(lambda: {name: [one[1:] for one in told(path) if one[0] == name] for name in expected} == expected)
    await roles.stop()


async def test_restarted_role_is_told_how_all_others_are(supervise: Make, tmp_path: Path) -> None:
    path = tmp_path / "news"
    says_pid = READS_NEWS.replace("ready={{}}", "ready=dict(pid=os.getpid())").format(path=str(path))
    roles = supervise([role("gateway", says_pid, news=True)], [role("engine:a", WAITS)])
    await roles.start()
    await until(lambda: ("engine:a", "ready", "") in told(path))
    path.unlink()
    os.kill(roles.info("gateway")["pid"], signal.SIGKILL)
    await until(lambda: ("engine:a", "ready", "") in told(path))
    await roles.stop()


async def test_news_for_role_that_has_ended_are_dropped(supervise: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that wants news ends while the other changes all the time: nothing breaks, nothing is logged by asyncio."""
    monkeypatch.setattr(module, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(module, "MAX_BACK_OFF_S", 0.01)
    short = LINES + "report(ready={})"
    roles = supervise([role("gateway", short, news=True), role("engine:a", short)])
    await roles.start()
    await asyncio.sleep(0.5)
    await roles.stop()


@pytest.mark.process
def test_supervisor_that_was_stopped_kills_no_role(tmp_path: Path) -> None:
    alive = (
        f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\nwhile True: report(alive=1); time.sleep(0.05)"
    )
    script = (
        "import asyncio, sys\nfrom glowd.daemon.config import SupervisorSettings as S\n"
        "from glowd.daemon.runtime.role_process import RoleSpec\nfrom glowd.daemon.runtime.supervisor import Supervisor\n"
        f"specs = [RoleSpec('engine', (sys.executable, '-c', {LINES + 'report(ready={})' + chr(10) + alive!r}))]\n"
        "asyncio.run(Supervisor([specs], S(watchdog_s=2)).run(lambda: print('ready', flush=True)))\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            process.send_signal(signal.SIGCONT)
            time.sleep(1)
            (pid,) = [int(path.name) for path in tmp_path.iterdir()]
            assert exists(pid)
        finally:
            process.terminate()
            _, said = process.communicate(timeout=WAIT_S)
    assert "engine ended" not in said


@pytest.mark.process
def test_time_in_which_supervisor_stood_still_is_no_grace(tmp_path: Path) -> None:
    """A role has its whole grace to stop, also if the machine was paused meanwhile."""
    tidies = f"time.sleep(1); open({str(tmp_path / 'tidy')!r}, 'w').close(); sys.exit(0)"
    role = LINES + f"signal.signal(signal.SIGTERM, lambda *_: exec({tidies!r}))\nreport(ready=dict(pid=os.getpid()))\n"
    role += "while True: time.sleep(0.1)"
    script = (
        "import asyncio, signal, sys\nfrom glowd.daemon.config import SupervisorSettings as S\n"
        "from glowd.daemon.runtime.role_process import RoleSpec\nfrom glowd.daemon.runtime.supervisor import Supervisor\n"
        f"role = RoleSpec('engine', (sys.executable, '-c', {role!r}))\n"
        "async def main():\n all = Supervisor([[role]], S(grace_s=3))\n"
        " asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, all.request_stop)\n"
        " await all.run(lambda: print(all.info('engine')['pid'], flush=True))\nasyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            pids = [process.pid, int(process.stdout.readline())]
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(3.5)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
    assert (tmp_path / "tidy").exists()
