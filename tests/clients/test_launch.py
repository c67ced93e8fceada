"""`launch` with another program in glowd's place: what it waits for, what it reports, what it leaves behind."""

import sys
from pathlib import Path

import pytest

from glowd.clients.launch import Daemon, LaunchError, launch
from glowd.daemon.wire import ReadyLine
from tests.harness.waiting import WAIT_S

LINE = ReadyLine(
    endpoint="ipc:///run/a b.ipc", telemetry="ipc:///t", voices=("x", "y"), device="Big 'box'", seconds=1.5
)
READY = f"print({str(LINE)!r}, flush=True)"
STOPS = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[1])))"
STAYS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
WAITS = "while True: signal.pause()"


def program(*lines: str) -> tuple[str, ...]:
    return (sys.executable, "-c", "\n".join(lines))


def test_ready_line_round_trip_keeps_every_fact() -> None:
    assert ReadyLine.parse(str(LINE)) == LINE
    assert str(LINE).startswith("glowd ready endpoint='ipc:///run/a b.ipc' telemetry=")


@pytest.mark.parametrize(
    "line", ["", "12:00:00.000 glowd INFO glowd ready", "glowd ready", "glowd ready endpoint='", "glowd ready x"]
)
def test_other_lines_are_no_ready_line(line: str) -> None:
    assert ReadyLine.parse(line) is None


def test_launch_yields_a_ready_daemon_and_stops_it() -> None:
    shows = "import os; print('run_dir', os.environ['GLOWD_RUN_DIR'], os.environ['EXTRA'], flush=True)"
    with launch("0", env={"EXTRA": "more"}, command=program(STOPS, shows, READY, WAITS)) as daemon:
        assert daemon.ready == LINE and daemon.endpoint == "ipc:///run/a b.ipc"
        assert daemon.output[0].split() == ["run_dir", str(daemon.run_dir), "more"]
        assert daemon.process.poll() is None
    assert daemon.process.returncode == 0 and not Path(daemon.run_dir).parent.exists()


def refused(command: tuple[str, ...], argument: str = "0", **limits: float) -> str:
    with pytest.raises(LaunchError) as caught, launch(argument, command=command, **limits):  # type: ignore[arg-type]
        pass
    return str(caught.value)


def test_program_that_ends_before_it_is_ready_is_reported() -> None:
    text = refused(program("import sys; print('no such voice', file=sys.stderr)"))
    assert text == "glowd did not become ready; its log ends with:\nno such voice"


def test_program_that_is_never_ready_is_reported_and_stopped() -> None:
    assert "it has printed nothing" in refused(program(STOPS, WAITS), ready_s=0.3)


def test_status_other_than_0_is_reported() -> None:
    assert refused(program(STOPS, READY, WAITS), "3").startswith(
        "glowd ended with status 3; its log ends with:\nglowd ready"
    )


def test_program_that_does_not_stop_is_killed_and_reported() -> None:
    assert "did not stop within 0.3 s and was killed" in refused(program(STAYS, READY, WAITS), stop_s=0.3)


def test_exception_of_the_block_is_not_replaced() -> None:
    daemons: list[Daemon] = []
    with pytest.raises(ZeroDivisionError), launch("3", command=program(STOPS, READY, WAITS)) as daemon:
        daemons.append(daemon)
        raise ZeroDivisionError
    assert daemons[0].process.wait(WAIT_S) == 3
