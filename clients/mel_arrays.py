"""Mels as programs and files hold them -> frames as the wire carries them. Library and commands use this one place.

Rules: numpy only, no I/O. A tensor is recognised by its methods: PyTorch is not imported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from glowd.daemon.wire import MEL_HIGH, MEL_LOW, STATED_HIGH, STATED_LOW, Array
from glowd.flow.mel_formats.plausibility import out_of_range
from glowd.flow.mel_formats.statement import read_statement, voice_mels

SCALE_KEYS = {"preset", "log", "log_floor", "scale", "offset"}
"""Keys of a stated format with which values need not be natural logs."""


class FrameReader:
    """Reads the frames of one stream. `stated`: the format in `open`."""

    def __init__(self, stated: Mapping[str, Any]) -> None:
        self._stated, self._bins_first = stated, False
        self._bins: int | None = None

    def frames(self, mel: object, voice_format: Mapping[str, Any], first_frame: int) -> Array:
        """Frames [n, bins] of whatever holds them. A square mel has the order of the stream's last one that had one."""
        bins = self._bins = self._bins or self._bins_for(voice_format)
        values = as_array(mel)
        frames = as_frames(values, bins, bins_first=self._bins_first)
        if values.ndim >= 2 and values.shape[-1] != values.shape[-2]:
            self._bins_first = is_turned(values.shape, bins, False)
        limits = (STATED_LOW, STATED_HIGH) if self._stated.keys() & SCALE_KEYS else (MEL_LOW, MEL_HIGH)
        check_values(frames, *limits, first_frame=first_frame)
        return frames

    def _bins_for(self, voice_format: Mapping[str, Any]) -> int:
        """Mel bins of the frames that the client sends: those of the stated format, else the voice's."""
        try:
            return read_statement(self._stated, voice_mels(voice_format)).mels.n_mels
        except ValueError:  # a newer daemon, which knows more formats
            return int(voice_format.get("n_mels", 80))


def as_frames(mel: object, bins: int, *, bins_first: bool = False) -> Array:
    """A copy of the frames, float32 [frames, bins].

    `mel` is [frames, bins] or [bins, frames], with or without axes of length 1 before it, or one frame [bins]: an array, a
    tensor (on any device, of any float type, with or without gradient), or lists of these. Where both orders fit,
    `bins_first` says that it is [bins, frames]. Raises ValueError for any other shape or content.
    """
    values = as_array(mel)
    shape = list(values.shape)
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim == 1 and (len(values) == bins or not values.size):
        values = values.reshape(-1, bins)
    if values.ndim != 2 or bins not in values.shape:
        raise ValueError(f"the mel has shape {shape}; expected [frames, {bins}] or [{bins}, frames]")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"the mel has elements of type {values.dtype}; expected numbers")
    if is_turned(values.shape, bins, bins_first):
        values = values.T
    with np.errstate(over="ignore"):  # too large is infinite then, and refused
        return np.array(values, np.float32, order="C")


def is_turned(shape: tuple[int, ...], bins: int, bins_first: bool) -> bool:
    """Whether a mel of this shape is [..., bins, frames]."""
    rows, columns = shape[-2:]
    return rows == bins and (bins_first or columns != bins)


def as_array(mel: object) -> Any:
    """An array of whatever holds numbers."""
    if isinstance(mel, list | tuple) and any(hasattr(one, "detach") for one in mel):
        mel = [as_array(one) for one in mel]
    if hasattr(mel, "detach"):  # a tensor of PyTorch; numpy has no bfloat16
        tensor: Any = mel.detach().cpu()
        mel = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        return np.asarray(mel)
    except ValueError as error:
        raise ValueError(f"the mel is a ragged {type(mel).__name__}: {error}") from error


def check_values(frames: Array, low: float = STATED_LOW, high: float = STATED_HIGH, first_frame: int = 0) -> None:
    """Raises ValueError for values [frames, bins] that are not finite or outside low..high, with the first one's place.

    `first_frame`: the place of these frames in the utterance.
    """
    allowed = (frames >= low) & (frames <= high)  # neither holds for NaN
    if allowed.all():
        return
    frame, bin_ = (int(index) for index in np.argwhere(~allowed)[0])
    text = f"the mel has the value {frames[frame, bin_]:g} at frame {first_frame + frame}, bin {bin_}"
    if not np.isfinite(frames).all():
        raise ValueError(f"{text}; expected finite values: clamp magnitudes before their logarithm, log(max(x, 1e-5))")
    lowest, highest = float(frames.min()), float(frames.max())
    raise ValueError(
        f"{text}; expected natural logarithms, {low:g}..{high:g}, and these reach from {lowest:.2f} to {highest:.2f}: "
        f"{out_of_range(lowest, highest)}"
    )
