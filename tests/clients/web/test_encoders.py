"""Audio formats that are made while the audio arrives: each decodes to the samples that went in."""

import io

import miniaudio
import numpy as np
import pytest
import soundfile

from glowd.clients.web.encoders import FORMATS

RATE_HZ = 24_000
SAMPLES = (8000 * np.sin(np.arange(3 * RATE_HZ) * 0.05)).astype(np.int16)


def encoded(name: str, chunk: int) -> list[bytes]:
    """What each chunk gave, then the end."""
    encoder = FORMATS[name].encoder(RATE_HZ)
    parts = [encoder.add(part) for part in np.split(SAMPLES, range(chunk, len(SAMPLES), chunk))]
    return [*parts, encoder.end()]


def test_pcm_and_wav_are_the_samples() -> None:
    for chunk in (700, 100_000):
        assert b"".join(encoded("pcm", chunk)) == SAMPLES.tobytes()
        wav = b"".join(encoded("wav", chunk))
        assert wav[44:] == SAMPLES.tobytes()
        assert wav[40:44] == b"\xff" * 4  # a length that nobody knows yet
        assert miniaudio.decode(wav, sample_rate=RATE_HZ, nchannels=1).samples.tobytes() == SAMPLES.tobytes()


@pytest.mark.parametrize("chunk", [700, 100_000])
def test_flac_is_lossless_for_every_chunking(chunk: int) -> None:
    found = miniaudio.decode(b"".join(encoded("flac", chunk)), sample_rate=RATE_HZ, nchannels=1)
    np.testing.assert_array_equal(found.samples, SAMPLES)


def test_mp3_and_opus_keep_the_tone_and_come_early() -> None:
    for name in ("mp3", "opus"):
        parts = encoded(name, 1200)
        assert sum(map(len, parts[:30])) > 400  # half of the audio has not come yet
        data = b"".join(parts)
        found = (
            soundfile.read(io.BytesIO(data))[0]
            if name == "opus"
            else np.asarray(miniaudio.decode(data, sample_rate=RATE_HZ, nchannels=1).samples) / 32768
        )
        middle = found[RATE_HZ : 2 * RATE_HZ]
        peak_hz = np.abs(np.fft.rfft(middle)).argmax()
        assert peak_hz == pytest.approx(0.05 * RATE_HZ / (2 * np.pi), abs=1)
        assert np.sqrt((middle**2).mean()) == pytest.approx(8000 / 32768 / 2**0.5, rel=0.1)


def test_nothing_is_an_empty_answer() -> None:
    for name in ("pcm", "wav", "flac", "mp3", "opus"):
        assert len(FORMATS[name].encoder(RATE_HZ).end()) < 1000
