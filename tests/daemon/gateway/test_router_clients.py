"""What clients can do to their own streams, to those of others, and to the daemon, whatever they send."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.clients.connections import MAX_CLOSED_QUEUES, MAX_LISTENING
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from tests.harness.router import RouterHarness, invalid_mel, mel_message

GOOD_PARTS = [part for message in (mel_message("s"), wire.Hello("x")) for part in wire.encode(message)]
PIECES = st.one_of(st.binary(max_size=40), st.sampled_from(GOOD_PARTS))
MESSAGES = st.one_of(
    st.builds(wire.Hello, st.just("x"), st.integers(1, 2), st.integers(1, 2)),
    st.builds(
        wire.Open,
        st.sampled_from("st"),
        sinks=st.lists(st.sampled_from(["null", "device", "socket"]), min_size=1, max_size=3),
    ),
    st.builds(
        mel_message, st.sampled_from("st"), st.integers(0, 2), st.integers(0, 8), st.integers(1, 9), st.integers(0, 2)
    ),
    st.builds(wire.End, st.sampled_from("st"), st.integers(0, 2), st.integers(0, 9)),
    st.builds(wire.Flush, st.sampled_from("st"), st.integers(0, 2)),
    *(
        st.builds(kind, st.sampled_from("st"))
        for kind in (wire.Pause, wire.Resume, wire.Close, wire.Listen, wire.Unlisten)
    ),
    st.builds(wire.Gain, st.sampled_from("st"), st.floats(-120, 24)),
    st.sampled_from(
        [wire.Bye(), wire.Ping(), wire.Status(), wire.Listen("*"), wire.Unlisten("*"), wire.Played("s", 0, 4)]
    ),
)


@pytest.fixture
def harness() -> RouterHarness:
    found = RouterHarness()
    found.connect(b"a", b"b")
    return found


# ---------------------------------------------------------------- own streams


@pytest.mark.parametrize(
    "message",
    [mel_message("s"), wire.End("s", 0, 0), wire.Close("s")],
)
def test_stream_of_other_client_is_unknown(harness: RouterHarness, message: Message) -> None:
    harness.open(b"a", "s")
    error = harness.refused(b"b", message)
    assert (error.code, error.text) == (Code.UNKNOWN_STREAM, "this client has no stream 's'; open it first")
    assert harness.to_engine == [] and "s" in harness.stream_names


def test_flush_by_other_client_reaches_both(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    assert harness.send(b"b", wire.Flush("s", 0)) == [wire.Flushed("s", 0, -1, 0)], "there was nothing to flush"
    assert harness.received(b"a", wire.Flushed) == []
    harness.send(b"a", mel_message("s"))
    harness.send(b"b", wire.Listen("s"))
    assert (
        harness.send(b"b", wire.Flush("s", 77)) == harness.received(b"a", wire.Flushed) == [wire.Flushed("s", 0, -1, 0)]
    )


def test_other_client_pauses_resumes_and_sets_the_volume(harness: RouterHarness) -> None:
    harness.open(b"a", "s", "device")
    harness.send(b"a", mel_message("s"))
    key = harness.session("s").state.utterance.key
    harness.to_speaker.clear()
    for message in (wire.Pause("s"), wire.Gain("s", -6.0), wire.Resume("s")):
        assert harness.send(b"b", message) == []
    assert harness.to_speaker == [ipc.Pause(key), ipc.Gain(key, -6.0), ipc.Resume(key)]
    assert [state.state for state in harness.received(b"a", wire.State)][-2:] == ["paused", "priming"]


@pytest.mark.parametrize("message", [wire.Flush("t", 0), wire.Pause("t"), wire.Resume("t"), wire.Gain("t", 0.0)])
def test_stream_that_is_controlled_must_be_open(harness: RouterHarness, message: Message) -> None:
    harness.open(b"a", "s")
    error = harness.refused(b"b", message)
    assert (error.code, error.text) == (Code.UNKNOWN_STREAM, "there is no stream 't'")


def test_undecodable_mel_counts_as_refusal_of_its_stream(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    harness.send(b"a", mel_message("s"))
    error = harness.refused(b"a", invalid_mel("s", 1, 4, float("nan")))
    assert (error.code, error.expected_frame, error.stream) == (Code.NOT_FINITE, 4, "s")
    for _ in range(15):
        harness.refused(b"a", invalid_mel("s", 1, 4, 99))
    last, *_ = harness.send_parts(b"a", invalid_mel("s", 1, 4, 99))
    assert isinstance(last, wire.Error) and last.fatal and last.code == Code.OUT_OF_RANGE
    harness.send(b"a", mel_message("s", generation=1))
    assert harness.session("s").state.utterance.frames_in == 4


def test_invalid_mel_of_other_client_does_not_count(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    for _ in range(20):
        assert harness.refused(b"b", invalid_mel("s", 0, 0, float("inf"))).expected_frame == -1
    assert harness.received(b"a", wire.Error) == [] and harness.session("s").state.utterance.refusals == 0


@pytest.mark.parametrize("parts", [[], [b""], [b"\xc1"], [b"\x81\xa4type\xa5shout"], [b"\x80", b"", b""]])
def test_undecodable_bytes_are_answered_by_code(harness: RouterHarness, parts: list[bytes]) -> None:
    harness.open(b"b", "s")
    for who, fatal in ((b"a", False), (b"stranger", True)):
        before = len(harness.mail.get(who, []))
        harness.router.handle(who, parts, harness.now_ns)
        (error,) = harness.mail[who][before:]
        assert isinstance(error, wire.Error) and error.fatal == fatal and 100 <= error.code < 200
    assert len(harness.mail[b"b"]) == 2, "welcome and opened"


@given(messages=st.lists(st.lists(PIECES, max_size=3), max_size=8))
def test_arbitrary_bytes_do_not_affect_other_streams(messages: list[list[bytes]]) -> None:
    harness = RouterHarness()
    harness.connect(b"a", b"b")
    harness.open(b"b", "s")
    for parts in messages:
        harness.router.handle(b"a", parts, harness.now_ns)
        harness.router.handle(b"stranger", parts, harness.now_ns)
    harness.tick()
    harness.send(b"b", mel_message("s"))
    assert harness.received(b"b", wire.Error) == []
    assert harness.session("s").state.utterance.frames_in == 4


# ------------------------------------------------------------------- departures


def test_bye_closes_the_streams_of_the_client(harness: RouterHarness) -> None:
    harness.open(b"a", "s", "device")
    harness.open(b"b", "t")
    harness.send(b"a", mel_message("s"))
    (key,) = {message.key for message in harness.to_engine if isinstance(message, ipc.Start)}
    harness.send(b"a", wire.Bye())
    assert harness.stream_names == {"t"} and harness.clients == {b"b"}
    assert ipc.Drop(key) in harness.to_engine and ipc.Detach(key) in harness.to_speaker
    harness.open(b"b", "s")


def test_lost_connection_is_found_at_the_next_send(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    harness.gone.add(b"a")
    harness.send(b"a", mel_message("s"))
    harness.tick()
    assert harness.stream_names == set() and harness.clients == {b"b"}


def test_silent_client_is_disconnected_with_idle_timeout() -> None:
    harness = RouterHarness("server.idle_timeout_s=10")
    harness.connect(b"a", b"b")
    harness.open(b"a", "s")
    harness.tick(9.9)
    harness.send(b"b", wire.Ping(1))
    harness.tick(0.2)
    (error,) = harness.received(b"a", wire.Error)
    assert error.code == Code.IDLE_TIMEOUT and error.fatal and error.text.startswith("nothing was received for 10 s")
    assert harness.clients == {b"b"} and harness.stream_names == set()


def test_client_not_reading_delays_nobody(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    harness.not_reading.add(b"a")
    harness.send(b"a", mel_message("s"), wire.Ping(3))
    assert harness.send(b"b", wire.Ping(1)) == [wire.Pong(1, harness.now_ns)]
    harness.not_reading.clear()
    harness.tick()
    assert harness.received(b"a", wire.Pong) == [wire.Pong(3, harness.now_ns)]
    assert [state.state for state in harness.received(b"a", wire.State)][:1] == ["priming"]


def test_client_never_reading_is_disconnected(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    harness.not_reading.add(b"a")
    for _ in range(5000):
        harness.send(b"a", wire.Ping(1))
    harness.tick()
    assert harness.clients == {b"b"} and harness.stream_names == set()


def test_stop_ends_utterances_and_informs_every_client(harness: RouterHarness) -> None:
    harness.open(b"a", "running")
    harness.open(b"a", "idle")
    harness.send(b"a", mel_message("running"))
    harness.router.stop()
    assert [(error.stream, error.code, error.fatal) for error in harness.received(b"a", wire.Error)] == [
        ("running", Code.STOPPING, True), ("", Code.STOPPING, True),
    ]  # fmt: skip
    (error,) = harness.received(b"b", wire.Error)
    assert (error.stream, error.code) == ("", Code.STOPPING)


def test_file_sink_writes_to_configured_directory(tmp_path: Path) -> None:
    harness = RouterHarness(f"files.directory={tmp_path}/takes")
    harness.connect(b"a")
    harness.open(b"a", "s", "file:one")
    harness.send(b"a", wire.End("s", 0, 0))
    assert (tmp_path / "takes" / "one.wav").exists()


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b", b"c"]), st.one_of(MESSAGES, st.sampled_from(["not reading", "gone", "tick"]))
        ),
        max_size=60,
    )
)
def test_registry_is_consistent_after_any_messages(events: list[tuple[bytes, Message | str]]) -> None:
    harness = RouterHarness("server.max_clients=2", "server.max_streams=1")
    harness.connect(b"a", b"b")
    for who, event in events:
        match event:
            case "not reading":
                harness.not_reading ^= {who}
            case "gone":
                harness.gone.add(who)
            case "tick":
                harness.tick(0.02)
            case wire.Message():
                harness.send(who, event)
        streams = list(harness.streams)
        assert len(harness.clients) <= 2 and len(streams) <= 1
        assert all(stream.owner in harness.router.clients.values() for stream in streams)
        assert all(harness.streams.find(stream.name) is stream for stream in streams)
        assert [harness.streams.find_key(key) for key in harness.streams.keys] == streams
    harness.tick(3600)
    assert not (harness.clients or harness.stream_names or harness.streams.keys)
    begun = {message.key for message in harness.to_engine if isinstance(message, ipc.Start)}
    assert begun <= {message.key for message in harness.to_engine if isinstance(message, ipc.Drop | ipc.Finish)}


def test_listen_beyond_limit_is_refused(harness: RouterHarness) -> None:
    for index in range(MAX_LISTENING):
        assert harness.send(b"a", wire.Listen(f"s{index}")) == []
    error = harness.refused(b"a", wire.Listen("one-more"))
    assert error.code == Code.OVER_QUOTA and error.stream == "one-more"
    assert harness.send(b"a", wire.Listen("s0")) == [], "it has it already"
    harness.send(b"a", wire.Unlisten("s0"))
    assert harness.send(b"a", wire.Listen("one-more")) == []


def test_listener_never_reading_is_disconnected(harness: RouterHarness) -> None:
    harness.send(b"b", wire.Listen("*"))
    harness.not_reading.add(b"b")
    for index in range(MAX_CLOSED_QUEUES + 1):
        harness.open(b"a", f"s{index}")
        harness.send(b"a", wire.End(f"s{index}", 0, 0), wire.Close(f"s{index}"))
    assert b"b" in harness.clients
    harness.open(b"a", "last")
    harness.send(b"a", wire.End("last", 0, 0), wire.Close("last"))
    harness.tick()
    assert harness.clients == {b"a"}


def test_listener_to_all_gets_own_audio_once(harness: RouterHarness) -> None:
    harness.open(b"a", "s", "socket")
    for who in (b"a", b"b"):
        harness.send(who, wire.Listen("*"))
    harness.send(b"a", wire.End("s", 0, 0))
    for who in (b"a", b"b"):
        assert len(harness.received(who, wire.Audio)) == len(harness.received(who, wire.Played)) == 1
