"""The error of truncated context: zero where the plan covers the receptive field."""

import numpy as np

from glowd.flow.checkpoint import load
from glowd.flow.evaluation.context_curve import context_curve
from glowd.flow.streaming import receptive_frames
from tests.harness.mels import speech
from tests.harness.voices import random_voice, tiny


def mel(frames: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((frames, 80)) - 5.6).astype(np.float32)


def test_curve_of_non_causal_voice_ends_at_zero() -> None:
    voice = random_voice(tiny(causal=False, flows=4, layers=4))
    rows = list(context_curve(voice, mel(80), look_aheads=(1, 4)))
    assert [row.look_ahead_frames for row in rows] == [1, 4, receptive_frames(voice)]
    assert rows[0].snr_db < rows[1].snr_db < rows[2].snr_db
    assert rows[0].max_error > 1e-4 and rows[2].max_error <= 1e-5
    assert rows[1].latency_ms == 4 * 256 / 22.05
    assert rows[0].recompute == (8 + 3 + 1) / 8


def test_causal_voice_gives_one_row_without_error() -> None:
    (row,) = context_curve(load("embedded"), speech()[100:140])
    assert row.max_error <= 1e-5 and row.recompute == 1 and row.look_ahead_frames == 1
