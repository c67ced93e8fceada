"""Every wait of a client ends: with its result, or with an error that names what was waited for."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.client import Stream
from glowd.clients.connection import Connection
from glowd.daemon import wire
from tests.clients.reading import in_thread, samples_of
from tests.fakes.daemon import VOICE, FakeDaemon
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S, until


def said_in_child(action: Callable[[], object]) -> str:
    """What `action` raises in a forked child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            action()
            said = "nothing"
        except errors.GlowdError as error:
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    until(lambda: os.waitpid(child, os.WNOHANG)[0], "the end of the child")
    with os.fdopen(ours) as file:
        return file.read()


@pytest.mark.process
def test_client_in_forked_child_says_so(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        actions = (lambda: stream.send(mel(1)), stream.end, stream.wait_played, lambda: glow.open("t"), glow.status)
        for action in actions:
            assert "UnusableClient: this client was made in process" in said_in_child(action)
        assert said_in_child(glow.close) == "nothing"
        stream.send(mel(2))
    assert fake.of_type(wire.End) == [wire.End("s", 0, 2)]


def test_closed_client_says_so_at_once(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
    for action in (lambda: stream.send(mel(1)), stream.end, stream.wait_played, glow.status, lambda: glow.listen("s")):
        with pytest.raises(errors.UnusableClient, match="this client is closed; make a new one"):
            action()


def test_close_ends_the_waits_of_other_threads(fake: FakeDaemon) -> None:
    fake.auto = False
    failures: list[Exception] = []

    def wait() -> None:
        try:
            stream.send(mel(100))
        except errors.GlowdError as error:
            failures.append(error)

    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        waiting = in_thread(wait)
        fake.wait_for(lambda: fake.streams["s"].frames == 64)
    waiting.join(WAIT_S)
    assert [type(failure) for failure in failures] == [errors.UnusableClient]


def test_dead_thread_ends_every_wait(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])

        def broken(self: Connection) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(Connection, "tick", broken)
        with pytest.raises(errors.DaemonGone, match=r"the client's thread failed .* out of memory"):
            for _ in range(1000):
                stream.send(mel(1))


async def test_unusable_async_client_says_so(fake: FakeDaemon) -> None:
    glow = AsyncClient(fake.endpoint)
    with pytest.raises(errors.UnusableClient, match="not connected"):
        await glow.status()
    await glow.close()
    glow = await AsyncClient(fake.endpoint).connect()
    stream = await glow.open("s", sinks=["null"])
    fake.auto = False
    waiting = asyncio.create_task(stream.send(mel(100)))
    await asyncio.to_thread(fake.wait_for, lambda: fake.streams["s"].frames == 64)
    with pytest.raises(errors.UnusableClient, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(glow.status()))
    await glow.close()
    for action in (waiting, stream.wait_played(), stream.end()):
        with pytest.raises(errors.UnusableClient, match="closed"):
            await asyncio.wait_for(action, WAIT_S)


async def test_dead_task_ends_every_wait(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncClient(fake.endpoint) as glow:

        def broken(self: Connection) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(Connection, "tick", broken)
        fake.answers = False
        with pytest.raises(errors.DaemonGone, match=r"the client's task failed .* out of memory"):
            await glow.run(glow._connection.questions.status(), WAIT_S)


def test_timeouts_name_what_was_waited_for(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["socket"]) as stream:
        fake.answers = False
        waits: dict[str, Callable[[], object]] = {
            "the state of the daemon": lambda: glow.run(glow._connection.questions.status(), 0.05),
            "`pong` of the daemon": lambda: glow.run(glow._connection.questions.ping(), 0.05),
            "audio of utterance 0 of stream s": lambda: next(stream.audio(0.05)),
            "the ending of utterance 0 of stream s": lambda: stream.wait_played(0.05),
            "audio of stream x": lambda: next(glow.listen("x").events(0.05)),
        }
        for words, wait in waits.items():
            with pytest.raises(errors.WaitTimeout, match=f"waited 0.05 s for {words}"):
                wait()
        fake.answers = True
        fake.send("s", wire.Played("s", 0, 0, 0))


@pytest.mark.parametrize("send_nothing", [True, False])
def test_utterance_without_frames_is_played(fake: FakeDaemon, send_nothing: bool) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["socket"]) as stream:
        for number in range(2):
            if send_nothing:
                stream.send(np.zeros((0, 80), np.float32))
            stream.end()
            assert len(samples_of(stream)) == 0
            assert stream.wait_played(WAIT_S) == wire.Played("s", number, 0, 0)
    assert fake.of_type(wire.End) == [wire.End("s", 0, 0), wire.End("s", 1, 0)]


def test_wait_played_without_frames_is_an_empty_utterance(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        assert stream.wait_played(WAIT_S) == stream.wait_played(WAIT_S) == wire.Played("s", 0, 0, 0)


def grant(fake: FakeDaemon, frames: int) -> None:
    fake.streams["s"].credit_frames += frames
    fake.send("s", wire.Credit("s", 0, frames))


def timed_out(stream: Stream, frames: int) -> errors.WaitTimeout:
    with pytest.raises(errors.WaitTimeout) as caught:
        stream.send(mel(frames), timeout_s=0.05)
    return caught.value


def test_send_that_timed_out_drops_what_was_not_sent(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        assert timed_out(stream, 100).frames_taken == stream.frames_taken == 64
        assert timed_out(stream, 7).frames_taken == 0
        grant(fake, 50)
        stream.send(mel(5))
    assert fake.of_type(wire.End) == [wire.End("s", 0, 69)]


def test_same_send_again_goes_on_where_it_stopped(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        for _ in range(2):
            timed_out(stream, 100)
        grant(fake, 100)
        stream.send(mel(100))
        assert stream.frames_taken == 100
        stream.send(mel(10))
    assert fake.of_type(wire.End) == [wire.End("s", 0, 110)]


async def test_cancelled_send_drops_what_was_not_sent(fake: FakeDaemon) -> None:
    fake.auto = False
    async with AsyncClient(fake.endpoint) as glow, await glow.open("s", sinks=["null"]) as stream:
        sending = asyncio.create_task(stream.send(mel(100)))
        await asyncio.to_thread(fake.wait_for, lambda: fake.streams["s"].frames == 64)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert stream.frames_taken == 64
        grant(fake, 10)
        await stream.send(mel(3, -6.0))
    assert fake.of_type(wire.End) == [wire.End("s", 0, 67)]


async def test_answer_counts_that_came_while_the_loop_was_blocked(fake: FakeDaemon) -> None:
    async with AsyncClient(fake.endpoint, timeout_s=0.5) as glow:
        asking = asyncio.create_task(glow.status())
        await asyncio.sleep(0)
        time.sleep(1)
        assert (await asking).state == "ready"


@pytest.mark.parametrize(
    ("whole", "said"), [(False, r"50 of 50 frames \(0\.58 s\)"), (True, r"0 of 50 frames \(0\.00 s\)")]
)
def test_dead_daemon_says_how_far_the_listener_got(fake: FakeDaemon, whole: bool, said: str) -> None:
    """The credit of a voice that needs the whole utterance says nothing of what was heard."""
    fake.voices = [VOICE | {"whole_utterance": whole}]
    with Client(fake.endpoint, reconnect_s=0) as glow:
        stream = glow.open("s", sinks=["null"])
        stream.send(mel(50))
        until(lambda: stream.credit_frames == 64, "all credit")
        fake.stop()
        with pytest.raises(errors.DaemonGone, match=f"at least {said} had been delivered"):
            stream.wait_played(WAIT_S)


@pytest.mark.parametrize("answers", [b"", b"\xff" + 8 * b"\0" + b"\x01\x7f"])
def test_peer_that_ends_no_handshake_holds_nobody(answers: bytes) -> None:
    """Nothing can be sent to it, so closing must not wait until it is."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        accepted: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])
                    accepted[-1].sendall(answers)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        begun_s = time.monotonic()
        with pytest.raises(errors.NotRunning):
            Client(f"tcp://127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - begun_s < WAIT_S
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()
