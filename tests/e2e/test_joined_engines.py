"""Engines that join from elsewhere by TCP: they serve, die, come back and leave, and no sample is lost or altered."""

import time
import wave
from collections.abc import Iterator

import numpy as np
import pytest

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.checkpoint import load
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.joining import Site, engines, free_port, running_site
from tests.harness.mels import speech
from tests.harness.speaking import speak
from tests.harness.waiting import WAIT_S, until

MEL = speech()
HALF = len(MEL) // 2
DIALLED = f"tcp://127.0.0.1:{free_port()}"
"""Where the daemon of these tests looks for an engine that listens."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), f"server.dial_engines=['{DIALLED}']") as running:
        yield running


def offline(seed: int) -> np.ndarray:
    return render(ExactVocoder(load("embedded"), VocoderOptions(slots=1)), MEL, seed)


def test_engine_that_joins_speaks_and_leaves(site: Site) -> None:
    with site.daemon.client() as glow:
        assert not glow.status().info["voices"]["glow"]["ready"]
        engine = site.start("one", "--set", "voices.glow.max_streams=4")
        site.wait("one")
        samples, _ = speak(glow, MEL, seed=4)
        np.testing.assert_allclose(samples, offline(4), atol=1e-5)
        assert engines(glow)["glow/one"]["max_streams"] == 4
        engine.process.terminate()
        assert engine.process.wait(WAIT_S) == 0, "".join(engine.output)
        assert engines(glow) == {}


def test_engine_that_is_dialled_speaks_and_leaves(site: Site) -> None:
    engine = site.start("gpu", "--listen", DIALLED)
    site.wait("gpu")
    with site.daemon.client() as glow:
        samples, _ = speak(glow, MEL, seed=4)
        np.testing.assert_allclose(samples, offline(4), atol=1e-5)
        until(lambda: (engines(glow)["glow/gpu"]["link"] or {}).get("trip_ms") is not None, "a measured link")
        engine.process.terminate()
        assert engine.process.wait(WAIT_S) == 0, "".join(engine.output)
        assert engines(glow) == {}


class HalfSpoken:
    """An utterance whose first half was sent and whose first audio has come back."""

    def __init__(self, client: Client, seed: int) -> None:
        self.stream = client.open(f"s{seed}", sinks=["socket"], seed=seed)
        self.stream.send(MEL[:HALF], WAIT_S)
        self._audio = self.stream.audio(5 * WAIT_S)
        self._first = next(self._audio)

    def finish(self) -> np.ndarray:
        """Send the second half; the audio of the whole."""
        self.stream.send(MEL[HALF:], WAIT_S)
        self.stream.end()
        samples = np.concatenate([chunk.payload for chunk in (self._first, *self._audio)])
        self.stream.close()
        return samples


def undisturbed(site: Site, seed: int) -> np.ndarray:
    """What a file has of the same utterance, when nothing happens to its engine; in full scale 1."""
    with site.daemon.client() as glow, glow.open(sinks=[f"file:undisturbed-{seed}"], seed=seed) as stream:
        stream.send(MEL, WAIT_S)
        assert isinstance(stream.wait_played(WAIT_S), wire.Played)
    path = next(site.recordings.glob(f"undisturbed-{seed}*.wav"))
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767


def same(samples: np.ndarray, undisturbed: np.ndarray) -> None:
    """Equal, within a step of the file's 16 bits."""
    assert len(samples) == len(undisturbed)
    assert np.abs(np.clip(samples, -1, 1) - undisturbed).max() <= 1 / 32767


def placed(glow: Client) -> dict[str, str]:
    return {name: stream["engine"] for name, stream in glow.status().info["streams"].items()}


def test_killed_engine_costs_no_sample(site: Site) -> None:
    first = site.start("first")
    site.wait("first")
    whole = {seed: undisturbed(site, seed) for seed in (20, 21)}
    with site.daemon.client() as glow:
        spoken = {seed: HalfSpoken(glow, seed) for seed in whole}
        second = site.start("second")
        site.wait("first", "second")
        first.kill()
        for seed, one in spoken.items():
            same(one.finish(), whole[seed])
        assert site.start("first").process.poll() is None
        site.wait("first", "second")  # taken back, in the place of the one that was killed
    for engine in (second, site.engines["first"]):
        engine.process.terminate()
        assert engine.process.wait(WAIT_S) == 0


def test_engine_that_stands_still_costs_no_sample(site: Site) -> None:
    engine = site.start("frozen")
    site.wait("frozen")
    whole = undisturbed(site, 30)
    with site.daemon.client() as glow:
        alone = HalfSpoken(glow, 30)
        with engine.stopped():
            until(lambda: not engines(glow)["glow/frozen"]["ready"], "that it is missed", every_s=0.05)
            time.sleep(1)  # four seconds in all
        same(alone.finish(), whole)  # it waited for the only engine
        spoken = HalfSpoken(glow, 30)
        site.start("other")
        site.wait("frozen", "other")
        with engine.stopped():
            until(lambda: placed(glow) == {"s30": "glow/other"}, "that it moves", every_s=0.05)
            same(spoken.finish(), whole)
        site.wait("frozen", "other")
    for one in (engine, site.engines["other"]):
        one.process.terminate()
        assert one.process.wait(WAIT_S) == 0
