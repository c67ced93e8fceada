"""Mels as programs and files hold them -> frames as the wire carries them. Library and commands use this one place.

Rules: numpy only, no I/O. A tensor is recognised by its methods: PyTorch is not imported.
"""

from typing import Any

import numpy as np

from glowd.daemon.wire import STATED_HIGH, STATED_LOW, Array
from glowd.flow.mel_formats.plausibility import out_of_range


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
