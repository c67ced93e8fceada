"""Which engine a stream gets, when it gets none and why, and where it moves when its engine is lost."""

import contextlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import engine_link, ipc, wire
from glowd.daemon.config import FileSettings
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.handles.engine import SILENT_NS, EngineHandle, Origin
from glowd.daemon.gateway.handles.link import Link
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.pool import Machine, Pool, load_of
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.replies import SessionPorts
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, Degradation
from tests.harness.router import voice_info
from tests.harness.session import HOP, LIMITS, RATE, mel_message, phase_at, plain_intake
from tests.harness.waiting import WAIT_S

NOW_NS = 1_000_000_000_000
LOST_NS = WAIT_S * 1_000_000_000


def capacity(streams: int, measured: bool = True, round_ms: float = 20.0) -> Capacity:
    return Capacity(streams=streams, measured=measured, share=0.5, chunk_ms=46.44, alone_ms=8.0, round_ms=round_ms)


def overloaded(refuses: bool) -> ipc.Load:
    degraded = Degradation(level=3, refuses=refuses, reason="60% of the chunks of 1 s were late")
    return ipc.Load(ipc.EngineLoad(streams=0, busy=1.0, level=3, degraded=degraded))


class PlacementHarness:
    """Engines of some voices on one machine, and streams in them."""

    def __init__(self, cores: int = 4, now_ns: int = NOW_NS) -> None:
        self.machine, self.now_ns = Machine([], cores), now_ns
        self.sent: dict[str, list[Message]] = {}
        self.unreachable = set[str]()
        self.owner = ClientConnection(b"id", "test", now_ns, self._try_send)
        self.received = list[Message]()
        speaker = SpeakerHandle(list[Message]().append, True, WAIT_S)
        self.streams = StreamRegistry({b"id": self.owner}, speaker, Recordings(FileSettings(directory="/nowhere")))
        self._opened = 0

    def _try_send(self, identity: bytes, parts: list[bytes]) -> bool:
        self.received.append(wire.decode(parts))
        return True

    def add(self, *names: str, **ready: Any) -> Pool:
        """Engines of a voice that are ready."""
        voice = names[0].partition("/")[0]
        engines = [self._engine(name, voice) for name in names]
        self.machine.engines = [*self.machine.engines, *engines]
        for engine in engines:
            self.ready(engine, **ready)
        return Pool(voice, engines, self.machine, self.streams, is_default=voice == "glow")

    def _engine(self, name: str, voice: str) -> EngineHandle:
        sent = self.sent[name] = []

        def send(message: Message) -> bool:
            sent.append(message)
            return name not in self.unreachable

        return EngineHandle(name, voice, send, WAIT_S)

    def ready(
        self,
        engine: EngineHandle,
        streams: int | Capacity | None = 4,
        device: str = "cpu",
        threads: int = 1,
        instance: int = 1,
        whole: bool = False,
    ) -> None:
        found = capacity(streams) if isinstance(streams, int) else streams
        info = voice_info(engine.voice, capacity=found, whole_utterance=whole)
        engine.handle(ipc.Ready(engine.voice, info, instance, device, threads), self._sessions(engine), self.now_ns)

    def _sessions(self, engine: EngineHandle) -> list[Session]:
        return [stream.session for stream in self.streams.placed_in(engine)]

    def open(self, pool: Pool, count: int = 1) -> list[str]:
        """The names of the engines that new streams get; the streams are called s1, s2, ..."""
        return [self._open(f"s{self._next()}", pool.require(self.now_ns)).engine.name for _ in range(count)]

    def _next(self) -> int:
        self._opened += 1
        return self._opened

    def _open(self, name: str, engine: EngineHandle) -> Stream:
        def session_for(ports: SessionPorts) -> Session:
            return Session(
                wire.Open(name, sinks=["null"], seed=9), engine.voice, RATE, 8, LIMITS, ports, plain_intake()
            )

        return self.streams.place(name, self.owner, engine, session_for)

    def begin(self, name: str, engine: EngineHandle) -> Stream:
        """A stream in an engine, which has sent 8 frames and of which 6 are rendered."""
        stream = self._open(name, engine)
        self.send(stream, 0, 0, 8)
        for done, frames in ((1, 1), (6, 5)):
            first, samples = (done - frames) * HOP, frames * HOP
            audio = np.zeros(samples, np.float32)
            message = ipc.Pcm(stream.key, first, samples, frames_done=done, audio=audio, phase=phase_at(done))
            stream.session.engine.pcm(message, self.now_ns)
        return stream

    def send(self, stream: Stream, seq: int, first_frame: int, frames: int) -> None:
        message = mel_message(seq, first_frame, frames)
        stream.session.client.mel(message, self.now_ns)

    def close(self, name: str) -> None:
        stream = self.streams.find(name)
        assert stream is not None
        self.streams.close(stream)

    def refused(self, pool: Pool, code: Code = Code.AT_CAPACITY) -> str:
        with pytest.raises(WireError) as caught:
            pool.require(self.now_ns)
        assert caught.value.code is code
        return caught.value.text

    def placed(self, engine: EngineHandle) -> list[str]:
        return [stream.name for stream in self.streams.placed_in(engine)]

    def errors(self) -> list[Code]:
        return [Code(message.code) for message in self.received if isinstance(message, wire.Error)]


