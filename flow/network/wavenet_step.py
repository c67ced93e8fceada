"""Cached generation: a WaveNet run one step at a time, on arrays, for a batch of utterances at once.

Fast WaveNet (Le Paine et al. 2016, arXiv:1611.09482): a layer of dilation d needs of the past only the inputs that it had
d, 2d, ... steps ago, so each layer keeps those in a ring and a step costs one column of each layer instead of the whole
receptive field. A step draws one group, sample by sample, each from the Gaussian that the network gives it.

Rules: numpy and numba only. The loop is compiled because a step is some hundred operations on a few thousand numbers:
in torch it would spend most of its time between them. wavenet.py knows what the numbers mean.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np

from glowd.flow.mel import Floats

MOST_GATE = 30.0
"""exp of it squared is still finite in float32, and tanh and sigmoid have long been 1 there."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A network's matrices as a step multiplies with them, [in, out]. K skip channels, k kernel, R = 2G + G(G-1)/2."""

    start: Floats  # [2G, C]
    start_bias: Floats  # [C]
    conv: Floats  # [layers, k * C, 2C], oldest tap first; its bias is in the conditioning
    res_skip: Floats  # [layers, C, C + K]
    res_skip_bias: Floats  # [layers, C + K]
    mix: Floats  # [K, K]
    mix_bias: Floats  # [K]
    end: Floats  # [K, R]: means, log-scales, rows of the taps inside the group
    end_bias: Floats  # [R]
    dilations: tuple[int, ...]
    order: int
    group: int
    least_log_scale: float


@dataclass(frozen=True, slots=True)
class Slices:
    """What stays constant over a slice of the frames, for N slices of B utterances."""

    cond: Floats  # [N, B, layers, 2C]
    taps: Floats  # [N, B, P]
    gain: Floats  # [N, B]
    level: Floats  # [N, B]


