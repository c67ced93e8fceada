"""A gateway process with three engines for one voice: streams are placed, and survive the loss of an engine.

The rules of placement are tested without processes: placement/test_pool.py.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from glowd.daemon import wire
from glowd.daemon.wire import Code
from glowd.daemon.wire.telemetry import EngineSnapshot, Snapshot
from tests.fakes.roles import FakeEngine, frames
from tests.harness.gateway import GatewayHarness, UtteranceClient, running_gateway
from tests.harness.waiting import repeated_after_stalls

NAMES = ("glow/0", "glow/1", "glow/2")
THREE = "voices={glow={engine='waveglow',devices=['cpu','cpu','cpu']}}"


class ThreeEngines(GatewayHarness):
    """The gateway, and the engines that run now."""

    engines: dict[str, FakeEngine]

    def start(self, name: str) -> None:
        """Start an engine; returns once the gateway knows it."""
        self.engines[name] = FakeEngine(self.run_dir, name)
        self.wait_for(f"{name} ready", lambda found: engine_of(found, name).ready)

    def speak(self, go: threading.Event) -> list[UtteranceClient]:
        """Two streams in each engine, each in the middle of its utterance."""
        spoken = [UtteranceClient(self.endpoint, f"s{n}", frames(300, n), 3, n, go=go) for n in range(6)]
        self.wait_for("speaking", lambda found: sum(bool(one.made_samples) for one in found.streams.values()) == 6)
        return spoken


def engine_of(found: Snapshot, engine: str) -> EngineSnapshot:
    return found.voices["glow"].engines[engine]


def placed(found: Snapshot) -> dict[str, str]:
    return {name: stream.engine for name, stream in found.streams.items()}


def counts(found: Snapshot) -> dict[str, int]:
    return dict(Counter(placed(found).values()))


@contextlib.contextmanager
def three_engines() -> Iterator[ThreeEngines]:
    with running_gateway(THREE, "server.max_streams=64", "server.role_wait_s=300") as gateway:
        gateway = ThreeEngines(gateway.process, gateway.run_dir)
        gateway.engines = {}
        try:
            for name in NAMES:
                gateway.start(name)
            yield gateway
        finally:
            for engine in gateway.engines.values():
                engine.crash()


@repeated_after_stalls
def test_stream_goes_to_engine_with_most_room() -> None:
    with three_engines() as gateway:
        client = gateway.client()
        assert [voice["name"] for voice in client.welcome.voices] == ["glow"], "it is one voice"
        for number in range(6):
            client.open(f"s{number}", "null")
        before = client.status()
        assert counts(before) == dict.fromkeys(NAMES, 2)
        client.send(wire.Close("s0"))
        client.open("again", "null")
        found = client.status()
        assert placed(found)["again"] == placed(before)["s0"], "there is room where one was closed"
        assert found.voices["glow"].open == 6 and [engine_of(found, name).open for name in NAMES] == [2, 2, 2]


@pytest.mark.parametrize("while_sending", [True, False])
@repeated_after_stalls
def test_streams_of_crashed_engine_continue_in_others(
    while_sending: bool,
) -> None:
    with three_engines() as gateway:
        go = threading.Event()
        spoken = gateway.speak(go)
        gateway.engines["glow/0"].crash()
        if while_sending:
            go.set()
        moved = gateway.wait_for("moved", lambda found: "glow/0" not in placed(found).values())
        go.set()
        assert counts(moved) == {"glow/1": 3, "glow/2": 3}
        assert moved.voices["glow"].ready and moved.state == "degraded"
        for one in spoken:
            one.check()
        firsts = [start.first_frame for name in NAMES[1:] for start in gateway.engines[name].starts]
        assert len(firsts) == 6 and sum(first > 0 for first in firsts) == 2, "those that moved continued in the middle"


@repeated_after_stalls
def test_engine_that_hangs_costs_no_sample() -> None:
    with three_engines() as gateway:
        go = threading.Event()
        spoken = gateway.speak(go)
        gateway.engines["glow/0"].hung.set()
        go.set()  # it reads what is sent now only once its streams have moved
        gateway.wait_for("moved", lambda found: "glow/0" not in placed(found).values())
        gateway.engines["glow/0"].fail_next("its device hung", at_start=False)  # which must not matter any more
        gateway.engines["glow/0"].hung.clear()
        gateway.wait_for("back", lambda found: engine_of(found, "glow/0").ready)
        for one in spoken:
            one.check()


@repeated_after_stalls
def test_voice_is_lost_only_with_its_last_engine() -> None:
    with three_engines() as gateway:
        client = gateway.client()
        gateway.engines["glow/2"].refuses = True
        gateway.wait_for("degraded", lambda found: engine_of(found, "glow/2").work.level == 3)
        for name in ("glow/2", "glow/0"):
            gateway.engines[name].crash()
        expected = [False, True, False]
        found = gateway.wait_for("two lost", lambda found: [engine_of(found, name).ready for name in NAMES] == expected)
        assert engine_of(found, "glow/2").work.level is found.voices["glow"].work.level is None, "its report is past"
        client.open("s", "null")
        assert placed(client.status()) == {"s": "glow/1"}
        gateway.engines["glow/1"].crash()
        gateway.wait_for("all gone", lambda found: not found.voices["glow"].ready)
        client.send(wire.Open("t", sinks=["null"]))
        text = client.expect_error(Code.ENGINE_LOST, fatal=True).text
        assert text.startswith("voice 'glow' is away: ") and all(
            f"{name}: it does not answer" in text for name in NAMES
        )


@repeated_after_stalls
def test_engine_that_is_not_configured_is_ignored() -> None:
    with three_engines() as gateway:
        client = gateway.client()
        stranger = FakeEngine(gateway.run_dir, "glow/7")
        for number in range(6):
            client.open(f"s{number}", "null")
        assert counts(client.status()) == dict.fromkeys(NAMES, 2)
        stranger.crash()
