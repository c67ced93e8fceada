"""The front desk: who is admitted, and what the others are told."""

import dataclasses

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.handles import SILENT_NS
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, Degradation, Snapshot
from tests.daemon.gateway.router_rig import HOP, RATE, Hall, mel


@pytest.fixture
def hall() -> Hall:
    found = Hall()
    found.hello(b"a", b"b")
    return found


# ------------------------------------------------------------------- greetings


def test_welcome_says_what_there_is_now() -> None:
    hall = Hall("server.max_streams=3", device=False)
    (welcome,) = hall.say(b"a", wire.Hello("a", t_client_ns=5))
    assert isinstance(welcome, wire.Welcome)
    assert [voice["name"] for voice in welcome.voices] == ["glow"], "the other engine is not there yet"
    assert welcome.sinks == ["socket", "file", "null"], "there is no device"
    assert (welcome.version, welcome.t_client_ns, welcome.t_daemon_ns) == (1, 5, hall.now_ns)
    assert welcome.limits["max_streams"] == 3 and welcome.limits["max_chunk_frames"] == 512
    hall.ready("slow")
    hall.speaker.handle(ipc.DeviceReady("card", 48_000, 20.0, 1), [], hall.now_ns)
    (again,) = hall.say(b"a", wire.Hello("a"))
    assert isinstance(again, wire.Welcome)
    assert len(again.voices) == 2 and again.sinks[0] == "device"


@pytest.mark.parametrize("message", [wire.Status(), wire.Open("s"), wire.Bye(), mel("s")])
def test_nothing_comes_before_hello(message: Message) -> None:
    hall = Hall()
    assert hall.refused(b"x", message, fatal=True).code == Code.NO_HELLO
    assert hall.desk.peers == {}


@pytest.mark.parametrize(("low", "high"), [(3, 9), (7, 7)])
def test_a_client_without_a_common_version_is_told_both(low: int, high: int) -> None:
    error = Hall().refused(b"x", wire.Hello("x", low, high), fatal=True)
    assert error.code == Code.BAD_VERSION
    assert error.text == f"the client speaks versions {low}..{high}, glowd speaks 1..2"


def test_there_is_room_for_so_many_clients_and_a_place_is_free_at_once() -> None:
    hall = Hall("server.max_clients=2")
    hall.hello(b"a", b"b")
    error = hall.refused(b"c", wire.Hello("c"), fatal=True)
    assert error.code == Code.TOO_MANY_CLIENTS and error.text == "2 clients are connected, the most allowed"
    hall.say(b"a", wire.Bye())
    hall.hello(b"c")


def test_ping_and_status_are_answered(hall: Hall) -> None:
    found = Snapshot(state="degraded", clients=2)
    hall.desk.snapshot = lambda: found
    assert hall.say(b"a", wire.Ping(7)) == [wire.Pong(7, hall.now_ns)]
    assert hall.say(b"a", wire.Status()) == [wire.State("", "degraded", found.to_map())]


# ------------------------------------------------------------------- admission


def test_opened_says_what_was_asked_for_and_granted(hall: Hall) -> None:
    opened = hall.open(b"a", "s", "socket")
    assert (opened.voice, opened.rate_hz, opened.hop, opened.generation) == ("glow", RATE, HOP, 0)
    assert opened.credit_frames == 2000 * RATE // (1000 * HOP), "server.credit_ms"


def test_credit_is_always_enough_for_what_engine_and_device_wait_for() -> None:
    hall = Hall("server.credit_ms=100")
    hall.hello(b"a")
    hall.ready("glow", look_ahead_frames=9)
    few, more = hall.open(b"a", "s", "null", prefill_ms=0), hall.open(b"a", "t", "device", prefill_ms=3000)
    assert few.credit_frames > 9 + 16, "chunks grow to max_chunk_frames under overload"
    assert more.credit_frames > 9 + 16 + 3.0 * RATE / HOP


def test_an_utterance_is_as_long_as_the_daemon_allows_and_no_longer() -> None:
    hall = Hall("server.max_utterance_s=1")
    hall.hello(b"a")
    most = RATE // HOP
    assert hall.open(b"a", "s", "null").credit_frames == most
    error = hall.refused(b"a", mel("s", frames=most + 1))
    assert error.code == Code.TOO_LONG and error.expected_frame == 0


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (wire.Open("s"), Code.STREAM_EXISTS, "a stream 's' is open already; close it or take another name"),
        (wire.Open("t", "bass"), Code.UNKNOWN_VOICE, "there is no voice 'bass'; known: glow, slow"),
        (wire.Open("t", "slow"), Code.ENGINE_LOST, "the engine of voice 'slow' is not running now; try again"),
        (
            wire.Open("t", format={"hop": 200, "fmax_hz": 7600}),
            Code.WRONG_FORMAT,
            "hop = 200 (voice: 256), fmax_hz = 7600",
        ),
    ],
)
def test_an_open_that_is_refused_makes_no_stream(hall: Hall, asked: wire.Open, code: Code, said: str) -> None:
    hall.open(b"b", "s")
    error = hall.refused(b"a", asked, fatal=True)
    assert error.code == code and said in error.text and error.stream == asked.stream
    assert set(hall.desk.streams.sessions) == {"s"} and len(hall.desk.streams.by_key) == 1


