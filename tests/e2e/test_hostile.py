"""Whatever a peer at the TCP port does, ten streams of others go on sample by sample and in time, and no process grows.

The attack runs twice: the first time warms up what a process keeps, and the second may not leave more. While it lasts, the daemon
holds what its slow readers have not read, up to a limit for each.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest.mock import create_autospec

import numpy as np
import pytest

from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.daemon.gateway.clients.connections import MAX_OUTBOX_BYTES
from glowd.daemon.wire import Code
from glowd.flow.mel import Floats
from tests.e2e.test_remote import free_port, new_key
from tests.harness.daemon import Daemon, forget_peak, peak_bytes, rss_bytes, running_daemon
from tests.harness.hostile import Outcome, Plan, hostile
from tests.harness.mels import speech
from tests.harness.speaking import AudioReader, send_all, speak
from tests.harness.waiting import WAIT_S, Stalls, until

MEL = speech()[:120]
STREAMS, GROWTH_BYTES = 10, 8e6
SLOW_READERS = 2
HELD_BYTES = SLOW_READERS * MAX_OUTBOX_BYTES
WARM_UP, ATTACK = Plan(6_000, slow_readers=SLOW_READERS, seed=1), Plan(20_000, slow_readers=SLOW_READERS, seed=2)
QUOTAS = ("server.max_peer_messages_s=100000", "server.max_peer_requests_s=100000")
"""Every message is to be read; what the quotas do is tested in tests/daemon/gateway/test_quotas.py."""
VOICE = "voices={rtisi={engine='rtisi-la',iterations=1,max_streams=16,default=true}}"
ANSWERS = {
    "MALFORMED", "UNKNOWN_TYPE", "BAD_FIELD", "TOO_LARGE", "NO_HELLO", "UNKNOWN_STREAM", "BAD_SHAPE", "BAD_SINK", "welcome",
    "pong", "state", "opened",
}  # fmt: skip
ROLES = ("push", "listen *", "control *", "metrics")
"""Of the hostile peer's key: everything but what operators do."""
PREFILL_S = 0.5
"""What a listener collects before it plays."""
MACHINE_S = PREFILL_S / 2
"""If a thread of this process woke so late while audio was on its way, that the audio was late was the machine's fault."""


