"""A WaveNet run one step at a time, on arrays, for a batch of utterances at once.

Fast WaveNet (Le Paine et al. 2016, arXiv:1611.09482): a layer of dilation d needs of the past only the inputs that it had
d, 2d, ... steps ago, so each layer keeps those in a ring and a step costs one column of each layer instead of the whole
receptive field. A step draws one group, sample by sample, each from the Gaussian that the network gives it.

Rules: numpy and numba only. The loop is compiled because a step is some hundred operations on a few thousand numbers: torch
would spend most of its time between them. What the compiled functions share are named tuples of arrays, which numba reads by
name. wavenet.py defines what the numbers mean.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import Floats

MOST_GATE = 30.0
"""exp of it squared is still finite in float32, and tanh and sigmoid are 1 there to the last bit."""


class Weights(NamedTuple):
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
    dilations: NDArray[np.int64]  # [layers], in groups
    least_log_scale: np.float32


class Slices(NamedTuple):
    """What stays constant over a slice of the frames, for N slices of B utterances."""

    cond: Floats  # [N, B, layers, 2C]
    taps: Floats  # [N, B, P]
    gain: Floats  # [N, B]
    level: Floats  # [N, B]


class Drawn(NamedTuple):
    """What steps give: samples, and mean and scale of the Gaussian that each was drawn from, [B, T] each."""

    audio: Floats
    mean: Floats
    scale: Floats


class _Memory(NamedTuple):
    """What a step reads of the steps before it, and leaves for the next."""

    begins: NDArray[np.int64]  # [layers], where the ring of a layer begins in `rings`
    lengths: NDArray[np.int64]  # [layers]
    rings: Floats  # [sum of lengths, B, C], inputs of every layer
    past: Floats  # [B, P] samples, newest first
    group: Floats  # [B, 2G]: excitation and level-normalised audio of the last group


class State:
    """All that the next step depends on, for a batch of utterances; `steps` were made."""

    def __init__(self, weights: Weights, batch: int, order: int) -> None:
        """Silence before B utterances; `order` is P, that of the linear prediction."""
        doubled_group, channels = weights.start.shape
        lengths = (weights.conv.shape[1] // channels - 1) * weights.dilations
        self.memory = _Memory(
            begins=np.cumsum(lengths) - lengths,
            lengths=lengths,
            rings=np.zeros((int(lengths.sum()), batch, channels), np.float32),
            past=np.zeros((batch, order), np.float32),
            group=np.zeros((batch, doubled_group), np.float32),
        )
        self.steps = 0

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` utterances only."""
        memory = self.memory
        if batch < len(memory.past):
            self.memory = memory._replace(
                rings=np.ascontiguousarray(memory.rings[:, :batch]),
                past=memory.past[:batch].copy(),
                group=memory.group[:batch].copy(),
            )


def advance(weights: Weights, state: State, slices: Slices, noise: Floats, forced: Floats | None = None) -> Drawn:
    """Go on by N slices of equally many steps, T = steps * G.

    noise: [B, steps, G], what is added in units of the scale. forced: [B, T] takes the place of what is drawn (teacher
    forcing), so mean and scale are those of given samples.
    """
    batch, steps, group = noise.shape
    assert steps % len(slices.gain) == 0, (steps, len(slices.gain))
    drawn = Drawn(*np.zeros((3, batch, steps * group), np.float32))
    if forced is not None:
        drawn.audio[:] = forced
    _advance(weights, state.memory, state.steps, slices, noise, forced is not None, drawn)
    state.steps += steps
    return drawn


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _advance(weights, memory, first_step, slices, noise, forced, drawn):  # type: ignore[no-untyped-def]
    batch, steps, _ = noise.shape
    layers, channels = len(weights.conv), weights.start.shape[1]
    kernel = weights.conv.shape[1] // channels
    slice_steps = steps // len(slices.gain)
    hidden = np.zeros((batch, channels), np.float32)
    columns = np.zeros((batch, kernel * channels), np.float32)
    gates = np.zeros((batch, 2 * channels), np.float32)
    gated = np.zeros((batch, channels), np.float32)
    update = np.zeros((batch, weights.res_skip.shape[2]), np.float32)
    skips = np.zeros((batch, len(weights.mix)), np.float32)
    mixed = np.zeros((batch, len(weights.mix)), np.float32)
    out = np.zeros((batch, len(weights.end_bias)), np.float32)
    for step in range(steps):
        n = step // slice_steps
        np.dot(memory.group, weights.start, hidden)
        hidden += weights.start_bias
        skips[:] = 0
        for layer in range(layers):
            begin, length = memory.begins[layer], memory.lengths[layer]
            ring = memory.rings[begin : begin + length]
            for tap in range(kernel - 1):
                # The ring holds the last (kernel - 1) * dilation inputs; where the oldest lies, the new one goes.
                row = (first_step + step + tap * weights.dilations[layer]) % length
                columns[:, tap * channels : (tap + 1) * channels] = ring[row]
            columns[:, (kernel - 1) * channels :] = hidden
            ring[(first_step + step) % length] = hidden
            np.dot(columns, weights.conv[layer], gates)
            _gate(gates, slices.cond[n], layer, gated)
            np.dot(gated, weights.res_skip[layer], update)
            update += weights.res_skip_bias[layer]
            for b in range(batch):
                for c in range(channels):
                    hidden[b, c] += update[b, c]
                for c in range(skips.shape[1]):
                    skips[b, c] += update[b, channels + c]
        np.dot(np.maximum(skips, np.float32(0)), weights.mix, mixed)
        np.dot(np.maximum(mixed + weights.mix_bias, np.float32(0)), weights.end, out)
        out += weights.end_bias
        for b in range(batch):
            _draw(b, step, out[b], weights.least_log_scale, memory, slices, n, noise, forced, drawn)


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
def _draw(b, step, out, least_log_scale, memory, slices, n, noise, forced, drawn):  # type: ignore[no-untyped-def]
    """Group `step` of utterance b, in slice n: every sample from its Gaussian, and what the next step needs of it.

    out: [R], the last layer's output.
    """
    group = noise.shape[2]
    past, last, taps, gain = memory.past[b], memory.group[b], slices.taps[n, b], slices.gain[n, b]
    audio, row = drawn.audio[b], 2 * group
    for i in range(group):
        t, predicted, expected = step * group + i, np.float32(0), out[i]
        for k in range(len(past)):
            predicted += taps[k] * past[k]
        for j in range(i):
            expected += out[row + j] * last[j]  # the excitation of this group's sample j
        row += i
        mean = predicted + gain * expected
        scale = gain * math.exp(max(out[group + i], least_log_scale))
        if not forced:
            audio[t] = min(max(mean + scale * noise[b, step, i], np.float32(-1)), np.float32(1))  # as a recording would
        drawn.mean[b, t], drawn.scale[b, t] = mean, scale
        last[i], last[group + i] = (audio[t] - predicted) / gain, audio[t] / slices.level[n, b]
        for k in range(len(past) - 1, 0, -1):
            past[k] = past[k - 1]
        if len(past):
            past[0] = audio[t]