def test_the_device_is_refused_while_there_is_none() -> None:
    hall = Hall(device=False)
    hall.hello(b"a")
    error = hall.refused(b"a", wire.Open("s", sinks=["socket", "device"]), fatal=True)
    assert error.code == Code.SINK_UNAVAILABLE and "no sound device" in error.text
    hall.open(b"a", "s", "socket")


def test_a_voice_whose_engine_fell_silent_is_refused(hall: Hall) -> None:
    hall.now_ns += SILENT_NS
    assert hall.refused(b"a", wire.Open("s", sinks=["null"]), fatal=True).code == Code.ENGINE_LOST


def test_the_last_stream_is_refused_and_a_closed_one_makes_room() -> None:
    hall = Hall("server.max_streams=2")
    hall.hello(b"a", b"b")
    hall.open(b"a", "s")
    hall.open(b"b", "t")
    error = hall.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY
    assert error.text == (
        "2 of 2 streams are open, the most allowed (server.max_streams); close one, or try again later"
    )
    hall.say(b"b", wire.Close("t"))
    hall.open(b"a", "u")
    assert len(hall.desk.streams.by_key) == 2


MEASURED = Capacity(streams=2, measured=True, share=0.7, chunk_ms=46.44, alone_ms=14.0, round_ms=29.96)


def test_a_voice_at_its_measured_capacity_refuses_with_the_numbers_and_the_remedy() -> None:
    hall = Hall()
    hall.ready("glow", capacity=MEASURED)
    hall.ready("slow", capacity=None)
    (welcome,) = hall.say(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome)
    assert [voice["capacity"] for voice in welcome.voices] == [MEASURED.to_map(), None]
    hall.open(b"a", "s")
    hall.open(b"a", "t")
    hall.say(b"a", mel("s"), wire.Pause("s"))  # paused or idle, a stream may speak at any time
    error = hall.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY and error.stream == "u"
    assert error.text == (
        "voice 'glow' is at capacity: 2 of 2 streams are open, as many as this machine was measured to keep up with, with "
        "30.0 ms of work for 46.4 ms of sound; close one, try again later, or set voices.glow.max_streams to another number"
    )
    hall.open(b"a", "other", "null", voice="slow")  # a voice has its own capacity
    hall.say(b"a", wire.Close("t"))
    hall.open(b"a", "u")


def test_a_configured_number_is_said_to_be_one() -> None:
    hall = Hall()
    hall.hello(b"a")
    hall.ready("glow", capacity=Capacity(streams=1, measured=False))
    hall.open(b"a", "s")
    assert hall.refused(b"a", wire.Open("t", sinks=["null"]), fatal=True).text == (
        "voice 'glow' is at capacity: 1 of 1 streams are open, the most allowed (voices.glow.max_streams); "
        "close one, or try again later"
    )


def test_a_voice_that_has_fallen_behind_takes_no_new_streams_and_keeps_those_it_has(hall: Hall) -> None:
    degraded = Degradation(level=2, refuses=False, reason="60% of the chunks of 1 s were late, by up to 90 ms")
    load = ipc.EngineLoad(streams=1, busy=1.0, level=2, degraded=degraded)
    refusing = dataclasses.replace(load, degraded=dataclasses.replace(degraded, refuses=True))
    hall.open(b"a", "s")
    hall.engines["glow"].handle(ipc.Load(load), hall.now_ns)
    hall.open(b"a", "t")
    hall.engines["glow"].handle(ipc.Load(refusing), hall.now_ns)
    error = hall.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY and error.text == (
        "voice 'glow' is overloaded and takes no new streams now (2 are open): "
        "60% of the chunks of 1 s were late, by up to 90 ms; try again in some seconds"
    )
    hall.say(b"a", mel("s"))
    assert hall.desk.streams.sessions["s"].generation.frames_in == 4
    hall.engines["glow"].handle(ipc.Load(dataclasses.replace(load, level=0, degraded=None)), hall.now_ns)
    hall.open(b"a", "u")


def test_keys_are_never_used_twice(hall: Hall) -> None:
    keys = set[int]()
    for _ in range(3):
        hall.open(b"a", "s")
        for generation in range(3):
            hall.say(b"a", mel("s", generation=generation))
            keys |= set(hall.desk.streams.by_key)
            hall.say(b"a", wire.Flush("s", generation))
        hall.say(b"a", wire.Close("s"))
        assert hall.desk.streams.by_key == {}
    assert len(keys) == 9
