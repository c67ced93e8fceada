"""The supervisor, with small fake roles: order, reasons, restarts, watchdog, no orphans."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime import supervisor as module
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.supervisor import StartError, Supervisor
from tests.harness import waiting
from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[3]
QUICK = SupervisorSettings(ready_timeout_s=WAIT_S, watchdog_s=WAIT_S, grace_s=WAIT_S)
LINES = "import json, os, signal, sys, time\ndef report(**line): print(json.dumps(line), flush=True)\n"
DIARY = LINES + "def note(text): os.write(os.open({diary!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), text.encode())\n"
GOOD = """
note('+{name} ')
report(ready=dict(pid=os.getpid(), name='{name}'))
sys.stdin.read()
"""
STOPS = "signal.signal(signal.SIGTERM, lambda *_: (note('-{name} '), sys.exit(0)))\n"


Make = Callable[..., Supervisor]


@pytest.fixture
async def supervise() -> AsyncIterator[Make]:
    """Makes supervisors; roles that a failed test leaves running are killed."""
    made: list[Supervisor] = []

    def make(*stages: list[RoleSpec], settings: SupervisorSettings = QUICK) -> Supervisor:
        made.append(Supervisor(stages, settings))
        return made[-1]

    yield make
    for role in (role for roles in made for stage in roles.roles for role in stage):
        role.kill()
        await role.stop()


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


def spec(name: str, script: str) -> RoleSpec:
    return RoleSpec(name, (sys.executable, "-c", script))


def good(name: str, diary: Path) -> RoleSpec:
    return spec(name, (DIARY + STOPS + GOOD).format(name=name, diary=str(diary)))


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that must happen."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_roles_start_in_order_and_stop_in_reverse_order(supervise: Make, diary: Path) -> None:
    roles = supervise(*([good(name, diary)] for name in ("gateway", "engine", "speaker")))
    await roles.start()
    assert roles.info("engine")["name"] == "engine" and roles.info("nobody") == {}
    await roles.stop()
    assert diary.read_text() == "+gateway +engine +speaker -speaker -engine -gateway "


async def test_stage_starts_once_the_stage_before_is_ready(supervise: Make, diary: Path) -> None:
    slow = spec("gateway", "import time; time.sleep(0.3)\n" + good("gateway", diary).command[2])
    roles = supervise([slow], [good("glow", diary), good("other", diary)])
    await roles.start()
    assert diary.read_text().split()[0] == "+gateway"
    await roles.stop()
    assert sorted(diary.read_text().split()[1:3]) == ["+glow", "+other"]
    assert diary.read_text().split()[-1] == "-gateway"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (LINES + "report(failed='no such \\x1b[31m device'); sys.exit(1)", r"no such \x1b[31m device"),
        (LINES + "sys.exit(3)", "it ended with status 3 and gave no reason"),
        (LINES + "os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        (LINES + "time.sleep(600)", "it was not ready within 0.5 s (supervisor.ready_timeout_s) and was killed"),
        (LINES + "print('x' * 2000000, flush=True); time.sleep(600)", "a status line of more than 1048576 bytes"),
    ],
)
async def test_role_that_cannot_start_stops_the_rest_with_its_reason(
    supervise: Make, script: str, words: str, diary: Path
) -> None:
    settings = SupervisorSettings(ready_timeout_s=0.5 if "ready_timeout" in words else WAIT_S)
    roles = supervise([good("gateway", diary)], [spec("engine:glow", script)], [good("speaker", diary)])
    if "ready_timeout" in words:
        roles = supervise([spec("engine:glow", script)], settings=settings)
    with pytest.raises(StartError) as caught:
        await roles.start()
    assert str(caught.value).startswith("engine:glow could not start: ") and words in str(caught.value)
    assert "ready_timeout" in words or diary.read_text() == "+gateway -gateway "


async def test_command_that_does_not_exist_is_named(supervise: Make) -> None:
    with pytest.raises(StartError, match="gateway could not start: /nonexistent cannot be run: No such file"):
        await supervise([RoleSpec("gateway", ("/nonexistent",))]).start()


async def test_killed_role_is_restarted_and_the_others_stay(
    supervise: Make, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roles = supervise([good("gateway", diary)], [good("engine", diary)])
    await roles.start()
    before, gateway = roles.info("engine")["pid"], roles.info("gateway")["pid"]
    os.kill(before, signal.SIGKILL)
    await until(lambda: roles.info("engine")["pid"] != before)
    assert roles.info("gateway")["pid"] == gateway
    assert "engine ended: it was ended by SIGKILL; restarting it in 0.2 s" in caplog.text
    await roles.stop()


async def test_back_off_doubles_to_its_limit_and_resets_after_health(
    supervise: Make, diary: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.1)
    monkeypatch.setattr(module, "MAX_BACK_OFF_S", 0.3)
    short = DIARY + "report(ready={{}})\nnote('x')\n" + "time.sleep(3.5 if {n} == os.path.getsize({diary!r}) else 0)\n"
    monkeypatch.setattr(module, "HEALTHY_S", 3.0)  # a process that ends at once may take a second for it
    roles = supervise([spec("engine", short.format(diary=str(diary), n=4))])
    await roles.start()
    await until(lambda: caplog.text.count("restarting") >= 5)
    await roles.stop()
    waits = [record.getMessage().split(" in ")[1] for record in caplog.records if "restarting" in record.getMessage()]
    assert waits[:5] == ["0.1 s", "0.2 s", "0.3 s", "0.1 s", "0.2 s"]


async def test_role_that_reports_nothing_is_killed_and_restarted(
    supervise: Make, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chatty = LINES + "report(ready={})\nwhile True: report(alive=1); time.sleep(0.05)"
    settings = SupervisorSettings(ready_timeout_s=WAIT_S, watchdog_s=2.5)
    roles = supervise([spec("speaker", chatty)], [good("engine", diary)], settings=settings)
    await roles.start()
    await until(lambda: diary.read_text() == "+engine +engine ")
    assert "engine ended: it reported nothing for 2.5 s (supervisor.watchdog_s) and was killed" in caplog.text
    assert "speaker ended" not in caplog.text
    await roles.stop()


async def test_line_that_is_no_status_is_logged_and_ignored(
    supervise: Make, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = (
        good("engine", diary)
        .command[2]
        .replace("report(ready", "print('hm', flush=True); print('[1]', flush=True); report(ready")
    )
    roles = supervise([spec("engine", odd)])
    await roles.start()
    assert caplog.text.count("engine wrote a line that is not a status") == 2
    await roles.stop()


async def test_role_that_does_not_stop_is_killed_after_grace_s(
    supervise: Make, caplog: pytest.LogCaptureFixture
) -> None:
    not_stopping = (
        LINES + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nreport(ready=dict(pid=os.getpid()))\ntime.sleep(600)"
    )
    roles = supervise([spec("engine", not_stopping)], settings=SupervisorSettings(grace_s=0.3))
    await roles.start()
    await roles.stop()
    assert "engine did not stop within 0.3 s: killing it" in caplog.text
    assert not exists(roles.info("engine")["pid"])


async def test_roles_run_in_their_own_process_group(supervise: Make, diary: Path) -> None:
    roles = supervise([good("engine", diary)])
    await roles.start()
    assert os.getpgid(roles.info("engine")["pid"]) != os.getpgid(0)
    await roles.stop()


async def test_run_announces_and_stops_on_request(supervise: Make, diary: Path) -> None:
    roles = supervise([good("gateway", diary)])
    announced: list[str] = []
    running = asyncio.create_task(roles.run(lambda: announced.append("ready")))
    await until(lambda: announced == ["ready"])
    roles.request_stop()
    await running
    assert diary.read_text() == "+gateway -gateway "


async def test_stop_while_starting_leaves_no_process(supervise: Make, diary: Path) -> None:
    never = spec("engine", DIARY.format(diary=str(diary)) + "note(f'{os.getpid()}')\ntime.sleep(600)")
    roles = supervise([good("gateway", diary)], [never])
    running = asyncio.create_task(roles.run(lambda: pytest.fail("ready, though a role never was")))
    await until(lambda: diary.exists() and diary.read_text().strip()[-1].isdigit())
    roles.request_stop()
    await running
    pid = int(diary.read_text().split()[1].split("-")[0])
    assert not exists(pid)


async def test_second_stop_kills_at_once(supervise: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    not_stopping = LINES + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nreport(ready={})\ntime.sleep(600)"
    roles = supervise(
        [spec("gateway", not_stopping)],
        [spec("engine", not_stopping)],
        settings=SupervisorSettings(grace_s=10 * WAIT_S),
    )
    running = asyncio.create_task(roles.run(roles.request_stop))
    await until(
        lambda: bool(roles.roles) and all(role.info == {} for role in roles.roles[-1]) and len(roles.roles) == 2
    )
    await asyncio.sleep(0.5)
    roles.request_stop()
    async with asyncio.timeout(WAIT_S):  # much less than the grace
        await running
    assert "stop requested twice" in caplog.text


def test_no_role_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    role = (
        "import os\nfrom glowd.daemon.runtime.role import Role\n"
        "with Role.start('engine') as role:\n role.ready()\n"
        f" open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\n role.stopping.wait()\n"
    )
    script = (
        "import asyncio, sys\nfrom glowd.daemon.config import SupervisorSettings as S\n"
        "from glowd.daemon.runtime.role_process import RoleSpec\nfrom glowd.daemon.runtime.supervisor import Supervisor\n"
        f"specs = [RoleSpec(n, (sys.executable, '-c', {role!r}, '--run-dir', '/r')) for n in 'ab']\n"
        "asyncio.run(Supervisor([specs], S()).run(lambda: print('ready', flush=True)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            waiting.until(lambda: len(list(tmp_path.iterdir())) == 2, "the start of both roles")
            pids = [int(path.name) for path in tmp_path.iterdir()]
            assert all(map(exists, pids))
        finally:
            process.kill()
    waiting.until(lambda: not any(map(exists, pids)), "the end of the roles")
