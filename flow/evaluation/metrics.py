"""How far samples are from a recording: each metric a pure function of signals, with its source.

Rules: numpy in, a float out; knows no network, file or table. A reference and the samples have the same length and rate and
are not aligned: a vocoder that shifts its speech in time is wrong. Where a metric is not defined (silence, too short a clip,
no voiced frame) it raises MetricError instead of returning a meaningless number. The libraries are the optional dependencies
`eval`; each is imported when it is first needed.
"""

import importlib
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import Floats, MelFormat
from glowd.flow.training import pitch_labels
from glowd.flow.training.settings import TrainError

LIBRARIES = ("pesq", "pystoi", "auraloss", "speechmos.dnsmos")
MIN_S = 0.5
"""Shorter clips have too few frames for PESQ and STOI."""
SILENT_RMS = 1e-4
GROSS = 0.2
"""A pitch that is wrong by a larger share is a gross error (Rabiner et al. 1976): another octave, most often."""
WIDE_HZ = 16000
"""The rate of PESQ wide band and of DNSMOS."""
OVERLOAD, BEYOND = 2.0, 1e9
"""Peak, full scale = 1, above which a render counts as diverged, not as too loud; the largest peak that is told."""
MCD_ORDER = 13
STFT_SIZES = ([1024, 2048, 512], [120, 240, 50], [600, 1200, 240])
"""Of FFTs, hops and windows at 22,050 Hz: auraloss's defaults."""
COMB_BINS = 4096
COMB_NEAR, COMB_FAR = 3, 10
"""Distance in bins from a tooth to its neighbours: outside the main lobe of a Hann window, and close to it."""


class MetricError(ValueError):
    """A metric that cannot be taken. The text names what it was to be taken of, and the reason."""


