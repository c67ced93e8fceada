"""The live device: what a loudspeaker would have played is what was synthesised, in one piece."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.e2e.running import Daemon, running_daemon, samples_of, speech
from tests.patience import WAIT_S, repeated_after_stalls, until
from tests.pulse import PulseServer

MEL = speech()


@pytest.fixture(scope="module")
def daemon(pulse: PulseServer) -> Iterator[Daemon]:
    # Long buffers: these tests ask what is heard, and a busy machine must not answer instead.
    settings = (
        "speaker.device=pulse",
        "speaker.prefill_ms=1000",
        "speaker.latency_ms=200",
        "voices.glow.max_streams=16",
    )
    with running_daemon(*settings, env=pulse.env) as running:
        yield running


def locate(heard: Floats, spoken: Floats) -> int:
    """Where `spoken` lies in `heard`, by cross-correlation."""
    size = 1 << (len(heard) + len(spoken)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(spoken, size)), size)
    return int(np.argmax(correlation[: len(heard)]))


def speak(daemon: Daemon, seed: int, frames: int, results: dict[int, tuple[Floats, wire.Played]]) -> None:
    with daemon.client() as glow, glow.open(sinks=["device", "socket"], seed=seed) as stream:
        pieces: list[Floats] = []
        reader = threading.Thread(target=lambda: pieces.extend(piece.payload for piece in stream.audio(WAIT_S)))
        reader.start()
        for at in range(0, frames, 4):
            stream.send(MEL[at : min(frames, at + 4)], WAIT_S)
        played = stream.wait_played(WAIT_S)
        reader.join()
    assert isinstance(played, wire.Played)
    results[seed] = samples_of(pieces), played


@repeated_after_stalls
def test_what_is_heard_is_what_was_synthesised(daemon: Daemon, pulse: PulseServer) -> None:
    results: dict[int, tuple[Floats, wire.Played]] = {}
    with pulse.record("glow") as recording:
        speak(daemon, 1, 240, results)
        time.sleep(0.5)
        heard = recording.samples().copy()
    spoken, played = results[1]
    assert played.underruns == 0 and played.total_samples == len(spoken) == 240 * 256
    at = locate(heard, spoken)
    part = heard[at : at + len(spoken)]
    assert np.corrcoef(part, spoken)[0, 1] > 0.9999
    assert np.abs(part - spoken).max() < 2e-3  # a 16-bit sink; no gap, no repetition anywhere
    assert np.abs(heard[at + len(spoken) + 2205 :]).max(initial=0) < 1e-3


@repeated_after_stalls
def test_two_streams_are_mixed(daemon: Daemon, pulse: PulseServer) -> None:
    results: dict[int, tuple[Floats, wire.Played]] = {}
    with pulse.record("glow") as recording:
        threads = [threading.Thread(target=speak, args=(daemon, seed, 160, results)) for seed in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.5)
        heard = recording.samples().copy()
    places = {seed: locate(heard, results[seed][0]) for seed in (2, 3)}
    mixed = np.zeros(max(places[s] + 160 * 256 for s in places), np.float32)
    for seed, at in places.items():
        mixed[at : at + 160 * 256] += results[seed][0]
    begin = min(places.values())
    assert np.corrcoef(heard[begin : len(mixed)], mixed[begin:])[0, 1] > 0.999


@repeated_after_stalls
def test_barge_in_fades_and_names_the_last_sample(daemon: Daemon, pulse: PulseServer) -> None:
    with pulse.record("glow") as recording, daemon.client() as glow:
        stream = glow.open(sinks=["device", "socket"], seed=4)
        pieces: list[Floats] = []
        stream.send(MEL[:300], WAIT_S)
        reader = threading.Thread(target=lambda: pieces.extend(piece.payload for piece in stream.audio(WAIT_S)))
        reader.start()
        until(lambda: glow.status().info["streams"][stream.name]["delivered_samples"] > 12_000, "half a second of it")
        flushed = stream.flush(fade_ms=15)
        reader.join()
        time.sleep(0.6)
        heard = recording.samples().copy()
        stream.close()
    assert isinstance(flushed, wire.Flushed)
    last, spoken = flushed.last_sample_played, samples_of(pieces)
    assert 0 < last < len(spoken) and flushed.dropped_samples >= len(spoken) - last - 1
    steady = last - 22050 * 20 // 1000  # before the fade
    at = locate(heard, spoken[:steady])
    assert np.abs(heard[at : at + steady] - spoken[:steady]).max() < 2e-3
    assert np.abs(heard[at + last + 64 :]).max(initial=0) < 1e-3, "silence after the last sample"
    jumps = np.abs(np.diff(heard[at + steady : at + last + 64]))
    assert jumps.max() <= np.abs(np.diff(spoken)).max() * 1.05, "a fade, not a click"
