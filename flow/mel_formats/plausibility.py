"""Whether frames can be what they are said to be: natural logarithms of a sound's magnitudes.

Rules: numpy only, no I/O, no clock. It never refuses anything: it says what frames look like, once for each kind. The
work for a chunk is a few passes over it, and memory does not grow with the utterance.

What is known of true mels, of 1,354 recordings and of synthetic music, noise and tones at levels from +6 to -60 dB: some value
within each second of speech lies below -7; the loudest frames of white noise at full scale have a mean of -0.2; nothing
exceeds 2.4. Mels of acoustic models are smoother than recordings, but reach as far.
"""

from enum import Enum
from typing import NamedTuple

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.levels import FRAMES_AT_LEAST, Levels, Seen, Steps, level_of

FIRST_LOOK_S = 1.0
"""The first judgement comes after a second of sound, or at the end of a shorter utterance (FRAMES_AT_LEAST).

The next ones come when twice as much was seen as at the one before, and at the end.
"""
FIRST_BATCH_FRAMES, BATCH_FRAMES = 32, 128
"""A look costs nearly the same for few frames as for many, and the gateway has hundreds of streams to look at."""
ALL_SECONDS, ONE_IN = 2.0, 4
"""The levels of an utterance are taken of all frames at first, in small batches, so that it is told soon what is wrong; then
of one large batch in so many: they are all of one format."""
SILENT = -9.0
"""A frame whose mean is below this may be the same as the last one: digital silence is."""
CONSTANT_S, PADDING_FRAMES = 0.5, 2
TURNED_RATIO = 2.3
"""Steps from frame to frame over steps from band to band: at most 2.0 in recordings, at least 2.3 in [bands, frames]."""


class Kind(Enum):
    """What may be wrong with frames."""

    SCALE = "scale"
    FLOOR = "floor"
    CONSTANT = "constant"
    PADDING = "padding"
    ORDER = "order"


class Suspicion(NamedTuple):
    """Frames that cannot be right: what they look like and what to do, and where they begin."""

    kind: Kind
    text: str
    first_frame: int


class Plausibility:
    """Judges the frames of one utterance as they come. One for each utterance; tells each kind once."""

    def __init__(self, mels: MelDescription) -> None:
        """`mels`: what the frames are to be, after any conversion: natural logarithms of this format."""
        self._per_second = mels.rate_hz / mels.hop
        self._floor = float(np.log(mels.log_floor))
        self._level = level_of(mels) - level_of(MelDescription())
        self._seen = Seen()
        self._next_look = self._per_second * FIRST_LOOK_S
        self._runs = Runs(self._level, CONSTANT_S * self._per_second)
        self._steps = Steps()
        self._below_floor, self._lowest = 0, np.inf
        self._told: set[Kind] = set()
        self._waiting: list[Floats] = []
        self._batches = self._waiting_frames = 0
        self._batch_frames = FIRST_BATCH_FRAMES

    def update(self, frames: Floats) -> list[Suspicion]:
        """What is suspicious now that these frames [n, bands] have come. They are looked at in batches."""
        self._waiting.append(frames)
        self._waiting_frames += len(frames)
        return self._look() if self._waiting_frames >= self._batch_frames else []

    def _look(self) -> list[Suspicion]:
        """Looks at the frames that wait."""
        frames = np.concatenate(self._waiting) if self._waiting else np.zeros((0, 1), np.float32)
        self._waiting.clear()
        self._waiting_frames = 0
        if not len(frames):
            return []
        spans = np.ptp(frames, axis=1)
        found = self._runs.add(frames, spans)
        self._batches += 1
        is_young = self._seen.frames < self._per_second * ALL_SECONDS
        if is_young or self._batches % ONE_IN == 0:
            self._take_levels(frames, spans)
        else:
            self._steps.skip()
        self._batch_frames = FIRST_BATCH_FRAMES if is_young else BATCH_FRAMES
        if self._seen.frames >= self._next_look:
            self._next_look = 2 * self._seen.frames
            found += self._judge()
        return self._not_told(found) if found else found

    def _take_levels(self, frames: Floats, spans: Floats) -> None:
        sounding = frames if spans.min() > 0.01 else frames[spans > 0.01]
        if len(sounding):
            self._seen.add(sounding - np.float32(self._level))
            self._steps.add(sounding)
        self._below_floor += int((frames < self._floor - 1).sum())
        self._lowest = min(self._lowest, float(frames.min()))

    def finish(self) -> list[Suspicion]:
        """What is suspicious of an utterance that is over."""
        found = self._look()
        return found + self._not_told(self._judge() if self._seen.frames >= FRAMES_AT_LEAST else [])

    def _not_told(self, found: list[Suspicion]) -> list[Suspicion]:
        fresh = list({suspicion.kind: suspicion for suspicion in reversed(found)}.values())[::-1]
        fresh = [suspicion for suspicion in fresh if suspicion.kind not in self._told]
        self._told |= {suspicion.kind for suspicion in fresh}
        return fresh

    def _judge(self) -> list[Suspicion]:
        """All that was seen so far, as a whole."""
        found = []
        levels = self._seen.levels()
        if looks := looks_like(levels):
            found.append(Suspicion(Kind.SCALE, looks, 0))
        elif self._steps.ratio > TURNED_RATIO:
            text = "neighbouring frames differ far more than neighbouring bands: are the values in the order [bands, frames]?"
            found.append(Suspicion(Kind.ORDER, f"{text} Send [frames, bands]", 0))
        elif self._below_floor > 0.01 * self._seen.values.sum():
            text = f"values down to {self._lowest:.1f} lie below the floor of {self._floor:.1f}: a model with"
            found.append(Suspicion(Kind.FLOOR, f"{text} another floor? State format coqui or nemo, or log_floor", 0))
        return found


