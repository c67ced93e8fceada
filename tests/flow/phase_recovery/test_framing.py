"""Phase recovery at any rate, hop, window and framing: what is rendered lies where it was, in as many samples."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.vocoder import AnyVocoder, drain, render

FORMATS = {
    "22k": MelFormat(),
    "24k": MelFormat(rate_hz=24000, n_fft=1920, win=1920, hop=480),
    "24k-padded-window": MelFormat(rate_hz=24000, n_fft=2048, win=1200, hop=300, fmin_hz=80.0, fmax_hz=7600.0),
    "24k-htk": MelFormat(rate_hz=24000, n_mels=100, fmax_hz=12000.0, bank="htk", norm="none", log_floor=1e-7),
    "16k-odd-hop": MelFormat(rate_hz=16000, n_fft=800, win=800, hop=201),
    "44k": MelFormat(rate_hz=44100, n_fft=2048, win=2048, hop=512, n_mels=128, fmax_hz=22050.0),
    "48k-unequal": MelFormat(rate_hz=48000, n_fft=2048, win=2048, hop=600),
}
"""Centred; each is tested in HiFi-GAN's framing too."""
VOCODERS: dict[str, Callable[[MelFormat], AnyVocoder]] = {
    "rtisi": lambda format: RtisiVocoder(format),
    "griffin-lim": lambda format: GriffinLimVocoder(format, "g", 16),
}
CASES = [(name, kind, centre) for name in FORMATS for kind in VOCODERS for centre in (True, False)]


def format_of(name: str, centre: bool) -> MelFormat:
    return MelFormat.from_dict(FORMATS[name].to_dict() | {"centre": centre})


def bursts(format: MelFormat) -> Floats:
    """Short noises at uneven distances, with silence before, between and after: whole frames of samples."""
    random, samples = np.random.default_rng(2), int(1.2 * format.rate_hz) // format.hop * format.hop
    audio = 1e-4 * random.standard_normal(samples)
    for at_s in (0.13, 0.37, 0.52, 0.81, 0.99):
        begin, length = int(at_s * format.rate_hz), int(0.06 * format.rate_hz)
        audio[begin : begin + length] += 0.3 * random.standard_normal(length) * np.hanning(length)
    return audio.astype(np.float32)


def energy(audio: Floats, width: int) -> Floats:
    window = np.hanning(2 * width + 1)
    smooth: Floats = np.convolve(audio.astype(np.float64) ** 2, window / window.sum(), "same")
    return smooth


def lag_samples(heard: Floats, source: Floats, format: MelFormat) -> int:
    """By how many samples `heard` is late, by the correlation of the energies."""
    one, other = (energy(x, format.rate_hz // 200) for x in (heard, source))
    reach = 2 * format.hop
    scores = [
        np.dot(one[reach + lag : len(one) - reach + lag], other[reach:-reach]) for lag in range(-reach, reach + 1)
    ]
    return int(np.argmax(scores)) - reach


@pytest.mark.parametrize(("name", "kind", "centre"), CASES)
def test_rendered_sound_lies_where_it_was(name: str, kind: str, centre: bool) -> None:
    format = format_of(name, centre)
    source = bursts(format)
    mel = log_mel(source, format)[: len(source) // format.hop]
    heard = render(VOCODERS[kind](format), mel)
    assert heard.shape == source.shape and np.isfinite(heard).all()
    lag = lag_samples(heard, source, format)
    print(f"{name} {kind} {'centred' if centre else 'half a hop later'}: {lag} of {format.hop} samples late")
    assert abs(lag) <= format.hop / 4
    errors = np.abs(log_mel(heard, format)[: len(mel)] - mel)[mel > mel.max() - 5]
    assert errors.mean() < 0.45


@pytest.mark.parametrize("name", FORMATS)
def test_framing_that_is_ignored_is_noticed(name: str) -> None:
    format, other = format_of(name, True), format_of(name, False)
    source = bursts(format)
    heard = render(RtisiVocoder(format), log_mel(source, other)[: len(source) // format.hop])
    assert lag_samples(heard, source, format) == pytest.approx(-format.hop / 2, abs=format.hop / 4)


@pytest.mark.parametrize("name", FORMATS)
def test_chunks_do_not_change_samples_of_other_framings(name: str) -> None:
    format = format_of(name, False)
    mel = log_mel(bursts(format)[: 60 * format.hop], format)
    vocoder = RtisiVocoder(format, iterations=3)
    whole = render(vocoder, mel, seed=4, chunk_frames=1000)
    for cuts in ([1, 2, 7, 8, 9], [5], [12, 13]):
        stream, parts = vocoder.open(4), []
        for begin, end in pairwise([0, *cuts, len(mel)]):
            stream.push(mel[begin:end])
            parts += list(drain(vocoder, stream, 3))
            assert stream.samples_out == stream.frames_done * format.hop == sum(map(len, parts))
        stream.end()
        parts += list(drain(vocoder, stream, 4))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
