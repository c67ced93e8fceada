"""Two daemons with the same voice, reached over TCP with keys: a client that loses one goes on in the other.

What the listener hears is, sample by sample, what one daemon alone would have spoken.
"""

import asyncio
import contextlib
import tempfile
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.aio import AsyncStream
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.e2e.test_gateway_loss import opened, undisturbed
from tests.e2e.test_remote import free_port, glowctl, new_key
from tests.harness.daemon import Daemon, kill, killable_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, AudioReader, send_all
from tests.harness.waiting import WAIT_S, until

MEL = speech()
HALF = len(MEL) // 2
VOICE = 'voices={glow={engine="waveglow",max_streams=8,default=true}}'
RATES_HZ = (0, 16_000)


class Place:
    """Where a daemon runs, and the address with a key by which a client of another machine reaches it."""

    def __init__(self, folder: Path, recordings: Path) -> None:
        self.port = f"127.0.0.1:{free_port()}"
        self._folder, self._stack = folder, contextlib.ExitStack()
        self._settings = (
            "speaker.enabled=false", VOICE, f"server.endpoint=tcp://{self.port}", f"server.keys={folder}/keys",
            f"files.directory={recordings}",
        )  # fmt: skip
        self.daemon: Daemon | None = None
        self.address = ""

    def start(self) -> None:
        """Have it run; does nothing if it does."""
        if self.daemon is None:
            self.daemon = self._stack.enter_context(killable_daemon(self._folder, *self._settings))
            self.address = self.address or new_key(self.daemon, "desk", "admin")

    def kill(self) -> None:
        """End all of its processes at once."""
        assert self.daemon, "it runs"
        kill(self.daemon)
        self.daemon = None

    def stop(self) -> None:
        """As systemd stops it: the gateway tells its clients."""
        assert self.daemon, "it runs"
        self.daemon.process.terminate()
        self.daemon = None

    def glowctl(self, *arguments: str) -> str:
        """What a command of the daemon's own user prints."""
        assert self.daemon, "it runs"
        return glowctl(self.daemon, *arguments).stdout

    @property
    def shown(self) -> str:
        return f"glowd://desk@{self.port}"

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that both daemons write files into, as on a shared disk."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def both(recordings: Path) -> Iterator[tuple[Place, Place]]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name, contextlib.ExitStack() as stack:
        pair = Place(Path(name, "a"), recordings), Place(Path(name, "b"), recordings)
        for one in pair:
            stack.callback(one.close)
        yield pair


@pytest.fixture
def places(both: tuple[Place, Place]) -> tuple[Place, Place]:
    """Two daemons that run, whatever the test before did to them."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Place.start, both))
    return both


def client_of(*places: Place) -> Client:
    return Client(",".join(one.address for one in places), timeout_s=WAIT_S, reconnect_s=5 * WAIT_S)


def digest_of(place: Place) -> str:
    """Of a daemon's voice. Nothing is said of an engine that stands still."""
    found: list[str] = []

    def is_told() -> bool:
        with client_of(place) as glow:
            found.extend(voice["digest"] for voice in glow.welcome.voices)
        return bool(found)

    until(is_told, "a voice", every_s=0.2)
    return found[0]


def samples_of(path: Path) -> Floats:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


async def begun(glow: AsyncClient) -> tuple[AsyncStream, list[Floats]]:
    """A stream of which some audio of the first half of the sentence was read."""
    stream = await glow.open(sinks=["socket"], seed=7)
    await stream.send(MEL[:HALF], WAIT_S)
    return stream, [(await anext(stream.audio(WAIT_S))).payload]


async def ended(stream: AsyncStream, heard: list[Floats]) -> Floats:
    await stream.send(MEL[HALF:], WAIT_S)
    await stream.end()
    heard += [chunk.payload async for chunk in stream.audio(WAIT_S)]
    await stream.close()
    return np.concatenate(heard)


def test_drained_daemon_sends_its_clients_to_the_other(places: tuple[Place, Place]) -> None:
    """Between two utterances, of which the second one's frames come without a pause."""
    a, b = places
    with client_of(a, b) as glow:
        expected = undisturbed(glow, seed=3)
        with opened(glow, name="busy", sinks=["socket"], seed=3) as stream:
            for number in range(2):
                with AudioReader(stream) as reader:
                    send_all(stream, MEL[:HALF])
                    assert reader.has_audio.wait(WAIT_S)
                    assert glow.endpoint == (b if number else a).shown
                    if number == 0:
                        assert a.glowctl("drain") == "the daemon is draining; open streams: 1\n"
                        with client_of(a) as late, pytest.raises(errors.DaemonError, match="and takes no new streams"):
                            late.open(sinks=["null"])
                    send_all(stream, MEL[HALF:])
                    stream.wait_played(WAIT_S)
                np.testing.assert_array_equal(reader.samples, expected)
        until(lambda: a.glowctl("drain").endswith("open streams: 0\n"), "the end of its streams")
    with client_of(a, b) as new, opened(new, sinks=["null"]):
        assert new.endpoint == b.shown
    assert a.glowctl("uncordon") == "the daemon is ready; open streams: 0\n"
    with client_of(a, b) as new, opened(new, sinks=["null"]):
        assert new.endpoint == a.shown


async def test_utterance_goes_on_when_a_daemon_is_stopped(places: tuple[Place, Place]) -> None:
    """By SIGTERM, in mid-utterance; of the asynchronous client."""
    a, b = places
    async with AsyncClient(f"{b.address},{a.address}", timeout_s=WAIT_S) as glow:
        stream, heard = await begun(glow)
        b.stop()
        audio = await ended(stream, heard)
        assert glow.endpoint == a.shown
    with client_of(a) as other:
        np.testing.assert_array_equal(audio, await asyncio.to_thread(undisturbed, other, seed=7))


def test_utterances_go_on_when_a_daemon_is_killed(places: tuple[Place, Place], recordings: Path) -> None:
    """On a socket, resampled and in a file: all of one client, at once."""
    a, b = places
    assert digest_of(a) == digest_of(b) != ""
    with client_of(b) as glow:
        expected, resampled = (undisturbed(glow, seed=7, audio_rate_hz=rate_hz) for rate_hz in RATES_HZ)
        with opened(glow, sinks=["file:calm"], seed=7) as calm:
            send_all(calm, MEL)
    with client_of(a, b) as glow, contextlib.ExitStack() as stack:
        assert glow.endpoint == a.shown
        asked: list[dict[str, Any]] = [dict(sinks=["socket"], audio_rate_hz=rate_hz) for rate_hz in RATES_HZ]
        asked += [dict(sinks=["file:moved"])]
        streams = [stack.enter_context(opened(glow, seed=7, **one)) for one in asked]
        readers = [stack.enter_context(AudioReader(stream)) for stream in streams[:2]]
        for stream in streams:
            send_all(stream, MEL[:HALF])
        assert all(reader.has_audio.wait(WAIT_S) for reader in readers)
        a.kill()
        for stream in streams:
            send_all(stream, MEL[HALF:])
        endings = [stream.wait_played(WAIT_S) for stream in streams]
        assert glow.endpoint == b.shown
    assert {one.total_samples for one in endings if isinstance(one, wire.Played)} == {len(MEL) * HOP}
    np.testing.assert_array_equal(readers[0].samples, expected)
    assert len(readers[1].samples) == len(resampled)
    assert np.abs(readers[1].samples - resampled).max() <= 1e-5
    np.testing.assert_array_equal(samples_of(recordings / "moved.wav"), samples_of(recordings / "calm.wav"))
