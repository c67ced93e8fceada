"""The phase of a recording's fundamental, which a voice with a source is told in training: its pulses then stand where the
recording's own do, and the likelihood is that of what is left.

The pitch is the mel's, so that training and speaking see the same errors of it. The recording is heterodyned by that pitch,
and the angle of what remains near 0 Hz corrects the phase (as in the analysis of the phase vocoder: Flanagan & Golden 1966,
"Phase Vocoder", Bell System Technical Journal 45):

    carrier(t) = sum of f0 / rate, in cycles
    phase(t)   = carrier(t) + angle(lowpass(audio(t) * exp(-2 pi i carrier(t)))) / 2 pi

The low-pass is a Hann window of PERIODS mean periods. Where there is no voice the correction goes on linearly.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.training.data import Clips

PERIODS = 3
VOICED = 0.5
"""Voicing above this is voiced."""
FEWEST_VOICED = 100
"""Voiced samples below which a recording has no phase of its own: it gets the carrier."""


def locked_phase(audio: Floats, f0_hz: NDArray[Any], voicing: NDArray[Any], rate_hz: int) -> NDArray[np.float64]:
    """Recording, its pitch and its voicing in 0 to 1, [T] each -> the phase of its fundamental, in cycles [T]."""
    from scipy.signal import fftconvolve

    carrier, voiced = f0_hz.astype(np.float64).cumsum() / rate_hz, voicing > VOICED
    if voiced.sum() < FEWEST_VOICED:
        return carrier
    window = np.hanning(int(PERIODS / np.median(f0_hz[voiced]) * rate_hz) | 1)
    slow = fftconvolve(audio * np.exp(-2j * np.pi * carrier), window / window.sum(), "same")
    cycles = np.unwrap(np.angle(slow)) / (2 * np.pi)
    sample = np.arange(len(audio))
    return carrier + np.interp(sample, sample[voiced], cycles[voiced])


def lock(clips: Clips, voice: WaveGlow) -> None:
    """Give every clip its phase, by the pitch that `voice` finds in its mel. On the CPU."""
    phases = []
    for index in range(clips.count):
        audio, mel = clips.whole(index)
        source = voice.free_source(mel[None])
        assert source is not None, "a voice without a source needs no phase"
        f0_hz, voicing = source.f0_hz[0].numpy(), source.voicing[0].numpy()
        cycles = locked_phase(audio.numpy(), f0_hz, voicing, clips.format.rate_hz)
        phases.append(torch.from_numpy(np.remainder(cycles, 1.0)).half())
    clips.phase = torch.cat(phases)