class State:
    """All that the next step depends on: one ring of inputs per layer, the last samples, the last group."""

    def __init__(self, weights: Weights, batch: int) -> None:
        channels, taps = weights.start.shape[1], weights.conv.shape[1] // weights.start.shape[1]
        self.lengths = np.array([(taps - 1) * d for d in weights.dilations])
        self.begins = np.cumsum(self.lengths) - self.lengths
        self.rings = np.zeros((int(self.lengths.sum()), batch, channels), np.float32)
        self.past = np.zeros((batch, weights.order), np.float32)  # newest first
        self.group = np.zeros((batch, 2 * weights.group), np.float32)
        self.steps = 0

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` utterances only."""
        if batch < len(self.past):
            self.rings = np.ascontiguousarray(self.rings[:, :batch])
            self.past, self.group = self.past[:batch].copy(), self.group[:batch].copy()


def advance(
    weights: Weights, state: State, slices: Slices, noise: Floats, slice_steps: int, forced: Floats | None = None
) -> tuple[Floats, Floats, Floats]:
    """Go on by N slices: samples, and mean and scale of the Gaussian that each was drawn from, [B, N * slice_steps * G].

    noise: [B, steps, G], what is added in units of the scale. forced: [B, samples] takes the place of what is drawn
    (teacher forcing), so mean and scale are those of given samples.
    """
    batch, steps, group = noise.shape
    assert steps == len(slices.gain) * slice_steps, (steps, len(slices.gain), slice_steps)
    audio, mean, scale = np.zeros((3, batch, steps * group), np.float32)
    if forced is not None:
        audio[:] = forced
    w = weights
    _advance(
        w.start, w.start_bias, w.conv, w.res_skip, w.res_skip_bias, w.mix, w.mix_bias, w.end, w.end_bias,
        np.array(w.dilations), np.float32(w.least_log_scale), state.begins, state.lengths, state.rings, state.past,
        state.group, state.steps, slices.cond, slices.taps, slices.gain, slices.level, noise, slice_steps,
        forced is not None, audio, mean, scale,
    )  # fmt: skip
    state.steps += steps
    return audio, mean, scale


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _advance(  # type: ignore[no-untyped-def]
    start, start_bias, conv, res_skip, res_skip_bias, mix, mix_bias, end, end_bias, dilations, least_log_scale, begins,
    lengths, rings, past, last_group, first_step, cond, taps, gain, level, noise, slice_steps, forced, audio, mean, scale,
):  # fmt: skip
    batch, steps, group = noise.shape
    layers, channels = len(conv), start.shape[1]
    kernel = conv.shape[1] // channels
    hidden = np.zeros((batch, channels), np.float32)
    columns = np.zeros((batch, kernel * channels), np.float32)
    gates = np.zeros((batch, 2 * channels), np.float32)
    gated = np.zeros((batch, channels), np.float32)
    update = np.zeros((batch, res_skip.shape[2]), np.float32)
    skips = np.zeros((batch, len(mix)), np.float32)
    mixed = np.zeros((batch, len(mix)), np.float32)
    out = np.zeros((batch, len(end_bias)), np.float32)
    excitation = np.zeros(group, np.float32)
    for step in range(steps):
        piece = step // slice_steps
        np.dot(last_group, start, hidden)
        hidden += start_bias
        skips[:] = 0
        for layer in range(layers):
            ring = rings[begins[layer] : begins[layer] + lengths[layer]]
            for tap in range(kernel - 1):
                # The ring holds the last (kernel - 1) * dilation inputs; where the oldest lies, the new one goes.
                row = (first_step + step + tap * dilations[layer]) % lengths[layer]
                columns[:, tap * channels : (tap + 1) * channels] = ring[row]
            columns[:, (kernel - 1) * channels :] = hidden
            ring[(first_step + step) % lengths[layer]] = hidden
            np.dot(columns, conv[layer], gates)
            _gate(gates, cond[piece], layer, gated)
            np.dot(gated, res_skip[layer], update)
            for b in range(batch):
                for c in range(channels):
                    hidden[b, c] += update[b, c] + res_skip_bias[layer, c]
                for c in range(skips.shape[1]):
                    skips[b, c] += update[b, channels + c] + res_skip_bias[layer, channels + c]
        np.dot(np.maximum(skips, np.float32(0)), mix, mixed)
        np.dot(np.maximum(mixed + mix_bias, np.float32(0)), end, out)
        out += end_bias
        for b in range(batch):
            _draw(
                out[b], least_log_scale, taps[piece, b], gain[piece, b], level[piece, b], noise[b, step], forced,
                past[b], last_group[b], excitation, step * group, audio[b], mean[b], scale[b],
            )  # fmt: skip


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _gate(gates, cond, layer, gated):  # type: ignore[no-untyped-def]
    """tanh(a) * sigmoid(b), by exponentials alone: (1 - e^-2a) / ((1 + e^-2a) (1 + e^-b))."""
    batch, channels = gated.shape
    for b in range(batch):
        for c in range(channels):
            x = gates[b, c] + cond[b, layer, c]
            y = gates[b, channels + c] + cond[b, layer, channels + c]
            p = math.exp(-np.float32(2) * min(max(x, np.float32(-MOST_GATE / 2)), np.float32(MOST_GATE / 2)))
            q = math.exp(-min(max(y, np.float32(-MOST_GATE)), np.float32(MOST_GATE)))
            gated[b, c] = (np.float32(1) - p) / ((np.float32(1) + p) * (np.float32(1) + q))


@numba.njit(cache=True)
def _draw(  # type: ignore[no-untyped-def]
    out, least_log_scale, taps, gain, level, noise, forced, past, last_group, excitation, first, audio, mean, scale
):  # fmt: skip
    """One group of one utterance: every sample from its Gaussian, and what the next step needs to know of it."""
    group, row = len(noise), 2 * len(noise)
    for i in range(group):
        predicted, expected = np.float32(0), out[i]
        for k in range(len(past)):
            predicted += taps[k] * past[k]
        for j in range(i):
            expected += out[row + j] * excitation[j]
        row += i
        mean[first + i] = predicted + gain * expected
        scale[first + i] = gain * math.exp(max(out[group + i], least_log_scale))
        if not forced:
            drawn = mean[first + i] + scale[first + i] * noise[i]
            audio[first + i] = min(max(drawn, np.float32(-1)), np.float32(1))  # as a recording would
        excitation[i] = (audio[first + i] - predicted) / gain
        for k in range(len(past) - 1, 0, -1):
            past[k] = past[k - 1]
        if len(past):
            past[0] = audio[first + i]
        last_group[i], last_group[group + i] = excitation[i], audio[first + i] / level
