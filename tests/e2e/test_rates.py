"""Voices of three rates in one daemon: trained or made, spoken at once, to files, sockets of any rate, listeners, a device."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from glowd.clients import Client
from glowd.clients.cli import glowctl
from glowd.daemon import wire
from glowd.flow import checkpoint, cli
from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.streaming import ExactVocoder
from glowd.flow.training.geometry import geometry
from glowd.flow.vocoder import AnyVocoder, render
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import SENTENCE
from tests.harness.pulse import PulseServer
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.voices import SMALL_SOURCE, random_voice
from tests.harness.waiting import WAIT_S, repeated_after_stalls

RATES = {"narrow": 16_000, "rtisi": 22_050, "wide": 24_000}
RECIPE = """
[voice]
mel = "cosyvoice2"
flows = 5
early_every = 2
layers = 3
channels = 16
cond_channels = 12
source = { harmonic_layers = 2, harmonic_channels = 20, pitch = { past_frames = 5, channels = 24, layers = 1 } }
[train]
steps = 2
batch = 2
validation_segments = 2
spectral_weight = 1.0
mel_weight = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice of CosyVoice 2's mels, trained by glowlab as its README says, and a voice of 16 kHz."""
    made = tmp_path_factory.mktemp("rates")
    speech = ["--data", str(write_recordings(made / "data", 2)), "--test", str(write_recordings(made / "test", 1))]
    (made / "recipe.toml").write_text(RECIPE)
    config, pitch = ["--config", str(made / "recipe.toml")], str(made / "pitch.safetensors")
    assert cli.main(["pitch", *config, *speech, "--steps", "2", "--batch", "32", "--out", pitch]) == 0
    assert cli.main(["train", *config, *speech, "--pitch", pitch, "--out", str(made / "wide")]) == 0
    narrow = geometry({"mel": {"rate_hz": 16000, "n_fft": 800, "win": 800, "hop": 200}} | SMALL_SOURCE)
    checkpoint.save(made / "narrow.safetensors", narrow, random_voice(narrow).state_dict())  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="module")
def vocoders(folder: Path) -> dict[str, AnyVocoder]:
    return {
        "narrow": ExactVocoder(checkpoint.load(folder / "narrow.safetensors")),
        "rtisi": RtisiVocoder(),
        "wide": ExactVocoder(checkpoint.load(folder / "wide" / "voice.safetensors")),
    }


def voices_of(folder: Path) -> str:
    return (
        f'voices={{rtisi={{engine="rtisi-la",max_streams=9,default=true}},'
        f'narrow={{engine="waveglow",checkpoint="{folder / "narrow.safetensors"}",max_streams=9,default=false}},'
        f'wide={{engine="waveglow",checkpoint="{folder / "wide" / "voice.safetensors"}",max_streams=9,default=false}}}}'
    )


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", f"files.directory={folder / 'heard'}", voices_of(folder)) as running:
        yield running


def mel_for(format: MelFormat, seconds: float = 1.0) -> Floats:
    return log_mel(voice_like(seconds, 4, format.rate_hz), format)


class Heard:
    """One utterance by the socket, joined; every message is of the rate and type that were asked for."""

    def __init__(self, chunks: list[wire.Audio]) -> None:
        self.rates, self.dtypes = {chunk.rate_hz for chunk in chunks}, {chunk.dtype for chunk in chunks}
        self.latencies_ms = {chunk.latency_ms for chunk in chunks}
        self.gapless = all(a.first_sample + a.samples == b.first_sample for a, b in pairwise(chunks))
        self.samples: Floats = np.concatenate([np.asarray(chunk.payload, np.float32) for chunk in chunks])


def speak(glow: Client, voice: str, mel: Floats, **options: Any) -> tuple[Heard, wire.Played, float]:
    """An utterance: what came by the socket, its ending, and the latency that `opened` told."""
    chunks: list[wire.Audio] = []
    with glow.open(voice=voice, seed=3, **({"sinks": ["socket"]} | options)) as stream:
        reader = threading.Thread(target=lambda: chunks.extend(stream.audio(WAIT_S)))
        reader.start()
        for begin in range(0, len(mel), 7):
            stream.send(mel[begin : begin + 7], WAIT_S)
        played = stream.wait_played(WAIT_S)
        reader.join(WAIT_S)
        assert isinstance(played, wire.Played)
        return Heard(chunks), played, stream.audio_latency_ms


@pytest.mark.parametrize("voice", RATES)
def test_file_and_socket_have_the_voices_rate(
    daemon: Daemon, folder: Path, vocoders: dict[str, AnyVocoder], voice: str
) -> None:
    vocoder = vocoders[voice]
    mel = mel_for(vocoder.format)
    with daemon.client() as glow:
        told = next(each for each in glow.welcome.voices if each["name"] == voice)
        assert (told["rate_hz"], told["hop"]) == (RATES[voice], vocoder.hop)
        assert MelFormat.from_dict(told["format"]) == vocoder.format
        heard, played, latency_ms = speak(glow, voice, mel, sinks=["socket", f"file:{voice}"])
    expected = render(vocoder, mel, seed=3)
    assert played.total_samples == len(mel) * vocoder.hop == len(expected)
    assert (heard.rates, heard.dtypes, latency_ms) == ({RATES[voice]}, {"f32"}, 0.0) and heard.gapless
    np.testing.assert_allclose(heard.samples, expected, atol=1e-6)
    written, rate_hz = soundfile.read(folder / "heard" / f"{voice}.wav", dtype="float32")
    assert rate_hz == RATES[voice] and len(written) == len(expected)
    np.testing.assert_allclose(written, np.clip(expected, -1, 1), atol=1e-4)


