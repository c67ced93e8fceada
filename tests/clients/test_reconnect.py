"""The daemon is lost in the middle of an utterance and comes back: the clients go on where the listener is."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.client import Stream
from glowd.daemon import wire
from tests.clients.reading import in_thread, values_of
from tests.fakes.daemon import HOP, FakeDaemon
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S, until

FIRST = 40
"""Frames that the first daemon takes."""


@contextlib.contextmanager
def restarted(first: FakeDaemon, **options: object) -> Iterator[FakeDaemon]:
    """Another daemon in the place of one that is killed."""
    first.stop()
    with FakeDaemon(first.directory, **options) as second:  # type: ignore[arg-type]
        yield second


def spoken_first(fake: FakeDaemon, stream: Stream) -> None:
    """The first daemon takes FIRST frames, and the client hears of it."""
    for _ in range(FIRST // 8):
        stream.send(mel(8))
    until(lambda: stream._state.kept.position and stream._state.kept.position.samples == FIRST * HOP, "the position")


def test_audio_goes_on_without_a_gap(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["socket"], seed=5)
        chunks: list[wire.Audio] = []
        reader = in_thread(lambda: chunks.extend(stream.audio(WAIT_S)))
        spoken_first(fake, stream)
        with restarted(fake) as second:
            stream.send(mel(50), WAIT_S)
            played = stream.wait_played(WAIT_S)
            reader.join(WAIT_S)
            (opened,) = second.of_type(wire.Open)
            frames = [(one.seq, one.first_frame) for one in second.of_type(wire.Mel)]
            stream.close()
    assert (opened.stream, opened.seed, opened.generation, opened.key, opened.underruns) == ("s", 5, 0, 77, 3)
    assert (opened.samples, opened.start_frame, opened.phase) == (FIRST * HOP, 35, 35 / 8)
    assert opened.first_frame == 33 and frames[0] == (0, 33)
    np.testing.assert_array_equal(values_of(chunks), np.arange((FIRST + 50) * HOP))
    assert isinstance(played, wire.Played) and played.total_samples == (FIRST + 50) * HOP


async def test_async_audio_goes_on_without_a_gap(fake: FakeDaemon) -> None:
    async with AsyncClient(fake.endpoint) as glow:
        stream = await glow.open("s", sinks=["socket"])
        chunks: list[wire.Audio] = []

        async def read() -> None:
            chunks.extend([chunk async for chunk in stream.audio(WAIT_S)])

        reader = asyncio.create_task(read())
        for _ in range(FIRST // 8):
            await stream.send(mel(8))
        await asyncio.to_thread(fake.wait_for, lambda: fake.streams["s"].frames == FIRST)
        await glow.ping()
        await asyncio.to_thread(fake.stop)
        with await asyncio.to_thread(FakeDaemon, fake.directory) as second:
            await stream.send(mel(50), WAIT_S)
            played = await stream.wait_played(WAIT_S)
            await asyncio.wait_for(reader, WAIT_S)
            assert second.of_type(wire.Open)[0].samples == FIRST * HOP
            await stream.close()
    np.testing.assert_array_equal(values_of(chunks), np.arange((FIRST + 50) * HOP))
    assert isinstance(played, wire.Played) and played.total_samples == (FIRST + 50) * HOP


def test_daemon_that_is_lost_again_and_again_costs_no_sample(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, contextlib.ExitStack() as daemons:
        stream, chunks, newest = glow.open("s", sinks=["socket"]), list[wire.Audio](), fake
        reader = in_thread(lambda: chunks.extend(stream.audio(WAIT_S)))
        for round_ in range(4):
            stream.send(mel(30), WAIT_S)
            newest.wait_for(lambda: "s" in newest.streams)  # noqa: B023 (called at once): it is opened again
            newest.wait_for(lambda: newest.streams["s"].frames == 30 * (round_ + 1))  # noqa: B023 (called at once)
            newest = daemons.enter_context(restarted(newest))
        stream.wait_played(WAIT_S)
        reader.join(WAIT_S)
        stream.close()
    np.testing.assert_array_equal(values_of(chunks), np.arange(120 * HOP))


def test_ended_utterance_is_ended_again(fake: FakeDaemon) -> None:
    """The daemon dies before its `played` arrives."""
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        fake.answers = False
        stream.end()
        fake.wait_for(lambda: fake.of_type(wire.End))
        with restarted(fake) as second:
            assert stream.wait_played(WAIT_S) == wire.Played("s", 0, FIRST * HOP, 0)
            assert second.of_type(wire.End) == [wire.End("s", 0, FIRST)]
            stream.send(mel(3))
            assert stream.wait_played(WAIT_S) == wire.Played("s", 1, 3 * HOP, 0)
            stream.close()


def test_idle_stream_and_listener_are_opened_again(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        stream.send(mel(3))
        stream.wait_played(WAIT_S)
        listener = glow.listen("other", audio_rate_hz=16_000)
        stream.gain(-3)
        stream.pause()
        glow.ping()
        with restarted(fake) as second:
            assert glow.run(glow._connection.questions.ping(), WAIT_S) > 0
            (opened,) = second.of_type(wire.Open)
            assert (opened.generation, opened.key, opened.gain_db, opened.paused) == (1, 0, -3, True)
            assert second.of_type(wire.Listen) == [wire.Listen("other", 16_000)]
            stream.send(mel(3), WAIT_S)
            assert stream.wait_played(WAIT_S) == wire.Played("s", 1, 3 * HOP, 0)
            listener.close()
            stream.close()


def test_flush_while_the_daemon_is_away_is_done_when_it_is_back(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, timeout_s=WAIT_S) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        fake.stop()
        until(lambda: stream._state.lost, "the loss")
        endings: list[wire.Message] = []
        flushing = in_thread(lambda: endings.append(stream.flush(fade_ms=7)))
        until(lambda: stream._state.flushing, "the flush")
        with FakeDaemon(fake.directory) as second:
            flushing.join(WAIT_S)
            assert second.of_type(wire.Flush) == [wire.Flush("s", 0, 7)] and not second.of_type(wire.Mel)
            stream.close()
    assert endings == [wire.Flushed("s", 0, 99, 1000)]


def test_stream_opened_while_the_daemon_is_away_waits_for_it(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, timeout_s=WAIT_S) as glow:
        fake.stop()
        until(lambda: not glow._connection.usable, "the loss")
        opening = in_thread(lambda: glow.open("late", sinks=["null"]).close())
        with FakeDaemon(fake.directory) as second:
            opening.join(WAIT_S)
            assert [one.stream for one in second.of_type(wire.Open)] == ["late"]


def test_daemon_that_is_not_ready_yet_is_asked_again(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        with restarted(fake, answers=False) as second:
            second.refuse_open = 3
            second.answers = True
            stream.send(mel(3), WAIT_S)
            stream.wait_played(WAIT_S)
            assert len(second.of_type(wire.Open)) == 4
            stream.close()


def test_away_daemon_raises_how_far_the_listener_got(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, reconnect_s=0.3) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        fake.stop()
        with pytest.raises(
            errors.DaemonGone, match=r"was not back within 0\.3 s; .* 40 of 40 frames \(0\.46 s\)"
        ) as caught:
            stream.wait_played(WAIT_S)
        assert caught.value.heard_samples == FIRST * HOP
        with pytest.raises(errors.DaemonGone):
            glow.status()


def test_daemon_without_positions_cannot_go_on(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["socket"])
        spoken_first(fake, stream)
        with restarted(fake, version=2) as second:
            with pytest.raises(errors.DaemonGone, match=r"cannot go on with it: update glowd; .* 10240 samples"):
                stream.wait_played(WAIT_S)
            assert not second.of_type(wire.Open)
            glow.open("t", sinks=["null"]).close()


def test_refused_stream_is_given_up_in_time(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, reconnect_s=0.5) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        with restarted(fake, answers=False) as second:
            second.refuse_open = 10**6
            second.answers = True
            with pytest.raises(errors.DaemonGone, match=r"lost with the daemon: .* full \(400 AT_CAPACITY\)"):
                stream.wait_played(WAIT_S)


def test_wait_that_times_out_says_that_the_daemon_is_away(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        fake.stop()
        until(lambda: not glow._connection.usable, "the loss")
        said = r"waited 0\.05 s for the state of the daemon; the daemon at .* closed the connection \d+\.\d s ago"
        with pytest.raises(errors.WaitTimeout, match=said):
            glow.run(glow._connection.questions.status(), 0.05)


def test_close_while_the_daemon_is_away_returns(fake: FakeDaemon) -> None:
    glow = Client(fake.endpoint)
    stream = glow.open("s", sinks=["null"])
    spoken_first(fake, stream)
    fake.stop()
    until(lambda: stream._state.lost, "the loss")
    closing = threading.Thread(target=lambda: [close() for close in (stream.close, glow.close)])
    closing.start()
    closing.join(WAIT_S)
    assert not closing.is_alive()


def test_kept_frames_are_freed_by_positions_and_at_the_end(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        for _ in range(40):
            stream.send(mel(16))
        fake.wait_for(lambda: fake.streams["s"].frames == 640)
        glow.ping()
        queue = stream._state.queue
        assert queue and sum(len(chunk.payload) for chunk in queue.sent) <= 16 + 7
        stream.wait_played(WAIT_S)
        queue = stream._state.queue
        assert queue and not queue.sent


def test_stopping_daemon_is_waited_for(fake: FakeDaemon, socket_dir: Path) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        fake.send("s", wire.Error(503, "STOPPING", "the daemon is stopping", "s", 0, True))
        fake.send("s", wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
        until(lambda: glow._connection.sockets > 1, "the loss")
        with restarted(fake):
            stream.send(mel(5), WAIT_S)
            assert stream.wait_played(WAIT_S) == wire.Played("s", 0, (FIRST + 5) * HOP, 0)
            stream.close()


@pytest.mark.parametrize("code", [wire.Code.IDLE_TIMEOUT, wire.Code.NO_HELLO])
def test_client_that_is_not_known_any_more_connects_again(fake: FakeDaemon, code: wire.Code) -> None:
    """The daemon has disconnected it while it did not run, or is another one, which ZeroMQ has connected to unasked."""
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        spoken_first(fake, stream)
        fake.send("s", wire.Error(int(code), code.name, "not known any more", fatal=True))
        fake.wait_for(lambda: len(fake.of_type(wire.Open)) == 2)
        stream.send(mel(5), WAIT_S)
        assert stream.wait_played(WAIT_S) == wire.Played("s", 0, (FIRST + 5) * HOP, 0)


def test_stream_after_another_is_opened_again_after_it(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        first = glow.open("a", sinks=["null"])
        second = glow.open("b", sinks=["null"], after="a", first_generation=1)
        for stream in (first, second):
            stream.send(mel(8))
        glow.ping()
        with restarted(fake, refuse_open=2) as daemon:
            for stream in (second, first):
                stream.wait_played(WAIT_S)
            opened = [(one.stream, one.after, one.generation) for one in daemon.of_type(wire.Open)]
            assert opened == [*[("a", "", 0)] * 3, ("b", "a", 1)]
            first.close()
            second.close()