@pytest.fixture(params=["plain", "with keys"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon, and the address at which the hostile peer comes to it, with a key that may do everything."""
    port = f"tcp://127.0.0.1:{free_port()}"
    has_keys = request.param == "with keys"
    settings = (
        f"server.endpoint={port}", f"server.keys={tmp_path}/keys", f"server.plain_tcp={str(not has_keys).lower()}",
        f"files.directory={tmp_path}/recordings", "speaker.enabled=false", VOICE, *QUOTAS,
    )  # fmt: skip
    with running_daemon(*settings) as running:
        yield running, new_key(running, "hostile", *ROLES) if has_keys else port


class Underrun(NamedTuple):
    """A listener had no audio from when it was due until it came."""

    due_s: float
    arrived_s: float

    def is_excused_by(self, stalls: Stalls) -> bool:
        """Whether the machine stood still while this audio was on its way."""
        return stalls.longest_between(self.due_s - PREFILL_S, self.arrived_s) >= MACHINE_S


def underruns(reader: AudioReader) -> list[Underrun]:
    """When a listener that collects PREFILL_S of audio, and plays it then, had none."""
    found, began_s = list[Underrun](), reader.arrived_s[0] + PREFILL_S
    for chunk, arrived_s in zip(reader.chunks, reader.arrived_s):
        due_s = began_s + chunk.first_sample / chunk.rate_hz
        if arrived_s > due_s:
            found.append(Underrun(due_s, arrived_s))
            began_s += arrived_s - due_s
    return found


def read_by(delays_s: list[float]) -> AudioReader:
    """A reader to which chunks of 100 ms came at their pace, each so much later."""
    reader, samples = AudioReader(create_autospec(Stream)), 2205
    reader.chunks = [wire.Audio("s", 0, n, n * samples, samples, rate_hz=22_050) for n in range(len(delays_s))]
    reader.arrived_s = [100.0 + 0.1 * n + delay_s for n, delay_s in enumerate(delays_s)]
    return reader


def test_underrun_is_excused_only_by_a_stall_beside_it() -> None:
    assert underruns(read_by([0.0, 0.4, 0.49, 0.0])) == []
    delays_s = [0.0] * 10 + [0.6] + [0.0] * 30 + [0.7]
    first, second = underruns(read_by(delays_s))
    assert first == pytest.approx((101.5, 101.6)) and second == pytest.approx((104.7, 104.8)), "the first has moved it"
    for begin_s, length_s, excused in (
        (101.1, 0.3, True),
        (101.1, 0.2, False),
        (100.2, 0.3, False),
        (101.7, 0.3, False),
    ):
        stalls = Stalls()
        stalls.found = [(begin_s, begin_s + length_s)]
        assert first.is_excused_by(stalls) == excused and not second.is_excused_by(stalls)


class Streams:
    """Ten streams at the pace of speech, sentence after sentence, until `check`; every sample must be right."""

    def __init__(self, daemon: Daemon, expected: Floats) -> None:
        self.underruns, self.sentences = list[Underrun](), 0
        self._daemon, self._expected, self._faults = daemon, expected, list[BaseException]()
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(STREAMS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        try:
            with self._daemon.client(f"calm-{number}") as client:
                while not self._over.is_set():
                    self._speak(client.open(sinks=["socket"], seed=7))
        except BaseException as fault:  # the edge of a thread: `check` raises it
            self._faults.append(fault)

    def _speak(self, opened: Stream) -> None:
        with opened as stream, AudioReader(stream) as reader:
            send_all(stream, MEL, (4,), realtime=True)
            stream.wait_played(WAIT_S)
        np.testing.assert_array_equal(reader.samples, self._expected)
        with self._lock:
            self.underruns += underruns(reader)
            self.sentences += 1

    def check(self) -> None:
        """Wait for the end of their sentences. Raises what has gone wrong with any."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]


@dataclass
class Footprint:
    """Of each process: the most memory during an attack, and that when it is over."""

    peak_bytes: dict[str, int]
    rss_bytes: dict[str, int]


def attacked(daemon: Daemon, address: str, plan: Plan) -> tuple[Outcome, Footprint]:
    """What came of an attack, once the daemon knows that its clients are gone."""
    pids = daemon.role_pids()
    for pid in pids.values():
        forget_peak(pid)
    with hostile(address, plan) as peer:
        peer.wait(5 * WAIT_S)
    peaks = {role: peak_bytes(pid) for role, pid in pids.items()}
    with daemon.client("watcher") as client:
        until(lambda: wire.Snapshot.from_map(client.status().info).clients == STREAMS + 1, "the end of its clients")
    assert daemon.role_pids() == pids, "a process was restarted"
    return peer.outcome, Footprint(peaks, {role: rss_bytes(pid) for role, pid in pids.items()})


def open_files(daemon: Daemon) -> int:
    """Of all processes together."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in daemon.role_pids().values())


def test_hostile_peer_disturbs_nobody(daemon: tuple[Daemon, str]) -> None:
    running, address = daemon
    with running.client() as client:
        expected, _ = speak(client, MEL, seed=7)
        files = open_files(running)
    with Stalls() as stalls:
        streams = Streams(running, expected)
        _, before = attacked(running, address, WARM_UP)
        outcome, after = attacked(running, address, ATTACK)
        streams.check()
    assert streams.sentences >= STREAMS
    assert outcome.read >= ATTACK.messages and outcome.connected >= ATTACK.connections
    assert outcome.refused == (ATTACK.unknown_keys if address.startswith("glowd://") else 0)
    assert set(outcome.answers) >= ANSWERS and Code.INTERNAL.name not in outcome.answers, outcome.answers
    assert not [line for line in running.launched.output if "Traceback" in line]
    for role, pid in running.role_pids().items():
        assert after.peak_bytes[role] - before.peak_bytes[role] <= GROWTH_BYTES + HELD_BYTES, (role, before, after)
        until(lambda: rss_bytes(pid) - before.rss_bytes[role] <= GROWTH_BYTES, f"less memory of {role}", every_s=0.2)  # noqa: B023 (called at once)
    until(lambda: open_files(running) <= files, "the end of its connections", every_s=0.1)
    late = [underrun for underrun in streams.underruns if not underrun.is_excused_by(stalls)]
    assert not late, (len(late), len(streams.underruns), streams.sentences, stalls.longest_s, late[:5])
