"""The error of truncating the context of a non-causal voice, against look-ahead, measured on a checkpoint.

Each row streams the same frames with the same latents as one whole-utterance inversion and compares the samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions, receptive_frames, whole
from glowd.flow.vocoder import AnyVocoder, render

LOOK_AHEADS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Row:
    """One plan, its latency, its extra work and its error."""

    look_ahead_frames: int
    context_frames: int
    latency_ms: float
    """Look-ahead in time: how long a frame waits for its future."""
    recompute: float
    """Frames computed per frame rendered."""
    snr_db: float
    """Power of the whole utterance over that of the difference; infinite where there is no difference."""
    max_error: float


def context_curve(
    voice: WaveGlow, mel: Floats, look_aheads: Sequence[int] = LOOK_AHEADS, chunk_frames: int = 8, seed: int = 0
) -> Iterator[Row]:
    """Rows for mel [L, M]: context three times the look-ahead, and in the last row the whole receptive field."""
    reference = whole(voice, mel, seed)
    hop = voice.config.mel.hop
    if voice.config.causal:
        exact = ExactVocoder(voice, VocoderOptions(slots=1))
        yield _row(exact, mel, reference, seed, voice.encoder.look_ahead_frames, 0, chunk_frames)
        return
    full = receptive_frames(voice)
    for look_ahead in [n for n in look_aheads if n < full] + [full]:
        context = min(3 * look_ahead, full)
        plan = ChunkPlan(chunk_frames, context, look_ahead, min(hop, (look_ahead - 1) * hop))
        yield _row(OverlapVocoder(voice, plan), mel, reference, seed, look_ahead, context, chunk_frames)


def _row(
    vocoder: AnyVocoder, mel: Floats, reference: Floats, seed: int, look_ahead: int, context: int, chunk_frames: int
) -> Row:
    difference = render(vocoder, mel, seed, chunk_frames) - reference
    power = float(np.square(difference, dtype=np.float64).mean())
    snr_db = 10 * np.log10(float(np.square(reference, dtype=np.float64).mean()) / power) if power else np.inf
    rim = 0 if isinstance(vocoder, ExactVocoder) else context + look_ahead
    return Row(
        look_ahead_frames=look_ahead,
        context_frames=context,
        latency_ms=1000 * look_ahead * vocoder.hop / vocoder.rate_hz,
        recompute=(chunk_frames + rim) / chunk_frames,
        snr_db=float(snr_db),
        max_error=float(np.abs(difference).max()),
    )