ASKED = [(8000, "s16"), (16_000, "f32"), (22_050, "s16"), (24_000, "f32"), (44_100, "s16"), (48_000, "f32")]


@pytest.mark.parametrize(("rate_hz", "dtype"), ASKED)
def test_voices_at_once_reach_a_client_at_its_rate(
    daemon: Daemon, vocoders: dict[str, AnyVocoder], rate_hz: int, dtype: str
) -> None:
    found: dict[str, tuple[Heard, wire.Played, float]] = {}

    def run(voice: str) -> None:
        with daemon.client(voice) as glow:
            options = {"audio_rate_hz": rate_hz, "audio_dtype": dtype}
            found[voice] = speak(glow, voice, mel_for(vocoders[voice].format), **options)

    threads = [threading.Thread(target=run, args=(voice,)) for voice in RATES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for voice, own_hz in RATES.items():
        heard, played, latency_ms = found[voice]
        own = render(vocoders[voice], mel_for(vocoders[voice].format), seed=3)
        assert played.total_samples == len(own), "the timeline counts the voice's samples"
        assert (heard.rates, heard.dtypes) == ({rate_hz}, {dtype}) and heard.gapless
        assert len(heard.samples) == pytest.approx(len(own) * rate_hz / own_hz, abs=0.51)
        assert heard.latencies_ms == {latency_ms} and (latency_ms > 0) == (rate_hz != own_hz)
        wanted = own if rate_hz == own_hz else soxr.resample(own, own_hz, rate_hz)
        np.testing.assert_allclose(heard.samples.clip(-1, 1), wanted.clip(-1, 1), atol=4e-5)


def test_listener_gets_voices_of_all_rates_at_its_own(daemon: Daemon, vocoders: dict[str, AnyVocoder]) -> None:
    chunks: dict[str, list[wire.Audio]] = {voice: [] for voice in RATES}
    with daemon.client("ear") as ear, ear.listen("*", audio_rate_hz=48_000, audio_dtype="s16") as listener:

        def listen() -> None:
            for chunk in listener.audio(WAIT_S):
                chunks[chunk.stream].append(chunk)
                if all(parts and parts[-1].last for parts in chunks.values()):
                    return

        reader = threading.Thread(target=listen)
        reader.start()
        with daemon.client() as glow:
            for voice in RATES:
                speak(glow, voice, mel_for(vocoders[voice].format), name=voice, sinks=["null", "socket"])
        reader.join(WAIT_S)
        assert not reader.is_alive()
    for voice, own_hz in RATES.items():
        heard = Heard(chunks[voice])
        own_samples = len(mel_for(vocoders[voice].format)) * vocoders[voice].hop
        assert (heard.rates, heard.dtypes) == ({48_000}, {"s16"}) and heard.gapless
        assert len(heard.samples) == pytest.approx(own_samples * 48_000 / own_hz, abs=0.51)


@pytest.mark.parametrize("voice", RATES)
def test_glowctl_sends_a_recording_to_a_voice_of_any_rate(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], voice: str
) -> None:
    out = tmp_path / "said.wav"
    words = ["--endpoint", daemon.endpoint, "--timeout", str(WAIT_S), "send", str(SENTENCE), "--voice", voice]
    assert glowctl.main([*words, "--out", str(out)]) == 0, capsys.readouterr()
    source, written = soundfile.info(SENTENCE), soundfile.info(out)
    assert written.samplerate == RATES[voice]
    assert written.duration == pytest.approx(source.duration, abs=0.03)


def test_trained_voice_is_rendered_at_its_rate(folder: Path) -> None:
    trained = str(folder / "wide" / "voice.safetensors")
    assert cli.main(["render", str(SENTENCE), str(folder / "r.wav"), "--checkpoint", trained]) == 0
    source, written = soundfile.info(SENTENCE), soundfile.info(folder / "r.wav")
    assert written.samplerate == 24_000 and written.duration == pytest.approx(source.duration, abs=0.02)


# -------------------------------------------------------------------- the device

DEVICE_HZ = 24_000


@pytest.fixture(scope="module")
def with_device(folder: Path, pulse: PulseServer) -> Iterator[Daemon]:
    pulse.add_sink("wide", DEVICE_HZ)
    settings = (
        "speaker.device=pulse",
        f"speaker.rate_hz={DEVICE_HZ}",
        "speaker.prefill_ms=1000",
        "speaker.latency_ms=200",
    )
    with running_daemon(*settings, voices_of(folder), env=pulse.env | {"PULSE_SINK": "wide"}) as running:
        yield running


def level(samples: Floats) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.device
@repeated_after_stalls
@pytest.mark.parametrize("voice", RATES)
def test_device_plays_every_voice_as_long_as_it_speaks(
    with_device: Daemon, pulse: PulseServer, vocoders: dict[str, AnyVocoder], voice: str
) -> None:
    vocoder = vocoders[voice]
    mel = mel_for(vocoder.format)
    own = render(vocoder, mel, seed=3)
    with pulse.record("wide", DEVICE_HZ) as recording:
        with with_device.client() as glow:
            _, played, _ = speak(glow, voice, mel, sinks=["device", "socket"])
        heard = recording.after(0.5)
    assert played.total_samples == len(own) and played.underruns == 0
    same = RATES[voice] == DEVICE_HZ
    wanted = own if same else soxr.resample(own, RATES[voice], DEVICE_HZ)
    size = 1 << (len(heard) + len(wanted)).bit_length()
    scores = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size)), size)
    at = int(np.argmax(scores[: len(heard)]))
    part = heard[at : at + len(wanted)]
    # Nothing is resampled where the device has the voice's rate; the live resampler is soft at the top of the band.
    assert level(part - wanted) < (1e-3 if same else 0.2 * level(wanted))
