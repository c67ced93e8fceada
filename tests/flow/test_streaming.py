"""Streamed == offline, for every chunking; latents are a function of time; overlap mode equals offline when it sees enough."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from glowd.flow.checkpoint import load
from glowd.flow.inversion.runner import StepRunner
from glowd.flow.latents import TABLE_SAMPLES, NoiseTable, first_phase
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions, stream_vocoder
from glowd.flow.vocoder import Origin, Stream, Vocoder, drain, render
from tests.harness.mels import speech
from tests.harness.voices import DATA, random_voice, sourced, tiny

torch.set_num_threads(1)
TOLERANCE = 1e-5


def some_mel(frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((frames, 80)) * 0.8 - 5.6).astype(np.float32)


def offline(voice: WaveGlow, mel: np.ndarray, seed: int, sigma: float) -> np.ndarray:
    """The definition: the network's own inverse on the whole utterance, with latents and phase of the same seed."""
    table = NoiseTable(voice.config.group)
    groups = len(mel) * voice.config.groups_per_frame + voice.squeeze.extra_groups
    z = table.rows(torch.tensor([table.first_row(seed)]), groups).transpose(1, 2) * sigma
    frames = torch.from_numpy(mel.T[None].copy())
    with torch.no_grad():
        return voice.inverse(z, frames, source=voice.free_source(frames, torch.tensor([first_phase(seed)])))[0].numpy()


def streamed(vocoder: Vocoder, mel: np.ndarray, cuts: list[int], limits: list[int], seed: int = 0) -> np.ndarray:
    stream, parts, at = vocoder.open(seed), [], 0
    for i, cut in enumerate([*cuts, len(mel)]):
        stream.push(mel[at : at + cut])
        at = min(at + cut, len(mel))
        parts += list(drain(vocoder, stream, limits[i % len(limits)]))
        assert sum(map(len, parts)) == stream.samples_out
    stream.end()
    parts += list(drain(vocoder, stream, limits[-1]))
    assert stream.done
    vocoder.close(stream)
    return np.concatenate(parts)


