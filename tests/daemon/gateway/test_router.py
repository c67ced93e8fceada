"""Which clients and which streams are admitted, and how the others are refused."""

import dataclasses

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.handles.engine import SILENT_NS
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, Degradation
from tests.harness.router import HOP, RATE, RouterHarness, mel_message


@pytest.fixture
def harness() -> RouterHarness:
    found = RouterHarness()
    found.connect(b"a", b"b")
    return found


# ------------------------------------------------------------------- greetings


def test_welcome_lists_alive_voices_and_sinks() -> None:
    harness = RouterHarness("server.max_streams=3", device=False)
    (welcome,) = harness.send(b"a", wire.Hello("a", t_client_ns=5))
    assert isinstance(welcome, wire.Welcome)
    assert [voice["name"] for voice in welcome.voices] == ["glow"], "the other engine has not started"
    assert welcome.sinks == ["socket", "file", "null"], "there is no device"
    assert (welcome.version, welcome.t_client_ns, welcome.t_daemon_ns) == (1, 5, harness.now_ns)
    assert welcome.limits["max_streams"] == 3 and welcome.limits["max_chunk_frames"] == 512
    harness.engine_ready("slow")
    harness.from_speaker(ipc.DeviceReady("card", 48_000, 20.0, 1))
    (again,) = harness.send(b"a", wire.Hello("a"))
    assert isinstance(again, wire.Welcome)
    assert len(again.voices) == 2 and again.sinks[0] == "device"


@pytest.mark.parametrize("message", [wire.Status(), wire.Open("s"), wire.Bye(), mel_message("s")])
def test_message_before_hello_is_refused(message: Message) -> None:
    harness = RouterHarness()
    assert harness.refused(b"x", message, fatal=True).code == Code.NO_HELLO
    assert harness.clients == set()


@pytest.mark.parametrize(("low", "high"), [(wire.VERSION + 1, wire.VERSION + 6), (7, 7)])
def test_unsupported_version_is_refused(low: int, high: int) -> None:
    error = RouterHarness().refused(b"x", wire.Hello("x", low, high), fatal=True)
    assert error.code == Code.BAD_VERSION
    assert error.text == f"the client supports versions {low}..{high}, glowd supports 1..{wire.VERSION}"


def test_client_limit_refuses_then_frees() -> None:
    harness = RouterHarness("server.max_clients=2")
    harness.connect(b"a", b"b")
    error = harness.refused(b"c", wire.Hello("c"), fatal=True)
    assert (
        error.code == Code.TOO_MANY_CLIENTS
        and error.text == "2 clients are connected, the most allowed (server.max_clients); try again later"
    )
    harness.send(b"a", wire.Bye())
    harness.connect(b"c")


def test_ping_and_status_are_answered(harness: RouterHarness) -> None:
    assert harness.send(b"a", wire.Ping(7)) == [wire.Pong(7, harness.now_ns)]
    (state,) = harness.send(b"a", wire.Status())
    assert isinstance(state, wire.State) and (state.stream, state.state) == ("", "loading")
    assert wire.Snapshot.from_map(state.info).clients == 2


# ------------------------------------------------------------------- admission


def test_opened_reports_voice_and_credit(harness: RouterHarness) -> None:
    opened = harness.open(b"a", "s", "socket")
    assert (opened.voice, opened.rate_hz, opened.hop, opened.generation) == ("glow", RATE, HOP, 0)
    assert opened.credit_frames == 2000 * RATE // (1000 * HOP), "server.credit_ms"


def test_credit_covers_look_ahead_chunk_and_prefill() -> None:
    harness = RouterHarness("server.credit_ms=100")
    harness.connect(b"a")
    harness.engine_ready("glow", look_ahead_frames=9)
    few, more = harness.open(b"a", "s", "null", prefill_ms=0), harness.open(b"a", "t", "device", prefill_ms=3000)
    assert few.credit_frames > 9 + 16, "chunks grow to max_chunk_frames under overload"
    assert more.credit_frames > 9 + 16 + 3.0 * RATE / HOP


def test_utterance_longer_than_limit_is_refused() -> None:
    harness = RouterHarness("server.max_utterance_s=1")
    harness.connect(b"a")
    most = RATE // HOP
    assert harness.open(b"a", "s", "null").credit_frames == most
    error = harness.refused(b"a", mel_message("s", frames=most + 1))
    assert error.code == Code.TOO_LONG and error.expected_frame == 0


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (wire.Open("s"), Code.STREAM_EXISTS, "a stream 's' is open already; close it or choose another name"),
        (wire.Open("t", "bass"), Code.UNKNOWN_VOICE, "there is no voice 'bass'; choose one of glow, slow"),
        (wire.Open("t", "slow"), Code.ENGINE_LOST, "voice 'slow' is loading; try again in some seconds"),
        (
            wire.Open("t", format={"hop": 200, "fmax_hz": 7600}),
            Code.WRONG_FORMAT,
            "hop = 200 (voice: 256), fmax_hz = 7600",
        ),
    ],
)
def test_refused_open_makes_no_stream(harness: RouterHarness, asked: wire.Open, code: Code, said: str) -> None:
    harness.open(b"b", "s")
    error = harness.refused(b"a", asked, fatal=True)
    assert error.code == code and said in error.text and error.stream == asked.stream
    assert harness.stream_names == {"s"} and len(harness.streams.keys) == 1