@pytest.fixture
def harness() -> PlacementHarness:
    return PlacementHarness()


# ---------------------------------------------------------- where a stream is placed


def test_equal_engines_fill_evenly(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", "glow/2", streams=2)
    assert harness.open(pool, 6) == ["glow/0", "glow/1", "glow/2"] * 2
    assert harness.refused(pool).startswith(
        "voice 'glow' is at capacity: 6 of 6 streams are open in its engines; close one"
    )


def test_faster_engine_gets_more_streams(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1")
    harness.ready(pool.engines[1], streams=12, instance=2)
    names = harness.open(pool, 16)
    assert names[:4].count("glow/1") == 3 and names.count("glow/1") == 12


def test_closed_stream_frees_its_engine(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", streams=2)
    harness.open(pool, 4)
    harness.close("s2")
    assert harness.open(pool) == ["glow/1"]


def test_engines_without_capacity_never_refuse(harness: PlacementHarness) -> None:
    pool = harness.add("slow/0", "slow/1", streams=None)
    assert harness.open(pool, 5) == ["slow/0", "slow/1", "slow/0", "slow/1", "slow/0"]
    assert pool.capacity(NOW_NS) is None


def test_overloaded_engine_gets_no_stream(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1")
    pool.engines[0].handle(overloaded(refuses=True), [], NOW_NS)
    assert harness.open(pool, 4) == ["glow/1"] * 4
    assert harness.refused(pool) == (
        "voice 'glow' is at capacity: 4 of 8 streams are open in its engines; try again in some seconds; close one, try "
        "again later, or set voices.glow.max_streams to another number (glow/0 is overloaded and takes no new streams now "
        "(0 are open): 60% of the chunks of 1 s were late; glow/1 is at capacity: 4 of 4 streams are open, as many as this "
        "machine was measured to keep up with, with 20.0 ms of work for 46.4 ms of sound)"
    )
    pool.engines[0].handle(overloaded(refuses=False), [], NOW_NS)
    assert harness.open(pool) == ["glow/0"], "an engine that only makes larger chunks still takes streams"


def test_lost_engine_gets_no_stream_and_is_named(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", streams=1)
    harness.now_ns += SILENT_NS
    silent = "it does not answer; it is restarted unless it does soon"
    assert harness.refused(pool, Code.ENGINE_LOST) == (
        f"voice 'glow' is away: glow/0: {silent}; glow/1: {silent}; try again later, or use another voice"
    )
    harness.ready(pool.engines[1], streams=1)
    assert harness.open(pool) == ["glow/1"]
    assert harness.refused(pool).startswith("voice 'glow' is at capacity: 1 of 1 streams are open in its engines; ")
    assert harness.refused(pool).endswith("; glow/0 is not running now)")


def test_voice_capacity_is_sum_with_slowest_times(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", streams=5)
    harness.ready(pool.engines[0], streams=capacity(3, round_ms=22.0), instance=2)
    assert pool.info(NOW_NS) == voice_info("glow", capacity=capacity(8, round_ms=22.0))
    assert pool.info(NOW_NS + SILENT_NS) is None


# ----------------------------------------------------------- engines that share a device


def test_cpu_engines_share_the_cores() -> None:
    harness = PlacementHarness(cores=2)
    glow, other = harness.add("glow/0", "glow/1", streams=4), harness.add("other", streams=8)
    harness.open(glow, 6)  # 1.5 of 2 cores
    harness.open(other, 4)
    assert harness.refused(other) == (
        "voice 'other' is at capacity: 4 of 8 streams are open, and the rest of the 2 cores is taken by glow/0 (3 of 4 "
        "streams), glow/1 (3 of 4 streams); close one of these, try again later, or set voices.other.max_streams to a number"
    )
    assert "glow/0 is at capacity: 3 of 4 streams are open, and the rest of the 2 cores" in harness.refused(glow)
    harness.close("s1")
    harness.open(other, 2)
    harness.refused(other)


def test_gpu_engines_share_it_and_freer_gpu_is_first() -> None:
    harness = PlacementHarness(cores=1)
    glow = harness.add("glow/0", "glow/1", streams=10, device="cuda:0")
    harness.ready(glow.engines[1], streams=10, device="cuda:1", instance=2)
    other = harness.add("other", streams=10, device="cuda:1")
    harness.open(other, 6)
    assert harness.open(glow, 6) == ["glow/0"] * 6, "where the other engine has four tenths of its GPU left"
    assert harness.open(glow, 8).count("glow/0") == 4
    assert "the rest of cuda:1 is taken by other (6 of 10 streams)" in harness.refused(glow)
    assert "the rest of cuda:1 is taken by glow/1 (4 of 10 streams)" in harness.refused(other)


def test_gpu_and_cpu_fill_by_free_share() -> None:
    harness = PlacementHarness(cores=8)
    pool = harness.add("glow/0", "glow/1", streams=2)
    harness.ready(pool.engines[1], streams=10, device="cuda:0", instance=2)
    assert harness.open(pool, 7) == ["glow/0", *["glow/1"] * 5, "glow/0"], (
        "by free share, not by cores that it cannot use"
    )


def test_engine_alone_keeps_its_capacity() -> None:
    harness = PlacementHarness(cores=4)
    wide, narrow = harness.add("wide", streams=9, threads=16), harness.add("narrow", streams=4)
    harness.open(wide, 6)  # two thirds of four cores, whatever it wants with sixteen threads
    assert len(harness.open(narrow, 4)) == 4
    assert "narrow (4 of 4 streams)" in harness.refused(wide)
    for name in harness.placed(narrow.engines[0]):
        harness.close(name)
    assert len(harness.open(wide, 3)) == 3


def test_configured_capacity_counts_and_is_not_reduced() -> None:
    harness = PlacementHarness(cores=1)
    told, measured = harness.add("told", streams=capacity(2, measured=False)), harness.add("measured", streams=4)
    harness.open(measured, 4)
    assert len(harness.open(told, 2)) == 2, "the operator has decided that both fit"
    harness.close("s1")
    assert "told (2 of 2 streams)" in harness.refused(measured)
    assert "the most allowed (voices.told.max_streams)" in harness.refused(told)


def test_whole_utterance_voice_takes_no_share() -> None:
    harness = PlacementHarness(cores=1)
    slow, glow = harness.add("slow", streams=capacity(3, measured=False), whole=True), harness.add("glow", streams=4)
    harness.open(slow, 3)
    harness.open(glow, 4)
    assert "3 of 3 streams are open, the most allowed" in harness.refused(slow)


@st.composite
def machines(draw: st.DrawFn) -> tuple[PlacementHarness, list[Pool]]:
    harness = PlacementHarness(cores=draw(st.integers(1, 8)))
    pools = []
    for voice in range(draw(st.integers(1, 3))):
        pool = harness.add(*(f"v{voice}/{n}" for n in range(draw(st.integers(1, 4)))))
        for engine in pool.engines:
            device = draw(st.sampled_from(["cpu", "cuda:0", "cuda:1"]))
            harness.ready(engine, draw(st.integers(1, 9)), device, draw(st.integers(1, 4)), instance=2)
        pools.append(pool)
    return harness, pools


@given(machines(), st.data())
def test_no_device_is_overcommitted(made: tuple[PlacementHarness, list[Pool]], data: st.DataObject) -> None:
    harness, pools = made
    for _ in range(data.draw(st.integers(0, 40))):
        pool = data.draw(st.sampled_from(pools))
        names = [name for engine in pool.engines for name in harness.placed(engine)]
        if data.draw(st.booleans()) and names:
            harness.close(data.draw(st.sampled_from(names)))
        else:
            with contextlib.suppress(WireError):
                harness.open(pool)
        engines, counts = harness.machine.engines, harness.streams.counts()
        assert all(load_of(engine, counts[engine.name]) <= 1 for engine in engines)
        for device in ("cuda:0", "cuda:1"):
            assert taken(engines, counts, device, 1) <= 1
        assert taken(engines, counts, "cpu", harness.machine.cores) <= harness.machine.cores


def taken(engines: Sequence[EngineHandle], counts: Mapping[str, int], device: str, most: int) -> Fraction:
    """The rule of pool.py: load x threads, of which one engine takes at most all there is."""
    loads = [
        load_of(one, counts[one.name]) * (min(one.threads, most) if device == "cpu" else 1)
        for one in engines
        if one.device == device
    ]
    return sum(loads, Fraction(0))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 8), st.integers(0, 60))
def test_equal_engines_differ_by_at_most_one_stream(engines: int, streams: int, cores: int, asked: int) -> None:
    harness = PlacementHarness(cores)
    pool = harness.add(*(f"glow/{n}" for n in range(engines)), streams=streams)
    for _ in range(asked):
        try:
            harness.open(pool)
        except WireError:
            break
        counts = [harness.streams.counts()[engine.name] for engine in pool.engines]
        assert max(counts) - min(counts) <= 1
    assert len(harness.streams) == min(asked, streams * min(engines, cores)), "the whole machine is used"


# ----------------------------------------------------------------- engines that are lost


def test_streams_of_lost_engine_continue_in_another(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1")
    stream, _ = harness.begin("a", pool.engines[0]), harness.begin("b", pool.engines[1])
    for sent in harness.sent.values():
        sent.clear()
    harness.unreachable.add("glow/0")
    harness.send(stream, 1, 8, 2)
    pool.tick(NOW_NS)
    assert harness.placed(pool.engines[1]) == ["a", "b"] and harness.placed(pool.engines[0]) == []
    start, *frames = harness.sent["glow/1"]
    assert start == ipc.Start(stream.key, 9, 1, lead_frames=1, phase=phase_at(1), attempt=1)
    assert [message.first_frame for message in frames if isinstance(message, ipc.Frames)] == [0, 8]
    harness.send(stream, 2, 10, 2)
    assert isinstance(harness.sent["glow/1"][-1], ipc.Frames), "what comes next goes there too"
    harness.unreachable.clear()
    harness.ready(pool.engines[0], instance=2)
    assert harness.sent["glow/0"][-1] == ipc.DropAll(), "the restarted engine gets no stream back"
    assert harness.errors() == []


def test_streams_without_other_engine_wait_then_move(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", streams=1)
    stream, _ = harness.begin("a", pool.engines[0]), harness.begin("b", pool.engines[1])
    harness.unreachable.add("glow/0")
    harness.send(stream, 1, 8, 2)
    pool.tick(NOW_NS)
    assert harness.placed(pool.engines[0]) == ["a"] and harness.placed(pool.engines[1]) == ["b"]
    harness.close("b")
    pool.tick(NOW_NS)
    assert harness.placed(pool.engines[1]) == ["a"] and harness.errors() == []


def test_stream_without_engine_fails_after_the_wait(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1", streams=1)
    harness.begin("a", pool.engines[0]), harness.begin("b", pool.engines[1])
    pool.engines[1].seen(NOW_NS + LOST_NS)
    pool.tick(NOW_NS + LOST_NS)
    assert harness.errors() == []
    pool.tick(NOW_NS + LOST_NS + 1)
    assert harness.errors() == [Code.ENGINE_LOST]


def test_share_of_lost_engine_is_free_for_its_streams() -> None:
    harness = PlacementHarness(cores=1)
    pool = harness.add("glow/0", "glow/1")
    for name, engine in (("a", 0), ("b", 0), ("c", 1), ("d", 1)):
        harness.begin(name, pool.engines[engine])
    harness.refused(pool)
    harness.unreachable.add("glow/0")
    pool.engines[0].send(ipc.DropAll())
    pool.tick(NOW_NS)
    assert harness.placed(pool.engines[1]) == ["a", "b", "c", "d"]


def test_silent_whole_utterance_engine_keeps_its_streams(harness: PlacementHarness) -> None:
    pool = harness.add("slow/0", "slow/1", streams=None, whole=True)
    harness.begin("a", pool.engines[0])
    harness.now_ns += SILENT_NS
    harness.ready(pool.engines[1], None, whole=True)
    pool.tick(harness.now_ns)
    assert harness.placed(pool.engines[0]) == ["a"]


def test_hung_engine_is_told_to_drop_moved_streams(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", "glow/1")
    stream = harness.begin("a", pool.engines[0])
    harness.now_ns += SILENT_NS
    harness.ready(pool.engines[1])
    pool.tick(harness.now_ns)
    assert harness.sent["glow/0"][-1] == ipc.Drop(stream.key) and harness.placed(pool.engines[1]) == ["a"]


def joined(
    pool: Pool,
    harness: PlacementHarness,
    name: str,
    host: str,
    cores: int = 2,
    distance_ms: float = 0.3,
    **ready: Any,
) -> EngineHandle:
    """An engine that has joined from a machine."""
    engine = harness._engine(name, pool.voice)
    link = Link(engine_link.VERSION)
    link.echo(engine_link.Echo(NOW_NS, NOW_NS, NOW_NS), NOW_NS + int(distance_ms * 1e6))
    engine.connect(Origin(name, "pool", host, cores), lambda message: harness.sent[name].append(message) or True, link)  # type: ignore[func-returns-value]
    harness.machine.engines = [*harness.machine.engines, engine]
    pool.engines.append(engine)
    harness.ready(engine, **ready)
    return engine


def test_engines_of_other_machines_bring_their_own_cores() -> None:
    harness = PlacementHarness(cores=1)
    pool = harness.add("glow/0", "glow/1", streams=4)
    assert len(harness.open(pool, 4)) == 4
    with pytest.raises(WireError, match="the rest of the 1 cores is taken"):
        pool.require(NOW_NS)
    joined(pool, harness, "glow/far", "far", streams=4)
    assert harness.open(pool, 4) == ["glow/far"] * 4
    with pytest.raises(WireError, match="glow/far is at capacity"):
        pool.require(NOW_NS)


def test_engines_of_one_other_machine_share_its_cores() -> None:
    harness = PlacementHarness(cores=1)
    pool = Pool("glow", [], harness.machine, harness.streams)
    for name in ("a", "b"):
        joined(pool, harness, name, "far", cores=1, streams=4)
    assert len(harness.open(pool, 4)) == 4
    with pytest.raises(WireError, match="the rest of the 1 cores is taken"):
        pool.require(NOW_NS)


def test_engine_that_joined_from_this_machine_shares_its_cores() -> None:
    harness = PlacementHarness(cores=1)
    harness.machine.host = "here"
    pool = harness.add("glow/0", streams=4)
    joined(pool, harness, "glow/near", "here", streams=4)
    assert len(harness.open(pool, 4)) == 4
    with pytest.raises(WireError, match="the rest of the 1 cores is taken"):
        pool.require(NOW_NS)


def test_voice_without_engines_says_how_one_joins() -> None:
    harness = PlacementHarness()
    pool = Pool("glow", [], harness.machine, harness.streams)
    with pytest.raises(
        WireError, match="no engine has joined; on another machine: GLOWD_JOIN=ADDRESS glowd engine --voice glow"
    ) as caught:
        pool.require(NOW_NS)
    assert caught.value.code == Code.ENGINE_LOST
