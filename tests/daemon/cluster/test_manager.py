"""Engines on a cluster that is a dictionary: how many are started, who leaves, and what is left behind."""

import json
from collections.abc import Mapping

import pytest

from glowd.daemon.cluster.manager import JOIN, Manager
from glowd.daemon.cluster.naming import EngineName
from glowd.daemon.cluster.observing import Actors
from glowd.daemon.cluster.placement import Place
from glowd.daemon.config import Config
from glowd.daemon.config_reader import from_text, load
from glowd.daemon.runtime.role_process import SETTINGS
from glowd.daemon.wire.telemetry import EngineSnapshot, Snapshot, VoiceSnapshot
from glowd.daemon.wire.totals import Totals, VoiceTotals

EACH = 4
LOOK_S, HOLD_S = 2.0, 10.0


class FakeCluster:
    """Ray and the gateway. An engine joins when `join` is called, and leaves when it is asked to and has no stream."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.environments: dict[str, Mapping[str, str]] = {}
        self.streams: dict[str, int] = {}
        """Of the engines that have joined."""
        self.asked, self.left = set[str](), set[str]()
        self.on_draining_nodes, self.keys = set[str](), set[str]()
        self.placement: dict[str, str] = {}
        """Of the engines of which somebody has said whether they get streams."""
        self.refused = 0

    # ---- Engines

    def actors(self) -> Actors:
        return Actors.of(self.places, self.left, self.on_draining_nodes)

    def start(self, name: str, place: Place, environment: Mapping[str, str]) -> None:
        self.places[name], self.environments[name] = place, environment

    def leave(self, name: str) -> None:
        self.asked.add(name)

    def stop(self, name: str) -> None:
        assert not self.streams.get(name), f"{name} was ended with streams in it"
        self.places.pop(name)
        self.streams.pop(name, None)
        self.left.discard(name)

    def drop_empty_groups(self) -> None:
        pass

    # ---- Gateway

    def snapshot(self) -> Snapshot:
        engines = {
            name: EngineSnapshot(ready=True, open=n, max_streams=EACH, placement=self.placed(name))
            for name, n in self.streams.items()
        }
        totals = Totals(voices={"glow": VoiceTotals(refused=self.refused)})
        return Snapshot(voices={"glow": VoiceSnapshot(engines=engines)}, totals=totals)

    def new_address(self, key: str) -> str:
        self.keys.add(key)
        return f"glowd://{key}"

    def revoke(self, key: str) -> None:
        self.keys.discard(key)

    # ---- what happens there

    def placed(self, name: str) -> str:
        """Whether an engine gets streams, as the gateway says it."""
        return "draining" if name in self.asked else self.placement.get(name, "open")

    def join(self) -> None:
        """Every engine that was started joins."""
        for name in self.places:
            self.streams.setdefault(name, 0)

    def move(self, streams: int) -> None:
        """So many streams are open, in engines that get any; those that are to leave do, unless theirs have nowhere to go."""
        stay = [name for name in self.streams if self.placed(name) == "open"]
        if not stay and streams:
            return
        self.streams = dict.fromkeys(self.streams, 0)
        for number in range(streams):
            self.streams[stay[number % len(stay)]] += 1
        for name in [name for name in self.streams if self.placed(name) == "draining"]:
            del self.streams[name]
            self.left.add(name)


def config(*more: str, least: int = 1, most: int = 3) -> Config:
    voice = (
        f"voices={{glow={{engine='waveglow',devices=[],max_streams={EACH},cluster_min={least},cluster_max={most}}}}}"
    )
    address = ("cluster.ray=head:6379", f"cluster.hold_s={HOLD_S}", "cluster.target=0.5")
    return load(None, [voice, "server.engines=tcp://127.0.0.1:7800", *address, *more])


class Run:
    """A manager and its cluster, some looks."""

    def __init__(self, settings: Config) -> None:
        self.cluster, self.now_s = FakeCluster(), 100.0
        self.manager = Manager(settings, self.cluster, self.cluster)

    def look(self, times: int = 1) -> int:
        """Look; returns how many engines there are then."""
        for _ in range(times):
            self.now_s += LOOK_S
            self.manager.step(self.now_s)
        return len(self.cluster.places)


@pytest.fixture
def run() -> Run:
    """One engine is there and has joined."""
    made = Run(config())
    made.look()
    made.cluster.join()
    made.look()
    return made


def test_floor_is_started_once_and_knows_where_to_join() -> None:
    run = Run(config(least=2))
    assert run.look(3) == 2
    name, environment = next(iter(run.cluster.environments.items()))
    asked = json.loads(environment[JOIN])
    assert asked["voice"] == "glow" and name == f"glow/{asked['name']}"
    assert asked["address"] == f"glowd://{asked['name']}.glow"
    assert from_text(environment[SETTINGS]).voices["glow"].max_streams == EACH
    assert len(run.cluster.keys) == 2


def test_more_streams_start_engines_up_to_the_ceiling(run: Run) -> None:
    run.cluster.move(3)
    assert run.look() == 2  # 3 streams are more than half of 4
    run.cluster.join()
    run.cluster.move(8)
    assert run.look(2) == 3


def test_refused_streams_count_as_demand(run: Run) -> None:
    run.look()
    run.cluster.refused += 5
    assert run.look() == 3


def test_fewer_streams_let_engines_leave_after_a_while(run: Run) -> None:
    run.cluster.move(4)
    run.look()
    run.cluster.join()
    run.cluster.move(1)
    assert run.look() == 2 and not run.cluster.asked
    run.look(round(HOLD_S / LOOK_S) + 1)
    assert len(run.cluster.asked) == 1 and len(run.cluster.places) == 2  # it has not left yet
    run.cluster.move(1)
    assert run.look() == 1 and len(run.cluster.keys) == 1


def test_engine_with_streams_is_not_ended(run: Run) -> None:
    run.cluster.move(2)
    (name,) = run.cluster.places
    run.manager.use(config(most=0, least=0))  # Ray is to run none
    run.look(5)
    assert run.cluster.asked == {name} and run.cluster.places
    run.cluster.streams[name] = 0
    run.cluster.move(0)
    assert run.look() == 0 and not run.cluster.keys


def test_other_settings_replace_engines_without_a_gap(run: Run) -> None:
    (old,) = run.cluster.places
    run.manager.use(config("voices.glow.sigma=0.5"))
    assert run.look(2) == 2 and not run.cluster.asked
    run.cluster.join()
    run.look()
    assert run.cluster.asked == {old}


def test_engines_of_a_draining_node_are_replaced_first(run: Run) -> None:
    (old,) = run.cluster.places
    run.cluster.on_draining_nodes = {old}
    assert run.look(2) == 2 and not run.cluster.asked
    run.cluster.join()
    run.look()
    assert run.cluster.asked == {old}
    run.cluster.move(0)
    assert run.look() == 1 and old not in run.cluster.places


def test_engine_that_somebody_else_drained_is_replaced(run: Run) -> None:
    (name,) = run.cluster.places
    run.cluster.streams.clear()
    run.cluster.left = {name}
    assert run.look(2) == 1


@pytest.mark.parametrize(("least", "streams"), [(1, 0), (0, 0), (0, 1)])
def test_cordoned_engine_is_replaced_and_stays(least: int, streams: int) -> None:
    run = Run(config(least=1))
    run.look()
    run.cluster.join()
    run.manager.use(config(least=least))
    run.cluster.move(streams)
    (name,) = run.cluster.places
    run.cluster.placement[name] = "cordoned"
    assert run.look() == 2
    run.cluster.join()
    run.look(round(HOLD_S / LOOK_S) + 2)
    assert len(run.cluster.places) == 2 and not run.cluster.asked


def test_surplus_leaves_after_an_uncordon(run: Run) -> None:
    (name,) = run.cluster.places
    run.cluster.placement[name] = "cordoned"
    run.look()
    run.cluster.join()
    run.look()
    del run.cluster.placement[name]
    assert run.look() == 2 and not run.cluster.asked
    run.look(round(HOLD_S / LOOK_S) + 1)
    run.cluster.move(0)
    assert run.look() == 1


def test_drained_engine_goes_when_its_streams_can_move(run: Run) -> None:
    run.cluster.move(2)
    (old,) = run.cluster.places
    run.cluster.placement[old] = "draining"
    assert run.look(2) == 2
    run.cluster.move(2)
    assert run.cluster.streams[old] == 2, "there is no other engine yet"
    run.cluster.join()
    run.cluster.move(2)
    assert run.look() == 1 and old not in run.cluster.places
    assert not run.cluster.asked, "an uncordon would have kept it"


def test_streams_of_a_drained_engine_get_room_for_all(run: Run) -> None:
    """They take all of the engine, and are more than half of another one."""
    run.cluster.move(4)
    run.cluster.placement = dict.fromkeys(run.cluster.places, "draining")
    assert run.look() == 3


def test_new_manager_counts_no_engine_that_drains(run: Run) -> None:
    run.cluster.move(1)
    (old,) = run.cluster.places
    run.cluster.asked.add(old)  # by the last manager
    run.manager = Manager(config(), run.cluster, run.cluster)
    assert run.look(3) == 2
    run.cluster.join()
    run.cluster.move(1)
    assert run.look() == 1 and old not in run.cluster.places


def test_engine_that_is_lost_is_waited_for(run: Run) -> None:
    run.cluster.streams.clear()
    assert run.look(5) == 1 and not run.cluster.asked


def test_new_manager_finds_the_engines_of_the_last_one(run: Run) -> None:
    again = Run(config())
    again.cluster = run.cluster
    again.manager = Manager(config(), run.cluster, run.cluster)
    assert again.look(3) == 1 and len(run.cluster.keys) == 1


def test_stopped_daemon_leaves_nothing_behind(run: Run) -> None:
    run.manager.stop()
    assert not run.cluster.places and not run.cluster.keys


def test_engine_that_does_not_join_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(config())
    run.look(200)
    told = [record for record in caplog.records if "has not joined" in record.getMessage()]
    assert len(told) == 1 and EngineName.parse(told[0].getMessage().split()[1])
