"""Speech from a WaveNet: its weights and its conditioning as arrays, and utterances generated together.

Rules: knows the network and what its numbers mean; the loop itself, over steps, is wavenet_step.py. On the CPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from glowd.flow.latents import NoiseTable
from glowd.flow.mel import Floats
from glowd.flow.network.wavenet import LEAST_LOG_SCALE, MOST_TEMPERATURE, Layer, WaveNet
from glowd.flow.network.wavenet_step import Slices, State, Weights, advance

CHUNK_FRAMES = 32
"""Frames whose conditioning is computed at once: that of all layers is much larger than the samples it leads to."""


def render(network: WaveNet, mels: Sequence[Floats], seed: int = 0, temperature: float | None = None) -> list[Floats]:
    """Utterances [L, M] -> their samples [L * hop], generated together, longest first, one group of samples per step.

    The noise is a function of seed and time, the same for each utterance; `temperature` scales it (None: the network's
    own; 0: every sample is its mean). Equal calls give equal samples; in another batch an utterance is rounded otherwise,
    and an autoregression does not forget that. Raises ValueError for a mel of a wrong shape or a temperature out of
    range.
    """
    config = network.config
    for mel in mels:
        if mel.ndim != 2 or mel.shape[1] != config.mel.n_mels or not len(mel):
            raise ValueError(f"a mel must have shape [L, {config.mel.n_mels}]; got {list(mel.shape)}")
    spread = config.temperature if temperature is None else temperature
    if not 0 <= spread <= MOST_TEMPERATURE:
        raise ValueError(f"temperature is {spread}; allowed: 0 to {MOST_TEMPERATURE}")
    if not mels:
        return []
    order = sorted(range(len(mels)), key=lambda i: -len(mels[i]))
    frames = [len(mels[i]) for i in order]
    # Conditioning repeats the last frame, so an utterance is the same whether it was lengthened in this way or not.
    padded = np.stack([np.pad(mels[i], ((0, frames[0] - len(mels[i])), (0, 0)), mode="edge") for i in order])
    generator = Generator(network, torch.from_numpy(padded.astype(np.float32)).transpose(1, 2), seed)
    outputs = [np.zeros(length * config.mel.hop, np.float32) for length in frames]
    for begin in range(0, frames[0], CHUNK_FRAMES):
        generator.keep(sum(length > begin for length in frames))
        chunks, _, _ = generator.advance(CHUNK_FRAMES, spread)
        for output, chunk in zip(outputs, chunks):
            room = output[begin * config.mel.hop :][: len(chunk)]
            room[:] = chunk[: len(room)]
    return [outputs[order.index(i)] for i in range(len(mels))]


class Generator:
    """A batch of utterances, generated up to some frame: explicit state, conditioning, and noise as a function of time."""

    def __init__(self, network: WaveNet, mel: Tensor, seed: int = 0) -> None:
        """mel [B, M, L]: the longest utterances first, if some will be dropped (`keep`)."""
        self.network, self.config = network, network.config
        self.batch, self.frames_left, self.frames_done = len(mel), mel.shape[2], 0
        self._weights = folded(network)
        self._state = State(self._weights, self.batch)
        self._noise = NoiseTable(self.config.group)
        self._first_row = self._noise.first_row(seed)
        with torch.no_grad():
            self._mel, self._encoded = mel, network.encoder(mel)

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` utterances only."""
        self.batch = batch
        self._state.keep(batch)

    @torch.no_grad()
    def advance(
        self, frames: int, temperature: float = 1.0, forced: Floats | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """Up to `frames` more: samples, and mean and scale of each one's Gaussian, all [B, frames * hop].

        forced [B, frames * hop]: these samples instead of drawn ones (teacher forcing).
        """
        frames = min(frames, self.frames_left)
        slices = self._slices(self.frames_done, self.frames_done + frames)
        steps = self.config.slice_samples // self.config.group
        rows = self._noise.rows(torch.tensor([self._first_row + self._state.steps]), len(slices.gain) * steps)
        noise = (temperature * rows).expand(self.batch, -1, -1).contiguous().numpy()
        self.frames_done, self.frames_left = self.frames_done + frames, self.frames_left - frames
        return advance(self._weights, self._state, slices, noise, steps, forced)

    def _slices(self, begin_frame: int, end_frame: int) -> Slices:
        begin, end = (frame * self.config.slices_per_frame for frame in (begin_frame, end_frame))
        cond = self.network.condition(self._encoded[: self.batch, :, begin:end])
        # One frame more, because the last slices of a frame look at the next one.
        prediction = self.network.predictor(self._mel[: self.batch, :, begin_frame : end_frame + 1])
        count = end - begin
        bias = torch.stack([_parts(layer.conv)[1] for layer in _layers(self.network)])
        return Slices(
            _array(cond.transpose(0, 1) + bias),
            _array(prediction.taps[:, :count].transpose(0, 1)),
            _array(prediction.gain[:, :count].T),
            _array(prediction.level[:, :count].T),
        )


def folded(network: WaveNet) -> Weights:
    """The network's weights as generation multiplies with them."""
    start, start_bias = _parts(network.start)
    mix, mix_bias = _parts(network.mix)
    end, end_bias = _parts(network.end)
    layers = _layers(network)
    # A convolution's [out, in, tap] as one product with the columns of its taps, oldest first.
    conv = torch.stack([_parts(layer.conv)[0].permute(2, 1, 0).flatten(0, 1) for layer in layers])
    res_skip, res_skip_bias = zip(*(_parts(layer.res_skip) for layer in layers))
    return Weights(
        _matrix(start), _array(start_bias), _array(conv),
        np.stack([_matrix(weight) for weight in res_skip]), _array(torch.stack(res_skip_bias)),
        _matrix(mix), _array(mix_bias), _matrix(end), _array(end_bias),
        tuple(network.config.dilations), network.config.order, network.config.group, LEAST_LOG_SCALE,
    )  # fmt: skip


def _layers(network: WaveNet) -> list[Layer]:
    return [layer for layer in network.stack if isinstance(layer, Layer)]


def _parts(layer: nn.Conv1d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.detach(), layer.bias.detach()


def _matrix(weight: Tensor) -> Floats:
    """[out, in, 1] -> [in, out]."""
    return _array(weight[:, :, 0].T)


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.float().cpu().numpy())
