"""Mels as people hold them become frames in one place."""

from typing import Any

import numpy as np
import pytest
import torch

from glowd.clients.mel_arrays import as_frames, check_values

MEL = np.linspace(-11, 1, 30 * 80, dtype=np.float32).reshape(30, 80)
TENSOR = torch.from_numpy(MEL)


@pytest.mark.parametrize(
    "mel",
    [
        MEL, MEL.T, MEL[np.newaxis], MEL.T[np.newaxis, np.newaxis], MEL.astype(np.float64), MEL.tolist(), list(MEL),
        np.asfortranarray(MEL), TENSOR, TENSOR.T, TENSOR[None], TENSOR.clone().requires_grad_(), list(TENSOR),
        torch.nn.Parameter(TENSOR) * 1, TENSOR.double(), TENSOR.to_sparse().to_dense(),
    ],
)  # fmt: skip
def test_every_container_gives_the_same_frames(mel: Any) -> None:
    frames = as_frames(mel, 80)
    assert frames.dtype == np.float32 and frames.flags.c_contiguous
    np.testing.assert_array_equal(frames, MEL)


@pytest.mark.parametrize("mel", [TENSOR.bfloat16(), TENSOR.half(), MEL.astype(np.float16)])
def test_half_precision_is_taken(mel: Any) -> None:
    np.testing.assert_allclose(as_frames(mel, 80), MEL, atol=0.04)


@pytest.mark.parametrize("mel", [MEL[0], TENSOR[0], MEL[:1].T, MEL[0].tolist()])
def test_one_frame_may_come_alone(mel: Any) -> None:
    np.testing.assert_array_equal(as_frames(mel, 80), MEL[:1])


def test_square_mel_has_the_order_that_is_asked_for() -> None:
    square = np.arange(6400, dtype=np.float32).reshape(80, 80)
    np.testing.assert_array_equal(as_frames(square, 80), square)
    np.testing.assert_array_equal(as_frames(square, 80, bins_first=True), square.T)


def test_no_frames_are_an_empty_mel() -> None:
    assert as_frames([], 80).shape == as_frames(np.zeros((0, 80)), 80).shape == (0, 80)


def test_the_frames_are_a_copy() -> None:
    mel = MEL.copy()
    frames = as_frames(mel, 80)
    mel[:] = 0
    np.testing.assert_array_equal(frames, MEL)


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (np.zeros((3, 79)), r"\[3, 79\]; expected \[frames, 80\] or \[80, frames\]"),
        (np.zeros((2, 80, 3)), r"\[2, 80, 3\]"),
        (np.full((3, 80), "x"), "elements of type"),
        (np.zeros((3, 80), complex), "complex128"),
        ([[1.0] * 80, [1.0] * 79], "ragged"),
        (7, r"shape \[\]"),
        (None, "shape"),
    ],
)
def test_what_is_no_mel_raises(mel: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_frames(mel, 80)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "value nan at frame 102, bin 5; expected finite values"),
        (-np.inf, "value -inf at frame 102, bin 5.*clamp"),
        (-85.0, r"value -85 at frame 102, bin 5; expected natural logarithms, -20\.\.20.*look like dB"),
        (-23.0, "value -23 at frame 102.*log_floor"),
    ],
)
def test_bad_value_is_named_with_its_place(value: float, words: str) -> None:
    frames = MEL.copy()
    frames[2, 5] = value
    with pytest.raises(ValueError, match=words):
        check_values(frames, -20, 20, first_frame=100)