class Runs:
    """Frames that are alike: the same value in every band (padding), or the same as the frame before."""

    def __init__(self, level: float, constant_frames: float) -> None:
        self._level, self._constant_frames = level, constant_frames
        self._frame = self._repeated_from = 0
        self._flat_from = -1
        self._last: Floats | None = None

    def add(self, frames: Floats, spans: Floats) -> list[Suspicion]:
        """What is suspicious of frames [n, bands] with these spans [n]; every frame of a run may say so again."""
        before = frames[:1] + 1 if self._last is None else self._last
        repeated = (frames == np.concatenate([before, frames[:-1]])).all(axis=1)
        flat = spans == 0
        first, self._last = self._frame, frames[-1:].copy()
        self._frame += len(frames)
        if not (repeated | flat).any():  # nearly always
            self._repeated_from, self._flat_from = self._frame - 1, -1
            return []
        loud = frames.mean(axis=1) - self._level > SILENT
        found = (
            self._step(first + i, *row) for i, row in enumerate(zip(frames[:, 0], repeated, flat, loud, strict=True))
        )
        return [suspicion for suspicion in found if suspicion]

    def _step(self, frame: int, value: float, repeated: bool, flat: bool, loud: bool) -> Suspicion | None:
        if not repeated:
            self._repeated_from = frame
        if not flat:
            self._flat_from = -1
        elif self._flat_from < 0:
            self._flat_from = frame
        if loud and flat and frame - self._flat_from + 1 >= PADDING_FRAMES:
            return padding(float(value), self._flat_from)
        if loud and not flat and frame - self._repeated_from >= self._constant_frames:
            text = (
                f"frame {self._repeated_from} is repeated for {CONSTANT_S:g} s and longer; speech does not stand still"
            )
            return Suspicion(Kind.CONSTANT, text, self._repeated_from)
        return None


def padding(value: float, first_frame: int) -> Suspicion:
    """Frames of one value in every band, which is no silence."""
    text = (
        f"from frame {first_frame} on every band is {value:g}: the padding of a batch? As natural logarithms it is loud "
        f"noise. Send each mel at its own length, or state padding = {value:g}, which is silence then"
    )
    return Suspicion(Kind.PADDING, text, first_frame)


def looks_like(levels: Levels) -> str:
    """What values that cannot be natural logarithms of a sound look like, and the format to state; "" if they can be."""
    span = f"values of {levels.lowest:.2f}..{levels.high:.2f} cannot be natural logs of speech: they look like"
    if levels.lowest >= -0.02:
        if levels.high <= 1.06:
            return f"{span} [0, 1] of dB; state format db-unit, or scale and offset"
        return f"{span} magnitudes without a logarithm; send ln(max(x, 1e-5))"
    clipped_at_4 = -4.001 <= levels.lowest <= -3.999 and levels.high <= 4.05
    if levels.loud > -0.1:
        if clipped_at_4:
            return f"{span} dB in [-4, 4]; state format coqui-db or db-symmetric"
        if abs(levels.mean) < 0.8 and 0.5 < levels.deviation < 1.7:
            return f"{span} z-scores; state the model's format (espnet, pwg, matcha-lj ...) with its statistics"
        return f"{span} something louder than any sound; state the format they are in, see glowctl formats"
    if levels.low < -5.25 or levels.swing < 0.9 or levels.within < 0.45:
        return ""
    if levels.lowest > -5.3 and levels.high <= 0.6 and levels.median < -1.4:
        return f"{span} log10; state format log10, espnet-raw or speecht5"
    if clipped_at_4 and levels.high > 1.2 and levels.at_lowest > 0.01:
        return f"{span} dB in [-4, 4]; state format coqui-db or db-symmetric"
    return ""


def out_of_range(low: float, high: float) -> str:
    """What values beyond the range of any natural logarithm look like."""
    if low < -30 and high < 60:
        return "they look like dB; state format db, coqui-db, or the model's"
    if low < -20:
        return "a model with a low floor? State format nemo or espnet, or log_floor"
    return "state the format they are in, see glowctl formats"
