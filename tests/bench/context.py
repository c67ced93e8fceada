"""What truncated context costs voices that are not causal: error against look-ahead (flow/evaluation/context_curve.py).

No trained non-causal voice ships with glowd. Two stand in for one: the embedded weights read as if they were non-causal, whose
taps have a trained voice's magnitudes (what it says is no speech, but far context fades as in a trained network); and
the published geometry, whose receptive field is twice as long, with few channels and random weights.
"""

import dataclasses
from collections.abc import Iterator

import torch

from glowd.flow.checkpoint import load
from glowd.flow.evaluation.context_curve import LOOK_AHEADS, context_curve
from glowd.flow.network.waveglow import Flow, WaveGlow, WaveGlowConfig
from tests.bench.report import Result, cpu_name
from tests.harness.mels import speech

CHUNK_FRAMES, STOCK_CHANNELS = 8, 16


def voices() -> Iterator[tuple[str, WaveGlow]]:
    """The two stand-ins, by what they are."""
    embedded = load("embedded")
    yield "embedded weights read as non-causal", read_as_non_causal(embedded)
    torch.manual_seed(0)
    stock = WaveGlow(WaveGlowConfig.stock(STOCK_CHANNELS))
    for flow in stock.flows:
        assert isinstance(flow, Flow)
        torch.nn.init.normal_(
            flow.coupling.wn.end.weight, std=0.05
        )  # a new coupling is the identity: nothing to truncate
    yield f"published geometry, {STOCK_CHANNELS} channels, random weights", stock.eval()


def read_as_non_causal(voice: WaveGlow) -> WaveGlow:
    """The same weights, but for the source's, which only causal voices have."""
    config = dataclasses.replace(voice.config, causal=False, source=None)
    read_anew = WaveGlow(config)
    state = {key: value for key, value in voice.state_dict().items() if key in read_anew.state_dict()}
    for number, rows in enumerate(config.rows):  # the source's columns come last
        state[f"flows.{number}.coupling.wn.start.weight"] = state[f"flows.{number}.coupling.wn.start.weight"][
            :, : rows // 2
        ]
    read_anew.load_state_dict(state)
    return read_anew.eval()


def context(frames: int = 96, largest: int = 16) -> Iterator[Result]:
    """The curve of each stand-in on `frames` of speech, for look-aheads up to `largest` and for the whole field."""
    torch.set_num_threads(1)
    mel = speech()[:frames]
    for name, voice in voices():
        for row in context_curve(voice, mel, [n for n in LOOK_AHEADS if n <= largest], CHUNK_FRAMES):
            settings = {
                "voice": name,
                "look_ahead_frames": row.look_ahead_frames,
                "context_frames": row.context_frames,
                "chunk_frames": CHUNK_FRAMES,
                "frames": frames,
            }
            beside = {"latency_ms": row.latency_ms, "recompute": row.recompute, "error": row.max_error}
            yield Result("truncated context: SNR", row.snr_db, "dB", cpu_name(), settings, "", beside)