def test_device_sink_without_device_is_refused() -> None:
    harness = RouterHarness(device=False)
    harness.connect(b"a")
    error = harness.refused(b"a", wire.Open("s", sinks=["socket", "device"]), fatal=True)
    assert error.code == Code.SINK_UNAVAILABLE and "no sound device" in error.text
    harness.open(b"a", "s", "socket")


def test_voice_with_silent_engine_is_refused(harness: RouterHarness) -> None:
    harness.now_ns += SILENT_NS
    assert harness.refused(b"a", wire.Open("s", sinks=["null"]), fatal=True).code == Code.ENGINE_LOST


def test_stream_limit_refuses_then_frees() -> None:
    harness = RouterHarness("server.max_streams=2")
    harness.connect(b"a", b"b")
    harness.open(b"a", "s")
    harness.open(b"b", "t")
    error = harness.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY
    assert error.text == (
        "2 of 2 streams are open, the most allowed (server.max_streams); close one, or try again later"
    )
    harness.send(b"b", wire.Close("t"))
    harness.open(b"a", "u")
    assert len(harness.streams.keys) == 2


MEASURED = Capacity(streams=2, measured=True, share=0.7, chunk_ms=46.44, alone_ms=14.0, round_ms=29.96)


def test_measured_capacity_refuses_with_figures() -> None:
    harness = RouterHarness()
    harness.engine_ready("glow", capacity=MEASURED)
    harness.engine_ready("slow", capacity=None)
    (welcome,) = harness.send(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome)
    assert [voice["capacity"] for voice in welcome.voices] == [MEASURED.to_map(), None]
    harness.open(b"a", "s")
    harness.open(b"a", "t")
    harness.send(b"a", mel_message("s"), wire.Pause("s"))  # paused or idle, a stream may speak at any time
    error = harness.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY and error.stream == "u"
    assert error.text == (
        "voice 'glow' is at capacity: 2 of 2 streams are open, as many as this machine was measured to keep up with, with "
        "30.0 ms of work for 46.4 ms of sound; close one, try again later, or set voices.glow.max_streams to another number"
    )
    harness.open(b"a", "other", "null", voice="slow")  # a voice has its own capacity
    harness.send(b"a", wire.Close("t"))
    harness.open(b"a", "u")


def test_configured_capacity_refuses_naming_the_setting() -> None:
    harness = RouterHarness()
    harness.connect(b"a")
    harness.engine_ready("glow", capacity=Capacity(streams=1, measured=False))
    harness.open(b"a", "s")
    assert harness.refused(b"a", wire.Open("t", sinks=["null"]), fatal=True).text == (
        "voice 'glow' is at capacity: 1 of 1 streams are open, the most allowed (voices.glow.max_streams); "
        "close one, or try again later"
    )


def test_overloaded_voice_refuses_new_streams_only(harness: RouterHarness) -> None:
    degraded = Degradation(level=2, refuses=False, reason="60% of the chunks of 1 s were late, by up to 90 ms")
    load = ipc.EngineLoad(streams=1, busy=1.0, level=2, degraded=degraded)
    refusing = dataclasses.replace(load, degraded=dataclasses.replace(degraded, refuses=True))
    harness.open(b"a", "s")
    harness.from_engine("glow", ipc.Load(load))
    harness.open(b"a", "t")
    harness.from_engine("glow", ipc.Load(refusing))
    error = harness.refused(b"a", wire.Open("u", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY and error.text == (
        "voice 'glow' is overloaded and takes no new streams now (2 are open): "
        "60% of the chunks of 1 s were late, by up to 90 ms; try again in some seconds"
    )
    harness.send(b"a", mel_message("s"))
    assert harness.session("s").state.utterance.frames_in == 4
    harness.from_engine("glow", ipc.Load(dataclasses.replace(load, level=0, degraded=None)))
    harness.open(b"a", "u")


def test_voice_of_engine_that_only_reported_load_is_refused(harness: RouterHarness) -> None:
    """A gateway that was restarted may meet a report before the engine's Ready."""
    harness.from_engine("slow", ipc.Load(ipc.EngineLoad(streams=0, busy=0.0)))
    refused = harness.refused(b"a", wire.Open("s", "slow", sinks=["null"]), fatal=True)
    assert refused.code == Code.ENGINE_LOST
    (welcome,) = harness.send(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome) and [voice["name"] for voice in welcome.voices] == ["glow"]


def test_keys_are_never_used_twice(harness: RouterHarness) -> None:
    keys = set[int]()
    for _ in range(3):
        harness.open(b"a", "s")
        for generation in range(3):
            harness.send(b"a", mel_message("s", generation=generation))
            keys |= harness.streams.keys
            harness.send(b"a", wire.Flush("s", generation))
        harness.send(b"a", wire.Close("s"))
        assert harness.streams.keys == set()
    assert len(keys) == 9