KINDS = [
    tiny(squeeze="lapped"),
    tiny(squeeze="lapped", look_ahead_frames=0, mel_scale=False),
    tiny(squeeze="polyphase", group=8, early_size=2, conditioning="upsample", mel_scale=False),
    tiny(squeeze="polyphase", group=64, look_ahead_frames=2),
    sourced(),
    sourced(look_ahead_frames=2),
]
BACKENDS = ("compiled", "torch")
EXACT = [ExactVocoder(random_voice(kind), VocoderOptions(slots=4)) for kind in KINDS]
VOCODERS = [
    ExactVocoder(random_voice(kind), VocoderOptions(slots=4, backend=name)) for kind in KINDS for name in BACKENDS
]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(range(len(VOCODERS))), st.integers(1, 40), st.lists(st.integers(1, 12), max_size=12),
    st.lists(st.integers(1, 17), min_size=1, max_size=4), st.integers(0, 2**31),
)  # fmt: skip
def test_streamed_equals_offline_for_every_chunking(
    kind: int, frames: int, cuts: list[int], limits: list[int], seed: int
) -> None:
    vocoder, mel = VOCODERS[kind], some_mel(frames, seed % 7)
    audio = streamed(vocoder, mel, cuts, limits, seed)
    voice = random_voice(KINDS[kind // len(BACKENDS)])
    assert len(audio) == frames * 256
    np.testing.assert_allclose(audio, offline(voice, mel, seed, vocoder.sigma), atol=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 16, 50])
def test_the_embedded_voice_streams_exactly(chunk: int, backend: str) -> None:
    # Of a recorded sentence: on frames that no speech has, the network's output grows far beyond full scale.
    voice, mel = load("embedded"), speech()[:120]
    vocoder = ExactVocoder(voice, VocoderOptions(slots=2, backend=backend))
    audio = streamed(vocoder, mel, [chunk] * (120 // chunk), [chunk], seed=1)
    np.testing.assert_allclose(audio, render(vocoder, mel, 1, 120), atol=TOLERANCE)
    np.testing.assert_allclose(audio, offline(voice, mel, 1, vocoder.sigma), atol=1e-4)


@pytest.mark.parametrize(("backend", "tolerance"), [("compiled", 0.0), ("torch", 1e-6)])
def test_source_stream_is_equal_for_all_cuts_and_batches(backend: str, tolerance: float) -> None:
    # To the bit by our own products. torch's library chooses them by the number of rows on some processors (Intel's).
    vocoder = ExactVocoder(random_voice(WaveGlowConfig.sourced(flows=2)), VocoderOptions(slots=3, backend=backend))
    mels = [some_mel(120, seed) for seed in range(3)]
    alone = [render(vocoder, mel, seed, 120) for seed, mel in enumerate(mels)]
    for chunk in (1, 2, 4, 7, 16):
        np.testing.assert_allclose(render(vocoder, mels[0], 0, chunk), alone[0], 0, tolerance, err_msg=f"chunk {chunk}")
    streams, parts = [vocoder.open(seed) for seed in range(3)], {i: list[np.ndarray]() for i in range(3)}
    for begin in range(0, 120, 6):
        for stream, mel in zip(streams, mels):
            stream.push(mel[begin : begin + 6])
            stream.ended = begin + 6 == 120
        advance(vocoder, streams, parts)
    for i, whole in enumerate(alone):
        np.testing.assert_allclose(np.concatenate(parts[i]), whole, 0, tolerance, err_msg=f"stream {i}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", [1, 2])
def test_kept_voices_stream_what_they_streamed(version: int, backend: str) -> None:
    voice, vectors = (
        load(DATA / f"format_{version}.safetensors"),
        load_file(DATA / f"format_{version}_vectors.safetensors"),
    )
    mel = vectors["mel"][0].T.contiguous().numpy()
    audio = render(ExactVocoder(voice, VocoderOptions(slots=1, backend=backend)), mel, 7, 3)
    np.testing.assert_allclose(audio, vectors["streamed_seed_7"].numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("kind", [0, 4])
def test_streams_in_one_batch_do_not_touch_each_other(kind: int) -> None:
    """Desynchronised streams, joining late and reusing slots, give what each gives alone."""
    vocoder = EXACT[kind]
    mels = [some_mel(20, seed) for seed in range(3)]
    alone = [render(vocoder, mel, seed=9 + i) for i, mel in enumerate(mels)]
    streams = [vocoder.open(9), vocoder.open(10)]
    parts: dict[int, list[np.ndarray]] = {0: [], 1: [], 2: []}
    for tick in range(7):
        if tick == 2:
            streams.append(vocoder.open(11))
        for i, stream in enumerate(streams):
            begin = 4 * (tick - (2 if i == 2 else 0))
            if begin < 20:
                stream.push(mels[i][begin : begin + 4])
                if begin + 4 == 20:
                    stream.end()
        advance(vocoder, streams, parts)
    for i in range(3):
        np.testing.assert_allclose(np.concatenate(parts[i]), alone[i], atol=TOLERANCE)
        vocoder.close(streams[i])


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[4], tiny(causal=False)])
def test_buckets_of_static_buffers_change_nothing(kind: WaveGlowConfig) -> None:
    """What a CUDA graph replays (padded batches, spare slots, buffers that stay) gives what the plain step gives."""
    voice, plan = random_voice(kind), ChunkPlan(4, 4, 2, 64)
    plain, bucketed = (stream_vocoder(voice, plan, VocoderOptions(slots=5, backend="torch")) for _ in range(2))
    bucketed.runner = StepRunner(bucketed.inverter, bucketed.noise, bucketed=True)
    mels, results = [some_mel(17 + 6 * i, i) for i in range(3)], []
    for vocoder in (plain, bucketed):
        streams, parts = [vocoder.open(i) for i in range(3)], {i: list[np.ndarray]() for i in range(3)}
        for begin in range(0, 32, 5):
            for i, stream in enumerate(streams):
                if begin < len(mels[i]):
                    stream.push(mels[i][begin : begin + 5])
                    stream.ended = begin + 5 >= len(mels[i])
            advance(vocoder, streams, parts)
        results.append([np.concatenate(parts[i]) for i in range(3)])
    for i in range(3):
        assert len(results[0][i]) == len(mels[i]) * 256
        np.testing.assert_allclose(results[0][i], results[1][i], atol=TOLERANCE)


def advance(vocoder: Vocoder, streams: Sequence[Stream], parts: dict[int, list[np.ndarray]]) -> None:
    while True:
        ready = {i: vocoder.ready_frames(s, 4) for i, s in enumerate(streams)}
        due = {i: n for i, n in ready.items() if n is not None}
        if not due:
            return
        key = vocoder.key(streams[min(due)], due[min(due)])
        batch = [i for i, n in due.items() if vocoder.key(streams[i], n) == key]
        for i, samples in zip(batch, vocoder.step([streams[i] for i in batch], due[batch[0]])):
            parts[i].append(samples)


def test_a_stream_reopened_with_its_history_goes_on_exactly() -> None:
    voice = random_voice(tiny(layers=2, flows=3))
    vocoder, mel = ExactVocoder(voice, VocoderOptions(slots=2)), some_mel(60)
    assert vocoder.history_frames < 20
    whole = render(vocoder, mel, seed=5)
    begin = 40 - vocoder.history_frames
    again = vocoder.open(5, Origin(begin))
    again.push(mel[begin:])
    again.end()
    tail = np.concatenate(list(drain(vocoder, again, 4)))
    assert len(tail) == (60 - begin) * 256
    np.testing.assert_allclose(tail[-20 * 256 :], whole[-20 * 256 :], atol=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_source_stream_resumed_elsewhere_keeps_its_phase(chunk: int, backend: str) -> None:
    voice = random_voice(sourced(layers=2, flows=3))
    first, second = (ExactVocoder(voice, VocoderOptions(slots=1, backend=name)) for name in ("auto", backend))
    mel = some_mel(90)
    whole = render(first, mel, seed=5)
    stream, ends = first.open(5), list[tuple[int, float]]()
    stream.push(mel[:70])
    for _ in drain(first, stream, chunk):
        ends.append((stream.frames_done, stream.phase))
    begin, phase = max(end for end in ends if end[0] <= stream.frames_done - first.history_frames)
    assert phase > 10 and first.lead_frames == 5
    rest = going_on(second, mel, Origin(begin, first.lead_frames, phase))
    assert len(rest) == (90 - begin) * 256
    missing = 90 * 256 - stream.samples_out
    np.testing.assert_allclose(rest[-missing:], whole[-missing:], atol=TOLERANCE)
    turned = going_on(second, mel, Origin(begin, first.lead_frames, phase + 0.5))
    assert np.abs(turned[-missing:] - whole[-missing:]).max() > 100 * TOLERANCE, "the phase is heard"


def going_on(vocoder: ExactVocoder, mel: np.ndarray, origin: Origin) -> np.ndarray:
    """What a stream of seed 5 that begins there says."""
    stream = vocoder.open(5, origin)
    stream.push(mel[origin.frame - origin.lead_frames :])
    stream.end()
    audio = np.concatenate(list(drain(vocoder, stream, 4)))
    vocoder.close(stream)
    return audio


def test_slots_run_out_with_a_clear_error() -> None:
    vocoder = ExactVocoder(random_voice(tiny()), VocoderOptions(slots=2))
    streams = [vocoder.open(), vocoder.open()]
    with pytest.raises(RuntimeError, match="all 2 stream slots"):
        vocoder.open()
    vocoder.close(streams[0])
    vocoder.open()


def test_bad_pushes_are_named() -> None:
    stream = EXACT[0].open()
    with pytest.raises(ValueError, match=r"shape \[n, 80\]; got \[80\]"):
        stream.push(np.zeros(80, np.float32))
    stream.end()
    with pytest.raises(ValueError, match="has ended"):
        stream.push(some_mel(1))
    EXACT[0].close(stream)


# ------------------------------------------------------------------ latents


def test_latents_are_a_function_of_seed_and_time() -> None:
    table, again = NoiseTable(64), NoiseTable(64)
    first = torch.tensor([table.first_row(7)])
    whole = table.rows(first, 100)
    assert torch.equal(whole[:, 40:60], again.rows(first + 40, 20))
    assert table.first_row(7) != table.first_row(8)
    assert abs(table.table.mean()) < 0.01 and abs(table.table.std() - 1) < 0.01
    assert torch.equal(table.rows(torch.tensor([TABLE_SAMPLES // 64 - 1]), 2)[0, 1], table.table[0])


# ----------------------------------------------------------------- overlap


def non_causal(**changes: Any) -> WaveGlow:
    return random_voice(tiny(causal=False, flows=3, layers=2, **changes))


OVERLAPPED: list[dict[str, Any]] = [
    dict(squeeze="polyphase", group=8, early_size=2, conditioning="upsample", mel_scale=False),
    dict(squeeze="lapped", mel_scale=False, look_ahead_frames=1),
]


@pytest.mark.parametrize("kind", OVERLAPPED)
@pytest.mark.parametrize("frames,chunk", [(1, 4), (7, 3), (40, 8), (41, 5)])
def test_overlap_over_the_receptive_field_equals_offline(kind: dict[str, Any], frames: int, chunk: int) -> None:
    voice, mel = non_causal(**kind), some_mel(frames)
    reach = -(-voice.config.reach_groups // voice.config.groups_per_frame)
    plan = ChunkPlan(chunk, reach + 5, reach + 2, 128)
    vocoder = OverlapVocoder(voice, plan)
    audio = streamed(vocoder, mel, [1, 2, 3] * 20, [16], seed=4)
    assert len(audio) == frames * 256
    np.testing.assert_allclose(audio, offline(voice, mel, 4, vocoder.sigma), atol=TOLERANCE)


@pytest.mark.parametrize("kind", OVERLAPPED)
def test_less_context_costs_a_little_and_keeps_the_timeline(kind: dict[str, Any]) -> None:
    voice, mel = non_causal(**kind), some_mel(40)
    whole = offline(voice, mel, 4, voice.config.sigma)
    errors = []
    for rim in (0 if kind["squeeze"] == "polyphase" else 1, 12):
        audio = streamed(OverlapVocoder(voice, ChunkPlan(4, rim, rim, 64 * min(rim, 2))), mel, [4] * 10, [4], seed=4)
        assert len(audio) == 40 * 256
        errors.append(np.abs(audio - whole).max())
    print(errors)
    assert errors[0] > 10 * errors[1] and errors[1] <= TOLERANCE


@pytest.mark.parametrize("kind", OVERLAPPED)
def test_overlapped_chunks_grow_in_whole_chunks(kind: dict[str, Any]) -> None:
    """Who catches up, or falls behind, takes several chunks of the plan in one window; equal where the plan sees enough."""
    voice, mel = non_causal(**kind), some_mel(47)
    reach = -(-voice.config.reach_groups // voice.config.groups_per_frame)
    vocoder = OverlapVocoder(voice, ChunkPlan(4, reach + 5, reach + 2, 128))
    stream, limits, taken, audio = vocoder.open(4), iter([4, 16, 3, 11, 16, 8, 16, 16]), [], []
    stream.push(mel)
    stream.end()
    while (frames := vocoder.ready_frames(stream, next(limits))) is not None:
        taken.append(frames)
        audio.append(vocoder.step([stream], frames)[0])
    assert taken == [4, 16, 4, 8, 12, 3]
    np.testing.assert_allclose(np.concatenate(audio), offline(voice, mel, 4, vocoder.sigma), atol=TOLERANCE)


@pytest.mark.parametrize("kind", OVERLAPPED)
def test_warming_up_leaves_nothing_to_prepare(kind: dict[str, Any]) -> None:
    """On CUDA a shape that comes for the first time is captured, which takes as long as many chunks."""
    vocoder = OverlapVocoder(non_causal(**kind), ChunkPlan(4, 9, 2, 128))
    vocoder.runner = StepRunner(vocoder.inverter, vocoder.noise, bucketed=True)
    for streams, frames in vocoder.shapes(2, 8):
        vocoder.warm_up(streams, frames)
    ready = vocoder.runner.bucket_shapes
    assert {(1, 4 + 11), (2, 4 + 11), (1, 8 + 11)} <= {
        (batch, frames - vocoder.inverter.past_frames - vocoder.inverter.look_ahead_frames)
        for batch, frames, _ in ready
    }
    for limit in (4, 8):
        streamed(vocoder, some_mel(80), [80], [limit])
    assert vocoder.runner.bucket_shapes == ready


@pytest.mark.parametrize("mode", ["exact", "overlap"])
def test_a_seam_is_inaudible(mode: str) -> None:
    """Sample-to-sample jumps at seams have the statistics of those elsewhere."""
    if mode == "exact":
        vocoder: Vocoder = EXACT[0]
    else:
        vocoder = OverlapVocoder(non_causal(**OVERLAPPED[0]), ChunkPlan(4, 4, 2, 256))
    audio = streamed(vocoder, some_mel(400), [4] * 100, [4], seed=1)
    jumps = np.abs(np.diff(audio))
    seams = np.arange(4 * 256, len(audio) - 256, 4 * 256) - vocoder.latency_samples - 1
    ratio = np.sqrt((jumps[seams] ** 2).mean() / (jumps**2).mean())
    assert 0.7 < ratio < 1.3
    assert jumps[seams].max() <= jumps.max()


@pytest.mark.parametrize("causal", [True, False])
def test_bf16_is_near_float32(causal: bool) -> None:
    voice, mel, plan = random_voice(tiny(causal=causal, flows=3, layers=2)), some_mel(20), ChunkPlan()
    exact, near = (render(stream_vocoder(voice, plan, VocoderOptions(precision=p)), mel) for p in ("float32", "bf16"))
    error = np.sqrt(((near - exact) ** 2).mean() / (exact**2).mean())
    assert 0 < error < 0.02
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bf16; got 'half'"):
        VocoderOptions(precision="half")


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_frames is 0; allowed: at least 1"):
        ChunkPlan(chunk_frames=0)
    with pytest.raises(ValueError, match="crossfade_samples is 1000; allowed: at most 256"):
        OverlapVocoder(non_causal(**OVERLAPPED[0]), ChunkPlan(4, 4, 1, 1000))
    with pytest.raises(ValueError, match="exact streaming needs a causal voice"):
        ExactVocoder(non_causal(**OVERLAPPED[0]))


def test_stream_of_the_other_mode_is_refused_not_skipped() -> None:
    exact, overlapped = EXACT[0], OverlapVocoder(non_causal(**OVERLAPPED[0]), ChunkPlan(4, 4, 2, 256))
    ours, other = exact.open(), overlapped.open()
    for stream in (ours, other):
        stream.push(some_mel(20))
    with pytest.raises(AttributeError, match="'OverlapStream' object has no attribute 'slot'"):
        exact.step([ours, other], 4)  # type: ignore[list-item]
    with pytest.raises(AttributeError, match="'ExactStream' object has no attribute 'tail'"):
        overlapped.step([other, ours], 4)  # type: ignore[list-item]
    exact.close(ours)
