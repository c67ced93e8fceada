"""Audio in the format that a client asked for: any rate, 16 bits, on an exact timeline."""

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import wire
from glowd.daemon.gateway.streams.audio_format import AudioConverter, AudioFormat
from glowd.daemon.wire.fields import Array
from tests.harness.session import SessionHarness
from tests.harness.signals import noise

VOICE_HZ = 22_050
RATES = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]


def audio(first: int, samples: Array, last: bool = False, generation: int = 0) -> wire.Audio:
    return wire.Audio("s", generation, 0, first, len(samples), "f32", VOICE_HZ, last, payload=samples)


def converted(wanted: AudioFormat, source: Array, sizes: list[int], first: int = 0) -> list[wire.Audio]:
    converter, out, at = AudioConverter(wanted), [], 0
    for size in [*sizes, len(source)]:
        part = source[at : at + size]
        out.append(converter.convert(audio(first + at, part, at + len(part) == len(source))))
        at += len(part)
        if at == len(source):
            break
    return out


@given(rate_hz=st.sampled_from(RATES), sizes=st.lists(st.integers(1, 3000), max_size=12))
def test_streamed_audio_equals_the_whole_resampled_at_once(rate_hz: int, sizes: list[int]) -> None:
    source = noise(9000)
    chunks = converted(AudioFormat(rate_hz), source, sizes)
    heard = np.concatenate([chunk.payload for chunk in chunks])
    np.testing.assert_array_equal(heard, soxr.resample(source, VOICE_HZ, rate_hz))
    at = 0
    for chunk in chunks:
        assert (chunk.first_sample, chunk.samples, chunk.rate_hz) == (at, len(chunk.payload), rate_hz)
        at += chunk.samples
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_receiver_that_asked_for_nothing_gets_the_same_message() -> None:
    message = audio(0, noise(100))
    assert AudioConverter(AudioFormat()).convert(message) is message


def test_receiver_that_joins_late_keeps_the_timeline() -> None:
    chunks = converted(AudioFormat(16_000), noise(8000), [1000] * 7, first=44_100)
    assert chunks[0].first_sample == 32_000


def test_each_generation_is_resampled_by_itself() -> None:
    converter, source = AudioConverter(AudioFormat(16_000)), noise(3000)
    converter.convert(audio(0, noise(2000, seed=1)))
    again = converter.convert(audio(0, source, last=True, generation=1))
    assert again.first_sample == 0
    np.testing.assert_array_equal(again.payload, soxr.resample(source, VOICE_HZ, 16_000))


@pytest.mark.parametrize("rate_hz", RATES)
def test_stated_latency_is_what_the_converter_holds_back(rate_hz: int) -> None:
    wanted = AudioFormat(rate_hz)
    chunks = converted(wanted, noise(22_050), [220] * 99)
    sent_s = np.cumsum([chunk.samples for chunk in chunks[:-1]]) / rate_hz
    held_ms = 1000 * (220 * np.arange(1, len(chunks)) / VOICE_HZ - sent_s)
    assert held_ms.max() == pytest.approx(wanted.latency_ms(VOICE_HZ), abs=1)
    assert {chunk.latency_ms for chunk in chunks} == {wanted.latency_ms(VOICE_HZ)}


def test_s16_is_full_scale_rounded_and_clipped_on_the_wire() -> None:
    samples = np.array([0, 0.5, -0.5, 1, -1, 1.5, -2, np.nan], np.float32)
    message = AudioConverter(AudioFormat(dtype="s16")).convert(audio(0, samples, last=True))
    _, payload = wire.encode(message)
    assert np.frombuffer(payload, "<i2").tolist() == [0, 16384, -16384, 32767, -32767, 32767, -32767, 0]
    read = wire.decode(wire.encode(message))
    assert isinstance(read, wire.Audio)
    np.testing.assert_allclose(read.payload[:7], [0, 0.5, -0.5, 1, -1, 1, -1], atol=1 / 32767)


def test_session_sends_its_client_the_rate_it_asked_for() -> None:
    harness = SessionHarness("socket", audio_rate_hz=8000, audio_dtype="s16")
    for _ in range(10):
        harness.send(20)
        harness.render(20)
    harness.end()
    harness.render(0, last=True)
    chunks = harness.sent(wire.Audio)
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert {(chunk.rate_hz, chunk.dtype) for chunk in chunks} == {(8000, "s16")}
    assert sum(chunk.samples for chunk in chunks) == 8 * 800 and chunks[-1].last
    assert harness.ending == wire.Played("s", 0, 800, 0)
