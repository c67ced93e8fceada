"""The asyncio client against the same fake daemon: what differs from the blocking one is the driver."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import AsyncClient, errors
from glowd.clients.aio import AsyncStream
from glowd.clients.connection import Connection
from glowd.daemon import wire
from tests.fakes.daemon import HOP, FakeDaemon, refuse_once
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def samples_of(stream: AsyncStream) -> wire.Array:
    return np.concatenate([chunk.payload async for chunk in stream.audio(timeout_s=WAIT_S)])


async def test_stream_from_open_to_played(fake: FakeDaemon) -> None:
    async with AsyncClient(fake.endpoint) as glow, await glow.open(sinks=["socket"]) as stream:
        for number in range(2):
            await stream.send(mel(70))
            await stream.end()
            heard = await samples_of(stream)
            np.testing.assert_array_equal(heard * 2**20, np.arange(70 * HOP))
            assert await stream.wait_played() == wire.Played(stream.name, number, 70 * HOP, 0)


async def test_send_without_credit_waits_without_blocking(fake: FakeDaemon) -> None:
    fake.auto = False
    async with AsyncClient(fake.endpoint) as glow, await glow.open("s", sinks=["null"]) as stream:
        sender = asyncio.create_task(stream.send(mel(80)))
        await asyncio.to_thread(fake.wait_for, lambda: fake.streams["s"].frames == 64)
        await glow.ping()  # whatever was sent before it has arrived
        assert not sender.done() and fake.streams["s"].frames == 64
        fake.streams["s"].credit_frames += 16
        fake.send("s", wire.Credit("s", 0, 16))
        await asyncio.wait_for(sender, WAIT_S)
        with pytest.raises(errors.WaitTimeout, match="0 of the 1 frames were taken"):
            await stream.send(mel(1), timeout_s=0.05)
        fake.streams["s"].credit_frames += 1
        fake.send("s", wire.Credit("s", 0, 1))
    assert fake.of_type(wire.End) == [wire.End("s", 0, 80)]


async def test_rejected_mel_is_sent_again(fake: FakeDaemon) -> None:
    fake.refuse = refuse_once(3, wire.Code.GAP)
    async with AsyncClient(fake.endpoint) as glow, await glow.open(sinks=["socket"]) as stream:
        await stream.send(mel(80))
        await stream.end()
        assert len(await samples_of(stream)) == 80 * HOP


async def test_flush_interrupts_a_blocked_send(fake: FakeDaemon) -> None:
    fake.auto = False
    async with AsyncClient(fake.endpoint) as glow, await glow.open("s", sinks=["null"]) as stream:
        sender = asyncio.create_task(stream.send(mel(100)))
        await asyncio.to_thread(fake.wait_for, lambda: fake.streams["s"].frames == 64)
        assert await stream.flush() == wire.Flushed("s", 0, 99, 1000)
        with pytest.raises(errors.Interrupted):
            await sender
        await stream.pause()
        await stream.gain(-3.0)
        await stream.resume()
    fake.wait_for(lambda: fake.received[-2:] == [wire.Close("s"), wire.Bye()])
    assert fake.received[-5:-2] == [wire.Pause("s"), wire.Gain("s", -3.0), wire.Resume("s")]


async def test_many_streams_share_one_loop(fake: FakeDaemon) -> None:
    async def speak(client: AsyncClient) -> int:
        async with await client.open(sinks=["socket"]) as stream:
            await stream.send(mel(50))
            await stream.end()
            return len(await samples_of(stream))

    async with AsyncClient(fake.endpoint) as glow:
        assert await asyncio.gather(*(speak(glow) for _ in range(6))) == [50 * HOP] * 6


async def test_exception_in_the_block_flushes(fake: FakeDaemon) -> None:
    with pytest.raises(RuntimeError, match="tts broke"):
        async with AsyncClient(fake.endpoint) as glow, await glow.open("s", sinks=["null"]) as stream:
            await stream.send(mel(5))
            raise RuntimeError("tts broke")
    assert fake.of_type(wire.Flush) and not fake.of_type(wire.End)


async def test_status_ping_and_listen_are_answered(fake: FakeDaemon) -> None:
    async with (
        AsyncClient(fake.endpoint) as glow,
        AsyncClient(fake.endpoint) as other,
        await other.listen() as listener,
    ):
        assert (await other.status()).state == "ready"
        assert await glow.ping() > 0
        async with await glow.open("s", sinks=["null"]) as stream:
            await stream.send(mel(3))
        async for chunk in listener.audio(timeout_s=WAIT_S):
            if chunk.last:
                break


async def test_missing_and_lost_daemon_raise(socket_dir: Path) -> None:
    with pytest.raises(errors.NotRunning, match="start one with: glowd"):
        await AsyncClient(f"ipc://{socket_dir}/none.ipc", timeout_s=0.2).connect()
    with pytest.raises(errors.NotRunning, match="cannot connect"):
        await AsyncClient("nonsense").connect()
    fake = FakeDaemon(socket_dir, auto=False)
    async with AsyncClient(fake.endpoint, reconnect_s=0) as glow:
        stream = await glow.open("s", sinks=["null"])
        await stream.send(mel(64))
        await asyncio.to_thread(fake.stop)
        with pytest.raises(errors.DaemonGone, match="closed the connection"):
            await stream.send(mel(64), timeout_s=WAIT_S)


async def test_silent_daemon_raises_gone(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "PING_EVERY_S", 0.02)
    async with AsyncClient(fake.endpoint, reconnect_s=0) as glow:
        fake.answers = False
        await asyncio.to_thread(fake.wait_for, lambda: fake.pings > 2)
        monkeypatch.setattr(Connection, "SILENCE_S", 0.1)
        with pytest.raises(errors.DaemonGone, match="has sent nothing"):
            await glow.run(glow._connection.questions.status(), WAIT_S)


async def test_close_that_is_cancelled_leaves_nothing_open(fake: FakeDaemon) -> None:
    client = await AsyncClient(fake.endpoint).connect()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert closing.cancelled() and client._context.closed and client._dealer.closed


async def test_other_sockets_of_a_client_leave_nothing_open(fake: FakeDaemon) -> None:
    """Whenever it has lost its daemon it takes another socket."""
    async with AsyncClient(fake.endpoint) as glow:
        await glow._replace_socket()
        await glow.ping()
        before = open_files()
        for _ in range(3):
            await glow._replace_socket()
            await glow.ping()
        async with asyncio.timeout(WAIT_S):
            while open_files() > before:  # ZeroMQ closes them in a thread of its own
                await asyncio.sleep(0.01)