def library(name: str) -> Any:
    """One of LIBRARIES. Raises MetricError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MetricError(
            f"evaluating voices needs {name}, which is missing; install it, in glowd's folder: pip install -e '.[eval]'"
        ) from error


def require_libraries() -> None:
    """Raises MetricError for the first library that a metric needs and that is missing."""
    for name in LIBRARIES:
        library(name)
    try:
        pitch_labels.world()
    except TrainError as error:
        raise MetricError(str(error)) from error


def require_sound(samples: Floats, rate_hz: int, who: str = "the signal") -> None:
    """Raises MetricError if samples [T] are too short, silent, or not finite."""
    if len(samples) < MIN_S * rate_hz:
        raise MetricError(f"{who} is too short: {len(samples) / rate_hz:.2f} s; needed: at least {MIN_S} s")
    if not np.isfinite(samples).all():
        raise MetricError(f"{who} holds NaN or infinite samples")
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    if rms < SILENT_RMS:
        raise MetricError(f"{who} is silent: RMS {rms:.2g}; needed: at least {SILENT_RMS:g}")


def as_heard(samples: Floats) -> Floats:
    """Samples [T] as a loudspeaker plays them: clipped at full scale, silence in place of NaN."""
    heard: Floats = np.nan_to_num(samples, nan=0.0).clip(-1, 1).astype(np.float32)
    return heard


def peak(samples: Floats) -> float:
    """The largest of samples [T], full scale = 1; BEYOND where one is larger or not finite."""
    return float(np.nan_to_num(np.abs(samples), nan=BEYOND, posinf=BEYOND).clip(max=BEYOND).max(initial=0))


# ---- perceived quality and intelligibility


def pesq_wb(reference: Floats, samples: Floats, rate_hz: int) -> float:
    """PESQ, wide band: MOS-LQO, 1.04 (bad) to 4.64, of samples [T] against a reference [T] (ITU-T P.862.2, at 16 kHz)."""
    pesq = library("pesq")
    try:
        return float(pesq.pesq(WIDE_HZ, _wide(reference, rate_hz), _wide(samples, rate_hz), "wb"))
    except (pesq.PesqError, ValueError) as error:
        raise MetricError(f"PESQ finds no speech: {error}") from error


def stoi(reference: Floats, samples: Floats, rate_hz: int, extended: bool = False) -> float:
    """Short-time objective intelligibility, at most 1, of samples [T] against a reference [T].

    Taal, Hendriks, Heusdens, Jensen 2011; `extended`: ESTOI, Jensen & Taal 2016. Raises MetricError where fewer than 30 of
    its frames hold speech.
    """
    pystoi = library("pystoi")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, samples, rate_hz, extended=extended))
        except RuntimeWarning as warning:
            raise MetricError("STOI needs 30 frames (0.4 s) of speech, and finds fewer") from warning


def dnsmos_ovrl(samples: Floats, rate_hz: int) -> float:
    """DNSMOS P.835 OVRL, 1 to 5, of samples [T] alone: what listeners would say, as a network predicts it from 16 kHz.

    Reddy, Gopal, Cutler 2022, in speechmos, which repeats a clip until it fills the network's 9.01 s.
    """
    wide = _wide(samples, rate_hz).clip(-1, 1)
    return float(_dnsmos()(wide, WIDE_HZ, is_personalized_MOS=False)["ovrl_mos"])


@cache
def _dnsmos() -> Any:
    """speechmos's networks, on one thread each: threads that wait for one another take a quarter more processor time, and an
    evaluation has as many processes as are wanted."""
    module, onnxruntime = library("speechmos.dnsmos"), library("onnxruntime")
    models = Path(module.__file__).parent / "dnsmos_models"
    paths = [str(models / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found = module.DNSMOS(*paths)
    found.onnx_sess, found.p808_onnx_sess = (onnxruntime.InferenceSession(path, options) for path in paths)
    return found


def _wide(samples: Floats, rate_hz: int) -> Floats:
    import soxr

    return np.asarray(soxr.resample(samples, rate_hz, WIDE_HZ, quality="VHQ"))


# ---- spectra


def mel_mae(reference: Floats, mel: Floats) -> float:
    """Mean absolute difference of log-mels [L, M], in nats of magnitude."""
    return float(np.abs(reference - mel).mean())


def mel_cepstral_distortion_db(reference: Floats, mel: Floats) -> float:
    """MCD of log-mels [L, M]: (10 / ln 10) sqrt(2 sum of squared differences of cepstral coefficients 1 to 13), mean over L.

    Kubichek 1993; the cepstrum is the cosine transform of log-mel bands (Davis & Mermelstein 1980), so with all
    coefficients it would be the RMS difference of the spectra in dB, their mean levels apart. No time warping.
    """
    from scipy.fft import dct

    bands = reference.shape[1]
    difference = dct((reference - mel).astype(np.float64), axis=1)[:, 1 : MCD_ORDER + 1] / bands
    return float((10 / np.log(10) * np.sqrt(2 * np.square(difference).sum(1))).mean())


def multi_resolution_stft(reference: Floats, samples: Floats, rate_hz: int) -> float:
    """Spectral convergence plus log-magnitude difference (nats) of samples [T], mean of three resolutions.

    Yamamoto, Song, Kim 2020 (Parallel WaveGAN), as in auraloss: windows of 240, 600, 1200 in FFTs of 512, 1024, 2048;
    from 31 kHz on twice as long, and so on by powers of two, so that they last about as long at any rate.
    """
    import torch

    auraloss = library("auraloss")
    pair = [torch.from_numpy(np.ascontiguousarray(x, np.float32))[None, None] for x in (samples, reference)]
    with torch.no_grad():
        return float(auraloss.freq.MultiResolutionSTFTLoss(*stft_sizes(rate_hz))(*pair))


def stft_sizes(rate_hz: int) -> tuple[list[int], list[int], list[int]]:
    """Samples of FFTs, hops and windows of `multi_resolution_stft`."""
    factor = 2.0 ** round(np.log2(rate_hz / 22050))
    fft, hop, window = ([round(size * factor) for size in sizes] for sizes in STFT_SIZES)
    return fft, hop, window


# ---- pitch


@dataclass(frozen=True, slots=True)
class Pitch:
    """What WORLD's trackers find in L frames."""

    certain_hz: Floats
    """[L], where DIO and Harvest agree: above 0 voiced, 0 unvoiced; NaN where they do not."""
    hz: Floats
    """[L], by Harvest alone, 0 where unvoiced."""


