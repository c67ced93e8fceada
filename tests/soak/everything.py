"""The soak of the whole daemon: ten streams, interruptions, a listener, the web, a hostile peer, and every process disturbed.

Rules: this file puts the parts together and keeps the minutes; what is right is in utterances.py, what counts in judge.py.
"""

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Result, scheduling
from tests.harness.daemon import free_port, running_daemon
from tests.harness.priority import clients_elsewhere
from tests.harness.pulse import sound_device
from tests.harness.waiting import WAIT_S
from tests.soak import judge
from tests.soak.bank import Bank
from tests.soak.clients import PLANS, Scene, SoakClient, run_clients
from tests.soak.disturbances import Disturber
from tests.soak.listening import SoakListener
from tests.soak.records import Records
from tests.soak.sentinel import Sentinels
from tests.soak.watch import Process, Telemetry, processes
from tests.soak.web_client import WebClient
from tests.soak.windows import Windows

SETTINGS = (
    'voices={glow={engine="waveglow"},rtisi={engine="rtisi-la"}}', "speaker.device=pulse", "web.enabled=true",
    "server.role_wait_s=30", "supervisor.ready_timeout_s=120", "supervisor.watchdog_s=10", "supervisor.grace_s=5",
)  # fmt: skip
"""Two voices; a daemon that is as patient with its processes as any other."""
SAMPLE_S = 5.0
CALM_END_S = 60.0
"""Nothing is disturbed so shortly before the end: what was disturbed has time to be judged."""
BANK = 12

Tell = Callable[[dict[str, Any]], object]


def soak(
    minutes: float, every_s: float, settings: Sequence[str], tell: Tell, minute_s: float = 60.0, bank: int = BANK
) -> tuple[list[Result], list[str]]:
    """Run it, with a disturbance every `every_s` (0: none). The figures, and what was wrong in words."""
    expected, records, windows = Bank.rendered(bank), Records(), Windows()
    gc.collect()
    gc.freeze()  # to look through what torch has loaded would hold all clients up at once
    with tempfile.TemporaryDirectory(prefix="glowd-soak-") as name, sound_device() as env, Sentinels() as sentinels:
        scene_of = partial(Scene, bank=expected, records=records, windows=windows, recordings=Path(name))
        with running_daemon(
            *SETTINGS, f"files.directory={name}", f"web.port={free_port()}", *settings, env=env
        ) as daemon:
            kept = watched(scene_of(daemon=daemon), sentinels, 60 * minutes, every_s, tell, minute_s)
            log = list(daemon.launched.output)
    for number, line in enumerate(log):
        if line.startswith("Traceback"):
            records.fault("log", "".join(log[max(0, number - 2) : number + 40]))
    beside = {
        "minutes": minutes, "streams": len(PLANS), "disturbance every s": every_s, "set": " ".join(settings),
        "scheduling": scheduling(),
    }  # fmt: skip
    return judge.verdict(kept, records, windows.all, beside), records.faults


def watched(
    scene: Scene, sentinels: Sentinels, seconds: float, every_s: float, tell: Tell, minute_s: float
) -> list[dict[str, Any]]:
    """Let everything loose on the daemon for so long; returns the minutes."""
    telemetry = Telemetry(scene.daemon, scene.records, scene.windows, sentinels)
    with telemetry.watching(), hostile_peer(scene.daemon.endpoint), clients_elsewhere():
        disturber = Disturber(scene.daemon, scene.windows, scene.records, lambda: telemetry.newest)
        return Watch(scene, sentinels, minute_s).run(seconds, every_s, disturber, tell)


@contextlib.contextmanager
def hostile_peer(endpoint: str) -> Iterator[None]:
    """A process that attacks within the `with`."""
    process = subprocess.Popen([sys.executable, "-m", "tests.soak.hostile", endpoint])
    try:
        yield
        assert process.poll() is None, "the hostile peer has ended by itself"
    finally:
        process.kill()
        process.wait()


class Watch:
    """The minutes of a soak, while its clients speak."""

    def __init__(self, scene: Scene, sentinels: Sentinels, minute_s: float) -> None:
        self._scene, self._sentinels, self._minute_s = scene, sentinels, minute_s
        self._samples: dict[str, list[Process]] = defaultdict(list)

    def run(self, seconds: float, every_s: float, disturber: Disturber, tell: Tell) -> list[dict[str, Any]]:
        """Let all speak for so long; returns the minutes."""
        begin_s = time.monotonic()
        end_s = begin_s + seconds
        listener, web = SoakListener(self._scene), WebClient(self._scene)
        listener.thread.start()
        assert listener.is_listening.wait(WAIT_S), "the listener does not begin"
        web.thread.start()
        speaking: list[SoakClient | SoakListener | WebClient] = [*run_clients(self._scene), listener, web]
        disturbing = threading.Thread(target=disturber.run, args=(every_s or seconds, end_s - CALM_END_S), daemon=True)
        disturbing.start()
        minutes: list[dict[str, Any]] = []
        while time.monotonic() < end_s:
            minutes.append(self._minute(len(minutes) + 1, begin_s, end_s))
            tell(minutes[-1])
        disturbing.join(2 * WAIT_S)
        self._scene.over.set()
        for one in speaking:
            one.thread.join(2 * WAIT_S)
            if one.thread.is_alive():
                self._scene.records.fault("client", f"{one.thread.name} does not end")
        return minutes

    def _minute(self, number: int, begin_s: float, end_s: float) -> dict[str, Any]:
        """Watch for a minute, and say what has happened."""
        until_s = min(begin_s + number * self._minute_s, end_s)
        while time.monotonic() < until_s:
            for role, process in processes(self._scene.daemon).items():
                self._samples[role].append(process)
            time.sleep(max(0.0, min(SAMPLE_S, until_s - time.monotonic())))
        found, now_s = self._scene.records.end_minute(), time.monotonic()
        windows = [one for one in self._scene.windows.all if one.begin_s > now_s - self._minute_s]
        samples, self._samples = self._samples, defaultdict(list)
        late_ms = 1000 * np.asarray(found.late_s)
        return {
            "minute": number,
            "seconds": round(now_s - begin_s, 1),
            "counts": dict(sorted(found.counts.items())),
            "late_ms": percentiles(late_ms) if len(late_ms) else None,
            "stall_ms": [round(stall, 1) for stall in self._sentinels.longest_ms(now_s - self._minute_s, now_s)],
            "load": round(os.getloadavg()[0], 1),
            "disturbances": {f"{one.begin_s - begin_s:.1f} s": one.what for one in windows},
            "processes": {role: summary(found) for role, found in samples.items()},
        }


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    return {"p50": round(float(np.percentile(values, 50)), 2), "p99": round(float(np.percentile(values, 99)), 2),
            "max": round(float(values.max()), 2)}  # fmt: skip


def summary(found: list[Process]) -> dict[str, float]:
    """A process in a minute, the newest of its role: its memory, and what it holds when it holds least."""
    life = [process for process in found if process.pid == found[-1].pid]
    return {
        "pid": life[-1].pid,
        "rss_mb": round(float(np.median([process.rss_mb for process in life])), 3),
        "descriptors": min(process.descriptors for process in life),
        "threads": min(process.threads for process in life),
    }
