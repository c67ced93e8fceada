"""A client that is given several gateways: which one it uses, and how it goes on in another one when it loses it."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.client import Stream
from glowd.clients.connection import Connection
from glowd.daemon import wire
from tests.clients.reading import in_thread, joined, values_of
from tests.fakes.daemon import HOP, VOICE, FakeDaemon
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S, until

FIRST = 40
"""Frames that the first daemon takes."""


def folder(around: Path, name: str) -> Path:
    made = around / name
    made.mkdir()
    return made


@pytest.fixture
def a(socket_dir: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(folder(socket_dir, "a")) as daemon:
        yield daemon


@pytest.fixture
def b(socket_dir: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(folder(socket_dir, "b")) as daemon:
        yield daemon


def nowhere(around: Path, name: str = "nowhere") -> str:
    return f"ipc://{around}/{name}.ipc"


def speak_first(daemon: FakeDaemon, stream: Stream) -> None:
    """The daemon takes FIRST frames, and the client hears of it."""
    for _ in range(FIRST // 8):
        stream.send(mel(8))
    until(lambda: stream._state.kept.position and stream._state.kept.position.samples == FIRST * HOP, "the position")


def test_first_gateway_of_the_list_is_used(a: FakeDaemon, b: FakeDaemon) -> None:
    with Client(f"{a.endpoint},{b.endpoint}", timeout_s=WAIT_S) as glow:
        assert glow.endpoint == a.endpoint and glow.ping() > 0
    assert not b.received


def test_next_gateway_is_used_when_the_first_is_away(socket_dir: Path, b: FakeDaemon) -> None:
    with Client(f"{nowhere(socket_dir)}, {b.endpoint}", timeout_s=WAIT_S, reconnect_s=0) as glow:
        assert glow.endpoint == b.endpoint and glow.ping() > 0


def test_list_may_come_from_the_environment(socket_dir: Path, b: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOWD_ENDPOINT", f"{nowhere(socket_dir)},{b.endpoint}")
    with Client(timeout_s=WAIT_S) as glow:
        assert glow.endpoint == b.endpoint


def test_gateway_that_says_nothing_is_left_for_the_next(a: FakeDaemon, b: FakeDaemon) -> None:
    a.answers = False
    with Client(f"{a.endpoint},{b.endpoint}", timeout_s=WAIT_S) as glow:
        assert glow.endpoint == b.endpoint


def test_gateway_that_turns_clients_away_is_left_for_the_next(a: FakeDaemon, b: FakeDaemon) -> None:
    a.refuse_hello = wire.Code.TOO_MANY_CLIENTS
    with Client(f"{a.endpoint},{b.endpoint}", timeout_s=WAIT_S) as glow:
        assert glow.endpoint == b.endpoint


def test_error_names_every_gateway_with_its_reason(socket_dir: Path, a: FakeDaemon, b: FakeDaemon) -> None:
    a.answers, b.refuse_hello = False, wire.Code.TOO_MANY_CLIENTS
    with pytest.raises(errors.NotRunning) as caught:
        Client(f"{a.endpoint},{nowhere(socket_dir)},{b.endpoint}", timeout_s=2.5)
    assert str(caught.value).endswith(
        f"(waited 2.5 s): {a.endpoint}: it does not answer; {nowhere(socket_dir)}: nobody listens there; "
        f"{b.endpoint}: no (401 TOO_MANY_CLIENTS); start one with: glowd"
    )


def test_error_of_one_gateway_has_its_reason(socket_dir: Path) -> None:
    with pytest.raises(
        errors.NotRunning, match=r"at ipc://.*/nowhere\.ipc \(waited 0\.5 s\): nobody listens there; start"
    ):
        Client(nowhere(socket_dir), timeout_s=0.5)


def test_utterance_goes_on_at_the_other_gateway(a: FakeDaemon, b: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "glowd.client.loss")
    with Client(f"{a.endpoint},{b.endpoint}") as glow:
        stream = glow.open("s", sinks=["socket"], seed=5)
        chunks: list[wire.Audio] = []
        reader = in_thread(lambda: chunks.extend(stream.audio(WAIT_S)))
        speak_first(a, stream)
        a.stop()
        stream.send(mel(50), WAIT_S)
        played = stream.wait_played(WAIT_S)
        joined(reader)
        (opened,) = b.of_type(wire.Open)
        stream.close()
    assert (opened.stream, opened.seed, opened.samples, opened.first_frame) == ("s", 5, FIRST * HOP, 33)
    np.testing.assert_array_equal(values_of(chunks), np.arange((FIRST + 50) * HOP))
    assert isinstance(played, wire.Played) and played.total_samples == (FIRST + 50) * HOP
    assert f"trying {a.endpoint}, {b.endpoint}" in caplog.text and f"{b.endpoint} goes on after" in caplog.text


async def test_async_client_goes_on_at_the_other_gateway(a: FakeDaemon, b: FakeDaemon) -> None:
    async with AsyncClient(f"{a.endpoint},{b.endpoint}") as glow:
        stream = await glow.open("s", sinks=["null"])
        await stream.send(mel(FIRST))
        await glow.ping()
        await asyncio.to_thread(a.stop)
        await stream.send(mel(50), WAIT_S)
        played = await stream.wait_played(WAIT_S)
        assert glow.endpoint == b.endpoint
        await stream.close()
    assert isinstance(played, wire.Played) and played.total_samples == (FIRST + 50) * HOP


def test_client_goes_back_when_the_other_gateway_is_lost_too(a: FakeDaemon, b: FakeDaemon) -> None:
    with Client(f"{a.endpoint},{b.endpoint}") as glow, contextlib.ExitStack() as stack:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        b.wait_for(lambda: b.of_type(wire.Open))
        again = stack.enter_context(FakeDaemon(a.directory))
        b.stop()
        stream.send(mel(5), WAIT_S)
        assert stream.wait_played(WAIT_S) == wire.Played("s", 0, (FIRST + 5) * HOP, 0)
        assert glow.endpoint == again.endpoint
        stream.close()


def test_stopping_gateway_is_left_at_once(a: FakeDaemon, b: FakeDaemon) -> None:
    with Client(f"{a.endpoint},{b.endpoint}") as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.send("s", wire.Error(503, "STOPPING", "the daemon is stopping", "s", 0, True))
        a.send("s", wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
        until(lambda: glow.endpoint == b.endpoint, "the move")
        stream.send(mel(5), WAIT_S)
        assert stream.wait_played(WAIT_S) == wire.Played("s", 0, (FIRST + 5) * HOP, 0)
        stream.close()


def test_client_that_was_idle_comes_back_to_its_gateway(a: FakeDaemon, b: FakeDaemon) -> None:
    with Client(f"{a.endpoint},{b.endpoint}") as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.send("s", wire.Error(504, "IDLE_TIMEOUT", "nothing was received for 60 s", fatal=True))
        a.wait_for(lambda: len(a.of_type(wire.Open)) == 2)
        assert stream.wait_played(WAIT_S) and not b.received
        stream.close()


def test_full_gateway_is_left_for_another(
    socket_dir: Path, a: FakeDaemon, b: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "MOVE_ON_S", 0.3)
    b.refuse_open = 10**6
    with FakeDaemon(folder(socket_dir, "c")) as c, Client(f"{a.endpoint},{b.endpoint},{c.endpoint}") as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        assert stream.wait_played(WAIT_S) == wire.Played("s", 0, FIRST * HOP, 0)
        assert glow.endpoint == c.endpoint and b.of_type(wire.Open)
        stream.close()


def test_lost_gateways_are_named_when_none_takes_over(socket_dir: Path, a: FakeDaemon) -> None:
    other = nowhere(socket_dir)
    with Client(f"{a.endpoint},{other}", reconnect_s=0.8) as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        said = (
            rf"not back within 0\.8 s \({a.endpoint}: nobody listens there; {other}: nobody listens there\); of utter"
        )
        with pytest.raises(errors.DaemonGone, match=said):
            stream.wait_played(WAIT_S)


def test_refused_stream_is_given_up_with_both_reasons(a: FakeDaemon, b: FakeDaemon) -> None:
    b.refuse_open = 10**6
    with Client(f"{a.endpoint},{b.endpoint}", reconnect_s=0.8) as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        with pytest.raises(errors.DaemonGone, match=rf"full \(400 AT_CAPACITY\) \({a.endpoint}: (nobody|the daemon)"):
            stream.wait_played(WAIT_S)


def opened_after_loss(a: FakeDaemon, b: FakeDaemon) -> wire.Open:
    """How a stream is opened at `b`, after `a` was lost in the middle of it."""
    with Client(f"{a.endpoint},{b.endpoint}") as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        stream.wait_played(WAIT_S)
        stream.close()
    (opened,) = b.of_type(wire.Open)
    return opened


def test_time_of_the_next_sample_is_told_by_the_other_clock(a: FakeDaemon, b: FakeDaemon) -> None:
    """Of daemons on two machines, whose clocks began at different times; those of one machine are one clock."""
    b.ahead_ns = 10**12
    opened = opened_after_loss(a, b)
    sounded_ns = a.sounded_ns[-1]
    assert abs(opened.t_ns - sounded_ns - b.ahead_ns) < 1e9


def test_clock_of_the_same_machine_is_taken_as_it_is(a: FakeDaemon, b: FakeDaemon) -> None:
    assert opened_after_loss(a, b).t_ns == a.sounded_ns[-1]


@pytest.mark.parametrize("digest", ["one", "two", ""])
def test_other_weights_of_a_voice_are_told(
    a: FakeDaemon, b: FakeDaemon, caplog: pytest.LogCaptureFixture, digest: str
) -> None:
    caplog.set_level(logging.WARNING, "glowd.client.loss")
    a.voices, b.voices = [{**VOICE, "digest": "one"}], [{**VOICE, "digest": digest}]
    with Client(f"{a.endpoint},{b.endpoint}") as glow:
        stream = glow.open("s", sinks=["null"])
        speak_first(a, stream)
        a.stop()
        stream.wait_played(WAIT_S)
        stream.close()
    assert ("has other weights or settings for voice glow" in caplog.text) is (digest == "two")


def test_part_of_a_list_is_refused_without_showing_a_secret() -> None:
    secret = "5" * 64
    with pytest.raises(errors.NotRunning, match=r"address 2 of the list must be ipc://PATH, tcp://HOST:PORT") as caught:
        Client(f"ipc:///x,tcp://desk:{secret}@host:1,desk:{secret}")
    assert secret not in str(caught.value)


async def test_name_without_an_address_is_told() -> None:
    found = r"the name 'nobody\.invalid' has no address"
    with pytest.raises(errors.NotRunning, match=found) as caught:
        Client("tcp://nobody.invalid:7766", timeout_s=1.5)
    assert "nobody listens" not in str(caught.value)
    with pytest.raises(errors.NotRunning, match=found):
        await AsyncClient("tcp://nobody.invalid:7766", timeout_s=1.5).connect()
