"""The live device: a loudspeaker would have played exactly the audio that was made, without a gap."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.pulse import PulseServer
from tests.harness.speaking import HOP, AudioReader, speak
from tests.harness.waiting import WAIT_S, repeated_after_stalls, until

MEL = speech()


@pytest.fixture(scope="module")
def daemon(pulse: PulseServer) -> Iterator[Daemon]:
    # Long buffers: these tests compare audio, and a busy machine must not cause an underrun.
    settings = (
        "speaker.device=pulse",
        "speaker.prefill_ms=1000",
        "speaker.latency_ms=200",
        'voices={glow={engine="waveglow",max_streams=16}}',
    )
    with running_daemon(*settings, env=pulse.env) as running:
        yield running


def locate(heard: Floats, spoken: Floats) -> int:
    """Where `spoken` lies in `heard`, by cross-correlation."""
    size = 1 << (len(heard) + len(spoken)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(spoken, size)), size)
    return int(np.argmax(correlation[: len(heard)]))


def speak_on_device(daemon: Daemon, seed: int, frames: int) -> tuple[Floats, wire.Played]:
    with daemon.client() as glow:
        return speak(glow, MEL[:frames], [4], sinks=["device", "socket"], seed=seed)


@repeated_after_stalls
def test_recorded_audio_equals_the_made_audio(daemon: Daemon, pulse: PulseServer) -> None:
    with pulse.record("glow") as recording:
        spoken, played = speak_on_device(daemon, 1, 240)
        heard = recording.after(0.5)
    assert played.underruns == 0
    at = locate(heard, spoken)
    part = heard[at : at + len(spoken)]
    assert np.corrcoef(part, spoken)[0, 1] > 0.9999
    assert np.abs(part - spoken).max() < 2e-3  # a 16-bit sink; no gap, no repetition anywhere
    assert np.abs(heard[at + len(spoken) + 2205 :]).max(initial=0) < 1e-3


@repeated_after_stalls
def test_two_streams_are_mixed(daemon: Daemon, pulse: PulseServer) -> None:
    spoken: dict[int, Floats] = {}

    def run(seed: int) -> None:
        spoken[seed], _ = speak_on_device(daemon, seed, 160)

    with pulse.record("glow") as recording:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = recording.after(0.5)
    places = {seed: locate(heard, audio) for seed, audio in spoken.items()}
    mixed = np.zeros(max(places.values()) + 160 * HOP, np.float32)
    for seed, at in places.items():
        mixed[at : at + 160 * HOP] += spoken[seed]
    begin = min(places.values())
    assert np.corrcoef(heard[begin : len(mixed)], mixed[begin:])[0, 1] > 0.999


@repeated_after_stalls
def test_flush_fades_and_reports_the_last_sample(daemon: Daemon, pulse: PulseServer) -> None:
    with pulse.record("glow") as recording, daemon.client() as glow:
        stream = glow.open(sinks=["device", "socket"], seed=4)
        stream.send(MEL[:300], WAIT_S)
        with AudioReader(stream) as reader:
            delivered = "delivered_samples"
            until(lambda: glow.status().info["streams"][stream.name][delivered] > 12_000, "half a second of audio")
            flushed = stream.flush(fade_ms=15)
        heard = recording.after(0.6)
        stream.close()
    assert isinstance(flushed, wire.Flushed)
    last, spoken = flushed.last_sample_played, reader.samples
    assert 0 < last < len(spoken) and flushed.dropped_samples >= len(spoken) - last - 1
    steady = last - 22050 * 20 // 1000  # before the fade
    at = locate(heard, spoken[:steady])
    assert np.abs(heard[at : at + steady] - spoken[:steady]).max() < 2e-3
    assert np.abs(heard[at + last + 64 :]).max(initial=0) < 1e-3, "silence after the last sample"
    jumps = np.abs(np.diff(heard[at + steady : at + last + 64]))
    assert jumps.max() <= np.abs(np.diff(spoken)).max() * 1.05, "a fade, not a click"
