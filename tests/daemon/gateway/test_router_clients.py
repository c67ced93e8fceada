"""What clients may do to their own streams, to those of others, and to the daemon: nothing, with bytes of any kind."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.connections import MAX_CLOSED_FEEDS, MAX_LISTENING
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from tests.daemon.gateway.router_rig import Hall, bad_mel, mel

GOOD_PARTS = [part for message in (mel("s"), wire.Hello("x")) for part in wire.encode(message)]
PIECES = st.one_of(st.binary(max_size=40), st.sampled_from(GOOD_PARTS))
MESSAGES = st.one_of(
    st.builds(wire.Hello, st.just("x"), st.integers(1, 2), st.integers(1, 2)),
    st.builds(
        wire.Open,
        st.sampled_from("st"),
        sinks=st.lists(st.sampled_from(["null", "device", "socket"]), min_size=1, max_size=3),
    ),
    st.builds(mel, st.sampled_from("st"), st.integers(0, 2), st.integers(0, 8), st.integers(1, 9), st.integers(0, 2)),
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
def hall() -> Hall:
    found = Hall()
    found.hello(b"a", b"b")
    return found


# ----------------------------------------------------------- whose stream it is


@pytest.mark.parametrize(
    "message",
    [mel("s"), wire.End("s", 0, 0), wire.Pause("s"), wire.Resume("s"), wire.Gain("s", -3), wire.Close("s")],
)
def test_a_stream_obeys_its_own_client_only(hall: Hall, message: Message) -> None:
    hall.open(b"a", "s")
    error = hall.refused(b"b", message)
    assert (error.code, error.text) == (Code.UNKNOWN_STREAM, "this client has no stream 's'")
    assert hall.to_engine == [] and "s" in hall.desk.streams.sessions


def test_anybody_may_interrupt_and_its_own_client_hears_of_it(hall: Hall) -> None:
    hall.open(b"a", "s")
    assert hall.say(b"b", wire.Flush("s", 0)) == [wire.Flushed("s", 0, -1, 0)], "there was nothing to interrupt"
    assert hall.said(b"a", wire.Flushed) == []
    hall.say(b"a", mel("s"))
    hall.say(b"b", wire.Listen("s"))
    assert hall.say(b"b", wire.Flush("s", 77)) == hall.said(b"a", wire.Flushed) == [wire.Flushed("s", 0, -1, 0)]
    assert hall.refused(b"b", wire.Flush("t", 0)).code == Code.UNKNOWN_STREAM


def test_a_mel_that_cannot_be_decoded_is_its_streams_refusal(hall: Hall) -> None:
    hall.open(b"a", "s")
    hall.say(b"a", mel("s"))
    error = hall.refused(b"a", bad_mel("s", 1, 4, float("nan")))
    assert (error.code, error.expected_frame, error.stream) == (Code.NOT_FINITE, 4, "s")
    for _ in range(15):
        hall.refused(b"a", bad_mel("s", 1, 4, 99))
    last, *_ = hall.say_parts(b"a", bad_mel("s", 1, 4, 99))
    assert isinstance(last, wire.Error) and last.fatal and last.code == Code.OUT_OF_RANGE
    hall.say(b"a", mel("s", generation=1))
    assert hall.desk.streams.sessions["s"].generation.frames_in == 4


def test_somebody_elses_bad_mel_is_not_held_against_a_stream(hall: Hall) -> None:
    hall.open(b"a", "s")
    for _ in range(20):
        assert hall.refused(b"b", bad_mel("s", 0, 0, float("inf"))).expected_frame == -1
    assert hall.said(b"a", wire.Error) == [] and hall.desk.streams.sessions["s"].generation.refusals == 0


@pytest.mark.parametrize("parts", [[], [b""], [b"\xc1"], [b"\x81\xa4type\xa5shout"], [b"\x80", b"", b""]])
def test_bytes_that_are_no_message_become_a_number_for_their_sender(hall: Hall, parts: list[bytes]) -> None:
    hall.open(b"b", "s")
    for who, fatal in ((b"a", False), (b"stranger", True)):
        before = len(hall.mail.get(who, []))
        hall.desk.handle(who, parts, hall.now_ns)
        (error,) = hall.mail[who][before:]
        assert isinstance(error, wire.Error) and error.fatal == fatal and 100 <= error.code < 200
    assert len(hall.mail[b"b"]) == 2, "welcome and opened"


@given(messages=st.lists(st.lists(PIECES, max_size=3), max_size=8))
def test_no_bytes_break_the_desk_or_touch_anothers_stream(messages: list[list[bytes]]) -> None:
    hall = Hall()
    hall.hello(b"a", b"b")
    hall.open(b"b", "s")
    for parts in messages:
        hall.desk.handle(b"a", parts, hall.now_ns)
        hall.desk.handle(b"stranger", parts, hall.now_ns)
    hall.tick()
    hall.say(b"b", mel("s"))
    assert hall.said(b"b", wire.Error) == []
    assert hall.desk.streams.sessions["s"].generation.frames_in == 4


# ------------------------------------------------------------------- departures


def test_a_client_that_leaves_takes_its_streams_with_it(hall: Hall) -> None:
    hall.open(b"a", "s", "device")
    hall.open(b"b", "t")
    hall.say(b"a", mel("s"))
    (key,) = {message.key for message in hall.to_engine if isinstance(message, ipc.Start)}
    hall.say(b"a", wire.Bye())
    assert set(hall.desk.streams.sessions) == {"t"} and set(hall.desk.peers) == {b"b"}
    assert ipc.Drop(key) in hall.to_engine and ipc.Detach(key) in hall.to_speaker
    hall.open(b"b", "s")


def test_a_client_whose_connection_is_gone_is_noticed_when_something_is_sent(hall: Hall) -> None:
    hall.open(b"a", "s")
    hall.gone.add(b"a")
    hall.say(b"a", mel("s"))
    hall.tick()
    assert hall.desk.streams.sessions == {} and set(hall.desk.peers) == {b"b"}


def test_a_silent_client_is_told_that_its_time_is_up() -> None:
    hall = Hall("server.idle_timeout_s=10")
    hall.hello(b"a", b"b")
    hall.open(b"a", "s")
    hall.tick(9.9)
    hall.say(b"b", wire.Ping(1))
    hall.tick(0.2)
    (error,) = hall.said(b"a", wire.Error)
    assert error.code == Code.IDLE_TIMEOUT and error.fatal and error.text == "nothing was heard for 10 s"
    assert set(hall.desk.peers) == {b"b"} and hall.desk.streams.sessions == {}


def test_a_client_that_does_not_read_waits_alone(hall: Hall) -> None:
    hall.open(b"a", "s")
    hall.deaf.add(b"a")
    hall.say(b"a", mel("s"), wire.Ping(3))
    assert hall.say(b"b", wire.Ping(1)) == [wire.Pong(1, hall.now_ns)]
    hall.deaf.clear()
    hall.tick()
    assert hall.said(b"a", wire.Pong) == [wire.Pong(3, hall.now_ns)]
    assert [state.state for state in hall.said(b"a", wire.State)][:1] == ["priming"]


def test_a_client_that_never_reads_is_given_up(hall: Hall) -> None:
    hall.open(b"a", "s")
    hall.deaf.add(b"a")
    for _ in range(5000):
        hall.say(b"a", wire.Ping(1))
    hall.tick()
    assert set(hall.desk.peers) == {b"b"} and hall.desk.streams.sessions == {}


def test_stopping_ends_what_runs_and_tells_everybody(hall: Hall) -> None:
    hall.open(b"a", "running")
    hall.open(b"a", "idle")
    hall.say(b"a", mel("running"))
    hall.desk.stop()
    assert [(error.stream, error.code, error.fatal) for error in hall.said(b"a", wire.Error)] == [
        ("running", Code.STOPPING, True), ("", Code.STOPPING, True),
    ]  # fmt: skip
    (error,) = hall.said(b"b", wire.Error)
    assert (error.stream, error.code) == ("", Code.STOPPING)


def test_recordings_go_where_the_configuration_says(tmp_path: Path) -> None:
    hall = Hall(f"files.directory={tmp_path}/takes")
    hall.hello(b"a")
    hall.open(b"a", "s", "file:one")
    hall.say(b"a", wire.End("s", 0, 0))
    assert (tmp_path / "takes" / "one.wav").exists()


@given(
    events=st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.one_of(MESSAGES, st.sampled_from(["deaf", "gone", "tick"]))),
        max_size=60,
    )
)
def test_whatever_clients_say_the_books_are_in_order(events: list[tuple[bytes, Message | str]]) -> None:
    hall = Hall("server.max_clients=2", "server.max_streams=1")
    hall.hello(b"a", b"b")
    for who, event in events:
        match event:
            case "deaf":
                hall.deaf ^= {who}
            case "gone":
                hall.gone.add(who)
            case "tick":
                hall.tick(0.02)
            case wire.Message():
                hall.say(who, event)
        desk = hall.desk
        assert len(desk.peers) <= 2 and len(desk.streams.sessions) <= 1
        assert desk.streams.owners.keys() == desk.streams.sessions.keys()
        assert all(owner in desk.peers.values() for owner in desk.streams.owners.values())
        assert sorted(map(id, desk.streams.by_key.values())) == sorted(map(id, desk.streams.sessions.values()))
    hall.tick(3600)
    assert not (hall.desk.peers or hall.desk.streams.sessions or hall.desk.streams.owners or hall.desk.streams.by_key)
    begun = {message.key for message in hall.to_engine if isinstance(message, ipc.Start)}
    assert begun <= {message.key for message in hall.to_engine if isinstance(message, ipc.Drop | ipc.Finish)}


def test_nobody_may_name_streams_without_end(hall: Hall) -> None:
    for index in range(MAX_LISTENING):
        assert hall.say(b"a", wire.Listen(f"s{index}")) == []
    error = hall.refused(b"a", wire.Listen("one-more"))
    assert error.code == Code.AT_CAPACITY and error.stream == "one-more"
    for welcome in ("s0", "*"):
        assert hall.say(b"a", wire.Listen(welcome)) == []
    hall.say(b"a", wire.Unlisten("*"))
    hall.say(b"a", wire.Unlisten("s0"))
    assert hall.say(b"a", wire.Listen("one-more")) == []


def test_a_listener_that_never_reads_is_given_up_before_it_costs_memory(hall: Hall) -> None:
    hall.say(b"b", wire.Listen("*"))
    hall.deaf.add(b"b")
    for index in range(MAX_CLOSED_FEEDS + 1):
        hall.open(b"a", f"s{index}")
        hall.say(b"a", wire.End(f"s{index}", 0, 0), wire.Close(f"s{index}"))
    assert b"b" in hall.desk.peers
    hall.open(b"a", "last")
    hall.say(b"a", wire.End("last", 0, 0), wire.Close("last"))
    hall.tick()
    assert set(hall.desk.peers) == {b"a"}


def test_who_listens_to_everything_hears_its_own_audio_once(hall: Hall) -> None:
    hall.open(b"a", "s", "socket")
    for who in (b"a", b"b"):
        hall.say(who, wire.Listen("*"))
    hall.say(b"a", wire.End("s", 0, 0))
    for who in (b"a", b"b"):
        assert len(hall.said(who, wire.Audio)) == len(hall.said(who, wire.Played)) == 1
