"""Which engine a stream gets, when it gets none and why, and where it goes when its engine is gone."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.handles import SILENT_NS, Engine
from glowd.daemon.gateway.placement import Machine, Pool, load_of
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, Degradation
from tests.daemon.gateway.router_rig import voice_info
from tests.daemon.gateway.session_rig import Rig
from tests.patience import WAIT_S

NOW_NS = 1_000_000_000_000
LOST_NS = WAIT_S * 1_000_000_000


def capacity(streams: int, measured: bool = True, round_ms: float = 20.0) -> Capacity:
    return Capacity(streams=streams, measured=measured, share=0.5, chunk_ms=46.44, alone_ms=8.0, round_ms=round_ms)


def overloaded(refuses: bool) -> ipc.Load:
    degraded = Degradation(level=3, refuses=refuses, reason="60% of the chunks of 1 s were late")
    return ipc.Load(ipc.EngineLoad(streams=0, busy=1.0, level=3, degraded=degraded))


class Place:
    """Engines of some voices on one machine; a stream is its name, or a session where it matters."""

    def __init__(self, cores: int = 4, now_ns: int = NOW_NS) -> None:
        self.machine, self.now_ns = Machine([], cores), now_ns
        self.sent: dict[str, list[Message]] = {}
        self.dead = set[str]()
        self.opened = 0

    def add(self, *names: str, **ready: Any) -> Pool:
        """Engines of a voice, which say that they are ready."""
        voice = names[0].partition("/")[0]
        engines = [self._engine(name, voice) for name in names]
        self.machine.engines = [*self.machine.engines, *engines]
        for engine in engines:
            self.ready(engine, **ready)
        return Pool(voice, engines, self.machine)

    def _engine(self, name: str, voice: str) -> Engine:
        sent = self.sent[name] = []

        def send(message: Message) -> bool:
            sent.append(message)
            return name not in self.dead

        return Engine(name, voice, send, WAIT_S)

    def ready(
        self,
        engine: Engine,
        streams: Any = 4,
        device: str = "cpu",
        threads: int = 1,
        instance: int = 1,
        whole: bool = False,
    ) -> None:
        found = capacity(streams) if isinstance(streams, int) else streams
        info = voice_info(engine.voice, capacity=found, whole_utterance=whole)
        engine.handle(ipc.Ready(engine.voice, info, instance, device, threads), self.now_ns)

    def open(self, pool: Pool, count: int = 1) -> list[str]:
        """The engines that so many streams get."""
        found = []
        for _ in range(count):
            engine = pool.require(self.now_ns)
            self.opened += 1
            engine.streams[f"s{self.opened}"] = Rig("null").session
            found.append(engine.name)
        return found

    def refused(self, pool: Pool, code: Code = Code.AT_CAPACITY) -> str:
        with pytest.raises(WireError) as caught:
            pool.require(self.now_ns)
        assert caught.value.code is code
        return caught.value.text


@pytest.fixture
def place() -> Place:
    return Place()


# ------------------------------------------------------------- where a stream goes


def test_equal_engines_take_turns_until_all_are_full(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", "glow/2", streams=2)
    assert place.open(pool, 6) == ["glow/0", "glow/1", "glow/2"] * 2
    assert place.refused(pool).startswith(
        "voice 'glow' is at capacity: 6 of 6 streams are open in its engines; close one"
    )


def test_room_is_a_share_so_that_a_faster_engine_gets_more(place: Place) -> None:
    pool = place.add("glow/0", "glow/1")
    place.ready(pool.engines[1], streams=12, instance=2)
    names = place.open(pool, 16)
    assert names[:4].count("glow/1") == 3 and names.count("glow/1") == 12


def test_a_stream_that_was_closed_makes_room_where_it_was(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", streams=2)
    place.open(pool, 4)
    pool.forget("s2")
    assert place.open(pool) == ["glow/1"]


def test_engines_without_a_capacity_share_the_streams_and_never_refuse(place: Place) -> None:
    pool = place.add("slow/0", "slow/1", streams=None)
    assert place.open(pool, 5) == ["slow/0", "slow/1", "slow/0", "slow/1", "slow/0"]
    assert pool.capacity(NOW_NS) is None


def test_an_engine_that_is_overloaded_is_passed_over(place: Place) -> None:
    pool = place.add("glow/0", "glow/1")
    pool.engines[0].handle(overloaded(refuses=True), NOW_NS)
    assert place.open(pool, 4) == ["glow/1"] * 4
    assert place.refused(pool) == (
        "voice 'glow' is at capacity: 4 of 8 streams are open in its engines; try again in some seconds; close one, try "
        "again later, or set voices.glow.max_streams to another number (glow/0 is overloaded and takes no new streams now "
        "(0 are open): 60% of the chunks of 1 s were late; glow/1 is at capacity: 4 of 4 streams are open, as many as this "
        "machine was measured to keep up with, with 20.0 ms of work for 46.4 ms of sound)"
    )
    pool.engines[0].handle(overloaded(refuses=False), NOW_NS)
    assert place.open(pool) == ["glow/0"], "one that only makes larger chunks still takes streams"


def test_an_engine_that_is_not_there_is_passed_over_and_named(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", streams=1)
    place.now_ns += SILENT_NS
    assert "the engine of voice 'glow' is not running now" in place.refused(pool, Code.ENGINE_LOST)
    place.ready(pool.engines[1], streams=1)
    assert place.open(pool) == ["glow/1"]
    assert place.refused(pool).startswith("voice 'glow' is at capacity: 1 of 1 streams are open in its engines; ")
    assert place.refused(pool).endswith("; glow/0 is not running now)")


def test_a_voice_is_told_once_with_the_sum_and_the_slowest_times(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", streams=5)
    place.ready(pool.engines[0], streams=capacity(3, round_ms=22.0), instance=2)
    assert pool.info(NOW_NS) == voice_info("glow", capacity=capacity(8, round_ms=22.0))
    assert pool.info(NOW_NS + SILENT_NS) is None


# --------------------------------------------------------- what engines leave one another


def test_engines_on_the_cpu_share_the_cores() -> None:
    place = Place(cores=2)
    glow, other = place.add("glow/0", "glow/1", streams=4), place.add("other", streams=8)
    place.open(glow, 6)  # 1.5 of 2 cores
    place.open(other, 4)
    assert place.refused(other) == (
        "voice 'other' is at capacity: 4 of 8 streams are open, and the rest of the 2 cores is taken by glow/0 (3 of 4 "
        "streams), glow/1 (3 of 4 streams); close one of these, try again later, or set voices.other.max_streams to a number"
    )
    assert "glow/0 is at capacity: 3 of 4 streams are open, and the rest of the 2 cores" in place.refused(glow)
    glow.forget("s1")
    place.open(other, 2)
    place.refused(other)


def test_engines_on_one_gpu_share_it_and_the_freer_gpu_is_taken_first() -> None:
    place = Place(cores=1)
    glow = place.add("glow/0", "glow/1", streams=10, device="cuda:0")
    place.ready(glow.engines[1], streams=10, device="cuda:1", instance=2)
    other = place.add("other", streams=10, device="cuda:1")
    place.open(other, 6)
    assert place.open(glow, 6) == ["glow/0"] * 6, "where the other engine has four tenths of its GPU left"
    assert place.open(glow, 8).count("glow/0") == 4
    assert "the rest of cuda:1 is taken by other (6 of 10 streams)" in place.refused(glow)
    assert "the rest of cuda:1 is taken by glow/1 (4 of 10 streams)" in place.refused(other)


def test_a_gpu_and_a_cpu_fill_up_together() -> None:
    place = Place(cores=8)
    pool = place.add("glow/0", "glow/1", streams=2)
    place.ready(pool.engines[1], streams=10, device="cuda:0", instance=2)
    assert place.open(pool, 7) == ["glow/0", *["glow/1"] * 5, "glow/0"], "by room, not by cores that nobody can use"


def test_threads_count_and_an_engine_alone_is_never_cut() -> None:
    place = Place(cores=4)
    wide, narrow = place.add("wide", streams=9, threads=16), place.add("narrow", streams=4)
    place.open(wide, 6)  # two thirds of four cores, whatever it wants with sixteen threads
    assert len(place.open(narrow, 4)) == 4
    assert "narrow (4 of 4 streams)" in place.refused(wide)
    for stream in list(narrow.engines[0].streams):
        narrow.forget(stream)
    assert len(place.open(wide, 3)) == 3


def test_a_configured_capacity_is_not_cut_but_counts() -> None:
    place = Place(cores=1)
    told, measured = place.add("told", streams=capacity(2, measured=False)), place.add("measured", streams=4)
    place.open(measured, 4)
    assert len(place.open(told, 2)) == 2, "the operator says that both can be"
    measured.forget("s1")
    assert "told (2 of 2 streams)" in place.refused(measured)
    assert "the most allowed (voices.told.max_streams)" in place.refused(told)


def test_a_voice_without_a_pace_to_keep_takes_nothing_from_those_that_have_one() -> None:
    place = Place(cores=1)
    slow, glow = place.add("slow", streams=capacity(3, measured=False), whole=True), place.add("glow", streams=4)
    place.open(slow, 3)
    place.open(glow, 4)
    assert "3 of 3 streams are open, the most allowed" in place.refused(slow)


@st.composite
def machines(draw: st.DrawFn) -> tuple[Place, list[Pool]]:
    place = Place(cores=draw(st.integers(1, 8)))
    pools = []
    for voice in range(draw(st.integers(1, 3))):
        pool = place.add(*(f"v{voice}/{n}" for n in range(draw(st.integers(1, 4)))))
        for engine in pool.engines:
            device = draw(st.sampled_from(["cpu", "cuda:0", "cuda:1"]))
            place.ready(engine, draw(st.integers(1, 9)), device, draw(st.integers(1, 4)), instance=2)
        pools.append(pool)
    return place, pools


@given(machines(), st.data())
def test_no_engine_and_no_device_is_ever_asked_for_more_than_it_has(
    made: tuple[Place, list[Pool]], data: st.DataObject
) -> None:
    place, pools = made
    for _ in range(data.draw(st.integers(0, 40))):
        pool = data.draw(st.sampled_from(pools))
        names = [name for engine in pool.engines for name in engine.streams]
        if data.draw(st.booleans()) and names:
            pool.forget(data.draw(st.sampled_from(names)))
        elif pool.best(NOW_NS):
            place.open(pool)
        else:
            place.refused(pool)
        assert all(load_of(engine) <= 1 for engine in place.machine.engines)
        for device in ("cuda:0", "cuda:1"):
            assert taken(place.machine.engines, device, 1) <= 1
        assert taken(place.machine.engines, "cpu", place.machine.cores) <= place.machine.cores


def taken(engines: Sequence[Engine], device: str, most: int) -> Fraction:
    """As the rule says it, on paper: load x threads, of which an engine alone cannot take more than there is."""
    return sum(
        (load_of(one) * (min(one.threads, most) if device == "cpu" else 1) for one in engines if one.device == device),
        Fraction(0),
    )


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 8), st.integers(0, 60))
def test_equal_engines_differ_by_one_stream_at_most(engines: int, streams: int, cores: int, asked: int) -> None:
    place = Place(cores)
    pool = place.add(*(f"glow/{n}" for n in range(engines)), streams=streams)
    for _ in range(asked):
        if pool.best(NOW_NS) is None:
            break
        place.open(pool)
        counts = [len(engine.streams) for engine in pool.engines]
        assert max(counts) - min(counts) <= 1
    total = sum(len(engine.streams) for engine in pool.engines)
    assert total == min(asked, streams * min(engines, cores)), "all that the machine has is given"


# -------------------------------------------------------------------- an engine dies


def begun(pool: Pool, engine: int, name: str) -> Rig:
    """A stream that speaks, placed in one of the engines."""
    rig = Rig("null")
    rig.session.name = name
    rig.session.move(pool.engines[engine].send)
    pool.engines[engine].streams[name] = rig.session
    rig.send(8)
    rig.render(6)
    return rig


def test_streams_of_a_dead_engine_go_on_in_another_where_they_were(place: Place) -> None:
    pool = place.add("glow/0", "glow/1")
    rig, other = begun(pool, 0, "a"), begun(pool, 1, "b")
    for sent in place.sent.values():
        sent.clear()
    place.dead.add("glow/0")
    rig.send(2)
    pool.tick(NOW_NS)
    assert list(pool.engines[1].streams) == ["b", "a"] and not pool.engines[0].streams
    start, *frames = place.sent["glow/1"]
    assert start == ipc.Start(rig.key, 9, 1) and [f.first_frame for f in frames if isinstance(f, ipc.Frames)] == [
        1,
        8,
    ]
    rig.send(2)
    assert isinstance(place.sent["glow/1"][-1], ipc.Frames), "and what comes next goes there"
    place.dead.clear()
    place.ready(pool.engines[0], instance=2)
    assert place.sent["glow/0"][-1] == ipc.DropAll(), "the new life of the old one knows nothing of it"
    assert other.said(wire.Error) == []


def test_where_no_other_has_room_they_wait_and_move_as_soon_as_one_has(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", streams=1)
    rig, other = begun(pool, 0, "a"), begun(pool, 1, "b")
    place.dead.add("glow/0")
    rig.send(2)
    pool.tick(NOW_NS)
    assert list(pool.engines[0].streams) == ["a"] and list(pool.engines[1].streams) == ["b"]
    pool.forget("b")
    pool.tick(NOW_NS)
    assert list(pool.engines[1].streams) == ["a"]
    assert rig.said(wire.Error) == other.said(wire.Error) == []


def test_a_stream_that_can_go_nowhere_is_given_up_in_the_end(place: Place) -> None:
    pool = place.add("glow/0", "glow/1", streams=1)
    rig, other = begun(pool, 0, "a"), begun(pool, 1, "b")
    pool.engines[1].heard(NOW_NS + LOST_NS)
    pool.tick(NOW_NS + LOST_NS)
    assert rig.said(wire.Error) == []
    pool.tick(NOW_NS + LOST_NS + 1)
    assert [error.code for error in rig.said(wire.Error)] == [Code.ENGINE_LOST] and other.said(wire.Error) == []


def test_the_room_that_a_dead_engine_took_on_the_machine_is_the_other_engines() -> None:
    place = Place(cores=1)
    pool = place.add("glow/0", "glow/1")
    begun(pool, 0, "a"), begun(pool, 0, "b"), begun(pool, 1, "c"), begun(pool, 1, "d")
    place.refused(pool)
    place.dead.add("glow/0")
    pool.engines[0].send(ipc.DropAll())
    pool.tick(NOW_NS)
    assert list(pool.engines[1].streams) == ["c", "d", "a", "b"]


def test_the_silence_of_an_engine_that_renders_a_whole_utterance_moves_nothing(place: Place) -> None:
    pool = place.add("slow/0", "slow/1", streams=None, whole=True)
    begun(pool, 0, "a")
    place.now_ns += SILENT_NS
    place.ready(pool.engines[1], None, whole=True)
    pool.tick(place.now_ns)
    assert list(pool.engines[0].streams) == ["a"]


def test_an_engine_that_only_hung_is_told_to_forget_what_has_moved(place: Place) -> None:
    pool = place.add("glow/0", "glow/1")
    rig = begun(pool, 0, "a")
    place.now_ns += SILENT_NS
    place.ready(pool.engines[1])
    pool.tick(place.now_ns)
    assert place.sent["glow/0"][-1] == ipc.Drop(rig.key) and list(pool.engines[1].streams) == ["a"]