def pitch(samples: Floats, format: MelFormat) -> Pitch:
    """Pitch of samples [L * hop], 60 to 650 Hz: DIO and Harvest, each with StoneMask (pitch_labels.py)."""
    dio, harvest = pitch_labels.tracks(samples, format)
    return Pitch(pitch_labels.agreed(dio, harvest), harvest)


def f0_median_cents(reference: Pitch, other: Pitch) -> float:
    """Median difference of F0 in cents (1200 to an octave) where the reference is certainly voiced and the other is voiced."""
    return float(np.median(1200 * np.abs(np.log2(_ratio(reference, other)))))


def f0_gross(reference: Pitch, other: Pitch) -> float:
    """Share of those frames, 0 to 1, whose F0 is wrong by more than 20 % (gross pitch errors)."""
    return float((np.abs(_ratio(reference, other) - 1) > GROSS).mean())


def _ratio(reference: Pitch, other: Pitch) -> Floats:
    """F0 of the other to that of the reference in frames that have both. Raises MetricError if there are none."""
    both = (reference.certain_hz > 0) & (other.hz > 0)
    if not both.any():
        raise MetricError("no frame is voiced in both signals")
    ratio: Floats = other.hz[both] / reference.hz[both]
    return ratio


def voicing_f1(reference: Pitch, other: Pitch) -> float:
    """F1, 0 to 1, of the decision voiced or unvoiced, where both are certain and the reference is taken as the truth
    (Morrison et al. 2022, CARGAN)."""
    known = np.isfinite(reference.certain_hz) & np.isfinite(other.certain_hz)
    truth, heard = reference.certain_hz[known] > 0, other.certain_hz[known] > 0
    voiced = int(truth.sum()) + int(heard.sum())
    if not voiced:
        raise MetricError("no frame of either signal is voiced")
    return 2 * int((truth & heard).sum()) / voiced


# ---- artefacts of the network


def comb_levels_db(samples: Floats, group: int) -> NDArray[np.float64]:
    """How far each multiple of rate / group below Nyquist stands out of its neighbours, in samples [T] -> [group / 2 - 1].

    A flow that makes `group` samples at a time can leave tones there: the model bias of WaveGlow (Prenger et al. 2018,
    whose code subtracts it). The difference of mean levels in dB: of the bin of a Hann-windowed FFT at the multiple, and of
    those 3 to 10 bins around it. Levels are averaged over time in dB, so a tone that sounds in the pauses is not hidden
    by loud speech; a smooth spectrum gives 0 whatever its level. Raises MetricError if T is less than one window.
    """
    spacing = -(-COMB_BINS // group)
    window = spacing * group
    if len(samples) < window:
        raise MetricError(f"the comb needs {window} samples; got {len(samples)}")
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), window)[:: window // 2]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1])))
    level_db = 10 * np.log10(power + 1e-20)
    teeth = np.arange(1, group // 2) * spacing
    far = min(COMB_FAR, spacing // 2)
    around = np.array([offset for near in range(COMB_NEAR, far + 1) for offset in (-near, near)])
    neighbours = level_db[:, teeth[:, None] + around].mean(-1)
    levels: NDArray[np.float64] = (level_db[:, teeth] - neighbours).mean(0)
    return levels


def difference_max(one: Floats, other: Floats) -> float:
    """Largest difference between two renders [T] of one utterance, full scale = 1. Raises MetricError if lengths differ."""
    if len(one) != len(other):
        raise MetricError(f"two renders of one utterance have {len(one)} and {len(other)} samples")
    return float(np.abs(one - other).max())
