"""A gateway process with three engines for one voice: where streams go, and what the loss of an engine costs."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from glowd.daemon import wire
from glowd.daemon.wire import Code
from glowd.daemon.wire.telemetry import Capacity
from tests.daemon.fake_roles import FakeEngine, frames
from tests.daemon.gateway.gateway_rig import GatewayRig, Utterance, running_gateway
from tests.patience import repeated_after_stalls

NAMES = ("glow/0", "glow/1", "glow/2")
THREE = "voices={glow={engine='waveglow',devices=['cpu','cpu','cpu']}}"
Info = dict[str, Any]


class House(GatewayRig):
    """The gateway, and the engines that live now."""

    engines: dict[str, FakeEngine]

    def start(self, name: str, device: str = "cpu", capacity: Capacity | None = None) -> None:
        """A new life of an engine; returns when the gateway has met it."""
        if name in self.engines:
            self.engines[name].crash()
        self.engines[name] = FakeEngine(self.run_dir, name, device, capacity)
        met = {"ready": True, "device": device, "capacity": capacity and capacity.to_map()}
        self.when(f"{name} met", lambda info: {key: of(info, name)[key] for key in met} == met)

    def speak(self, go: threading.Event) -> list[Utterance]:
        """Two streams in each engine, each with half of its utterance behind it."""
        spoken = [Utterance(self.endpoint, f"s{n}", frames(300, n), 3, n, go=go) for n in range(6)]
        self.when("speaking", lambda info: sum(one["made_samples"] > 0 for one in info["streams"].values()) == 6)
        return spoken


def of(info: Info, engine: str) -> Info:
    found: Info = info["voices"]["glow"]["engines"][engine]
    return found


def placed(info: Info) -> dict[str, str]:
    return {name: stream["engine"] for name, stream in info["streams"].items()}


def counts(info: Info) -> dict[str, int]:
    return dict(Counter(placed(info).values()))


@contextlib.contextmanager
def three_engines() -> Iterator[House]:
    with running_gateway(THREE, "server.max_streams=64", "server.role_wait_s=300") as rig:
        house = House(rig.process, rig.run_dir)
        house.engines = {}
        try:
            for name in NAMES:
                house.start(name)
            yield house
        finally:
            for engine in house.engines.values():
                engine.crash()


@repeated_after_stalls
def test_streams_go_to_the_engine_with_the_most_room() -> None:
    with three_engines() as house:
        client = house.client()
        assert [voice["name"] for voice in client.welcome.voices] == ["glow"], "it is one voice"
        for number in range(6):
            client.open(f"s{number}", "null")
        before = client.status()
        assert counts(before) == dict.fromkeys(NAMES, 2)
        client.send(wire.Close("s0"))
        client.open("again", "null")
        info = client.status()
        assert placed(info)["again"] == placed(before)["s0"], "where one has left, there is room"
        assert info["voices"]["glow"]["open"] == 6 and [of(info, name)["open"] for name in NAMES] == [2, 2, 2]


@repeated_after_stalls
def test_the_sum_of_their_capacities_is_told_and_kept() -> None:
    with three_engines() as house:
        for name, streams in zip(NAMES, (1, 2, 1)):
            house.start(name, capacity=Capacity(streams=streams, measured=False))
        client = house.client()
        assert client.welcome.voices[0]["capacity"]["streams"] == client.status()["voices"]["glow"]["max_streams"] == 4
        for number in range(4):
            client.open(f"s{number}", "null")
        assert counts(client.status()) == {"glow/0": 1, "glow/1": 2, "glow/2": 1}
        client.send(wire.Open("s4", sinks=["null"]))
        text = client.expect_error(Code.AT_CAPACITY, fatal=True).text
        assert text.startswith("voice 'glow' is at capacity: 4 of 4 streams are open in its engines; close one")
        assert "glow/1 is at capacity: 2 of 2 streams are open, the most allowed (voices.glow.max_streams)" in text
        client.leave()


@repeated_after_stalls
def test_engines_on_one_gpu_share_it() -> None:
    with three_engines() as house:
        measured = Capacity(streams=4, measured=True, share=0.5, chunk_ms=46.4, alone_ms=5.0, round_ms=20.0)
        for name, device in zip(NAMES, ("cuda:0", "cuda:0", "cuda:1")):
            house.start(name, device=device, capacity=measured)
        client = house.client()
        for number in range(8):
            client.open(f"s{number}", "null")
        info = client.status()
        assert counts(info) == {"glow/0": 2, "glow/1": 2, "glow/2": 4} and of(info, "glow/2")["device"] == "cuda:1"
        client.send(wire.Open("s8", sinks=["null"]))
        assert (
            "the rest of cuda:0 is taken by glow/1 (2 of 4 streams)" in client.expect_error(Code.AT_CAPACITY, True).text
        )
        client.leave()


@repeated_after_stalls
def test_an_engine_that_refuses_is_passed_over() -> None:
    with three_engines() as house:
        client = house.client()
        house.engines["glow/1"].refuses = True
        house.when("degraded", lambda info: of(info, "glow/1")["degraded"])
        for number in range(4):
            client.open(f"s{number}", "null")
        info = client.status()
        assert info["state"] == "degraded" and counts(info) == {"glow/0": 2, "glow/2": 2}
        assert info["voices"]["glow"]["level"] == 3


@pytest.mark.parametrize("while_it_is_sent_to", [True, False])
@repeated_after_stalls
def test_streams_of_an_engine_that_dies_go_on_in_the_others_and_nobody_loses_a_sample(
    while_it_is_sent_to: bool,
) -> None:
    with three_engines() as house:
        go = threading.Event()
        spoken = house.speak(go)
        house.engines["glow/0"].crash()  # for good
        if while_it_is_sent_to:
            go.set()
        moved = house.when("moved", lambda info: "glow/0" not in placed(info).values())
        go.set()
        assert counts(moved) == {"glow/1": 3, "glow/2": 3}
        assert moved["voices"]["glow"]["ready"] and moved["state"] == "degraded"
        for one in spoken:
            one.check()
        firsts = [start.first_frame for name in NAMES[1:] for start in house.engines[name].starts]
        assert len(firsts) == 6 and sum(first > 0 for first in firsts) == 2, "those that moved went on in the middle"


@repeated_after_stalls
def test_without_room_elsewhere_they_wait_for_their_engine() -> None:
    with three_engines() as house:
        go = threading.Event()
        spoken = house.speak(go)
        for name in ("glow/1", "glow/2"):
            house.engines[name].refuses = True
        house.when("refusing", lambda info: all(of(info, name)["degraded"] for name in ("glow/1", "glow/2")))
        house.engines["glow/0"].crash()
        gone = house.when("gone", lambda info: not of(info, "glow/0")["ready"])
        assert counts(gone) == dict.fromkeys(NAMES, 2)
        house.start("glow/0")
        go.set()
        for one in spoken:
            one.check()
        assert [start.first_frame > 0 for start in house.engines["glow/0"].starts] == [True, True]


@repeated_after_stalls
def test_an_engine_that_hangs_for_a_while_costs_no_sample() -> None:
    with three_engines() as house:
        go = threading.Event()
        spoken = house.speak(go)
        house.engines["glow/0"].hung.set()
        go.set()  # what is sent to it now it will read when its streams are elsewhere
        house.when("moved", lambda info: "glow/0" not in placed(info).values())
        house.engines["glow/0"].fail_next("its device hung", at_start=False)  # which is nobody's business any more
        house.engines["glow/0"].hung.clear()
        house.when("back", lambda info: of(info, "glow/0")["ready"])
        for one in spoken:
            one.check()


@repeated_after_stalls
def test_the_voice_is_lost_only_with_its_last_engine() -> None:
    with three_engines() as house:
        client = house.client()
        house.engines["glow/2"].refuses = True
        house.when("degraded", lambda info: of(info, "glow/2")["level"] == 3)
        for name in ("glow/2", "glow/0"):
            house.engines[name].crash()
        info = house.when("two gone", lambda info: [of(info, name)["ready"] for name in NAMES] == [False, True, False])
        assert of(info, "glow/2")["level"] is info["voices"]["glow"]["level"] is None, (
            "what it did in its last life is past"
        )
        client.open("s", "null")
        assert placed(client.status()) == {"s": "glow/1"}
        house.engines["glow/1"].crash()
        house.when("all gone", lambda info: not info["voices"]["glow"]["ready"])
        client.send(wire.Open("t", sinks=["null"]))
        assert "engine of voice 'glow' is not running now" in client.expect_error(Code.ENGINE_LOST, fatal=True).text


@repeated_after_stalls
def test_an_engine_that_is_not_configured_is_nobody() -> None:
    with three_engines() as house:
        client = house.client()
        stranger = FakeEngine(house.run_dir, "glow/7")
        for number in range(6):
            client.open(f"s{number}", "null")
        assert counts(client.status()) == dict.fromkeys(NAMES, 2)
        stranger.crash()
