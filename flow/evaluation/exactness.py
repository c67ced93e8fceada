"""How far the streamed samples of a causal voice are from its network's definition, and which of the two is nearer to float64.

Rules: three renders of the same frames with the same noise and the same source. `streamed` is what the daemon does, in float32.
`defined` is the network's own inverse of the whole utterance, in float32. `exact` is the same inverse with the same weights in
float64: it judges whether a difference of the other two is a wrong term or the rounding of float32.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glowd.flow.latents import NoiseTable, first_phase
from glowd.flow.mel import Floats, log_mel
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.recordings import find_recordings, read_speech
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render

GOAL = 1e-4
"""Of the largest difference between streamed and defined, in full scale."""


@dataclass(frozen=True, slots=True)
class Row:
    """The largest differences of one recording, in full scale, and its largest sample."""

    name: str
    frames: int
    peak: float
    streamed_defined: float
    streamed_exact: float
    defined_exact: float


def differences(voice: WaveGlow, clips: Iterable[tuple[str, Floats]], chunk_frames: int = 4) -> Iterator[Row]:
    """A row for each clip: its name and its mel [L, M]. Raises ValueError for a voice that is not causal."""
    if not voice.config.causal:
        raise ValueError("this voice is not causal, so streaming truncates its context; glowlab context measures that")
    vocoder, exact_voice = ExactVocoder(voice, VocoderOptions(slots=1)), copy.deepcopy(voice).double()
    for seed, (name, mel) in enumerate(clips):
        streamed = render(vocoder, mel, seed, chunk_frames)
        defined = definition(voice, mel, seed, vocoder.sigma)
        exact = definition(exact_voice, mel, seed, vocoder.sigma)
        yield Row(
            name=name,
            frames=len(mel),
            peak=float(np.abs(exact).max()),
            streamed_defined=_largest(streamed - defined),
            streamed_exact=_largest(streamed - exact),
            defined_exact=_largest(defined - exact),
        )


def definition(voice: WaveGlow, mel: Floats, seed: int, sigma: float) -> NDArray[np.floating]:
    """The network's own inverse of mel [L, M], with latents and phase that a stream of `seed` would get, in its precision."""
    table = NoiseTable(voice.config.group)
    groups = len(mel) * voice.config.groups_per_frame + voice.squeeze.extra_groups
    z = table.rows(torch.tensor([table.first_row(seed)]), groups).transpose(1, 2) * sigma
    dtype = next(voice.parameters()).dtype
    frames = torch.from_numpy(mel.T[None].copy()).to(dtype)
    with torch.inference_mode():
        source = voice.free_source(frames, torch.tensor([first_phase(seed)]))
        samples: NDArray[np.floating] = voice.inverse(z.to(dtype), frames, source=source)[0].numpy()
    return samples


def _largest(difference: NDArray[np.floating]) -> float:
    return float(np.abs(difference).max())


def clips(voice: WaveGlow, folders: Sequence[Path], count: int, frames: int) -> Iterator[tuple[str, Floats]]:
    """Up to `count` recordings, evenly spread over those of the folders, each with the mel of its first `frames` (0: all).

    Raises RecordingError.
    """
    found = [path for folder in folders for path in find_recordings(folder)]
    chosen = [found[round(i)] for i in np.linspace(0, len(found) - 1, min(count, len(found)))]
    format = voice.config.mel
    for path in chosen:
        mel = log_mel(read_speech(path, format.rate_hz), format)
        yield path.name, mel[:frames] if frames else mel


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines: the worst five recordings, then worst and median of all."""
    head = f"{'recording':32} {'peak':>6} {'streamed-defined':>17} {'streamed-float64':>17} {'defined-float64':>16}"
    ordered = sorted(rows, key=lambda row: row.streamed_defined, reverse=True)
    lines = [head, *(_line(row.name, row.peak, _figures(row)) for row in ordered[:5])]
    figures, peaks = np.array([_figures(row) for row in rows]), [row.peak for row in rows]
    lines.append(_line(f"worst of {len(rows)}", max(peaks), figures.max(0).tolist()))
    lines.append(_line("median", float(np.median(peaks)), np.median(figures, 0).tolist()))
    beyond = sum(row.streamed_defined > GOAL for row in rows)
    nearer = sum(row.streamed_exact <= row.defined_exact for row in rows)
    lines.append(f"beyond the goal of {GOAL:g}: {beyond} of {len(rows)}; streamed is nearer to float64 in {nearer}")
    return lines


def _figures(row: Row) -> list[float]:
    return [row.streamed_defined, row.streamed_exact, row.defined_exact]


def _line(name: str, peak: float, figures: Sequence[float]) -> str:
    return f"{name:32.32} {peak:6.2f} {figures[0]:17.1e} {figures[1]:17.1e} {figures[2]:16.1e}"
