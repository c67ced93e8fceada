"""Speech sampled from a WaveNet, several utterances at once: weights and conditioning as arrays, and noise.

Rules: knows the network and what its numbers mean; the loop over steps is wavenet_step.py. On the CPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from glowd.flow.latents import NoiseTable
from glowd.flow.mel import Floats
from glowd.flow.network.wavenet import LEAST_LOG_SCALE, MOST_TEMPERATURE, Layer, WaveNet
from glowd.flow.network.wavenet_step import Drawn, Slices, State, Weights, advance

CHUNK_FRAMES = 32
"""Frames whose conditioning is computed at once. For all layers it takes far more memory than the samples do."""


def sample(network: WaveNet, mels: Sequence[Floats], seed: int = 0, temperature: float | None = None) -> list[Floats]:
    """Utterances [L, M] -> their samples [L * hop], drawn together, longest first, one group of samples per step.

    The noise is a function of seed and time, the same for each utterance. `temperature` scales it: None is the network's
    own, 0 makes every sample its mean. Equal calls give equal samples. In another batch an utterance is rounded differently,
    and an autoregression amplifies that. Raises ValueError for a mel of a wrong shape or a temperature out of range.
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
    sampler = Sampler(network, torch.from_numpy(padded.astype(np.float32)).transpose(1, 2), seed)
    outputs = [np.zeros(length * config.mel.hop, np.float32) for length in frames]
    for begin in range(0, frames[0], CHUNK_FRAMES):
        sampler.keep(sum(length > begin for length in frames))
        chunks = sampler.advance(CHUNK_FRAMES, spread).audio
        for output, chunk in zip(outputs, chunks):
            room = output[begin * config.mel.hop :][: len(chunk)]
            room[:] = chunk[: len(room)]
    return [outputs[order.index(i)] for i in range(len(mels))]


class Sampler:
    """A batch of utterances, sampled up to some frame: explicit state, conditioning, and noise as a function of time."""

    def __init__(self, network: WaveNet, mel: Tensor, seed: int = 0) -> None:
        """mel [B, M, L]: the longest utterances first, if some will be dropped (`keep`)."""
        self.network, self.config = network, network.config
        self.batch, self.frames_left, self.frames_done = len(mel), mel.shape[2], 0
        self._weights = step_weights(network)
        self._state = State(self._weights, self.batch, self.config.order)
        self._noise = NoiseTable(self.config.group)
        self._first_row = self._noise.first_row(seed)
        with torch.no_grad():
            self._mel, self._encoded = mel, network.encoder(mel)

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` utterances only."""
        self.batch = batch
        self._state.keep(batch)

    @torch.no_grad()
    def advance(self, frames: int, temperature: float = 1.0, forced: Floats | None = None) -> Drawn:
        """At most `frames` more, T = frames * hop. forced [B, T]: these samples instead of drawn ones (teacher forcing)."""
        frames = min(frames, self.frames_left)
        slices = self._slices(self.frames_done, self.frames_done + frames)
        steps = self.config.slice_samples // self.config.group
        rows = self._noise.rows(torch.tensor([self._first_row + self._state.steps]), len(slices.gain) * steps)
        noise = (temperature * rows).expand(self.batch, -1, -1).contiguous().numpy()
        self.frames_done, self.frames_left = self.frames_done + frames, self.frames_left - frames
        return advance(self._weights, self._state, slices, noise, forced)

    def _slices(self, begin_frame: int, end_frame: int) -> Slices:
        begin, end = (frame * self.config.slices_per_frame for frame in (begin_frame, end_frame))
        cond = self.network.condition(self._encoded[: self.batch, :, begin:end])
        # One frame more, because the last slices of a frame look at the next one; the first ones may look at that before.
        first = max(0, begin_frame - self.network.predictor.past_frames)
        prediction = self.network.predictor(self._mel[: self.batch, :, first : end_frame + 1])
        skipped = (begin_frame - first) * self.config.slices_per_frame
        own = slice(skipped, skipped + end - begin)
        bias = torch.stack([_parts(layer.conv)[1] for layer in _layers(self.network)])
        return Slices(
            cond=_array(cond.transpose(0, 1) + bias),
            taps=_array(prediction.taps[:, own].transpose(0, 1)),
            gain=_array(prediction.gain[:, own].T),
            level=_array(prediction.level[:, own].T),
        )


def step_weights(network: WaveNet) -> Weights:
    """The network's weights as a step multiplies with them."""
    start, start_bias = _parts(network.start)
    mix, mix_bias = _parts(network.mix)
    end, end_bias = _parts(network.end)
    layers = _layers(network)
    # A convolution's [out, in, tap] as one product with the columns of its taps, oldest first.
    conv = torch.stack([_parts(layer.conv)[0].permute(2, 1, 0).flatten(0, 1) for layer in layers])
    res_skip, res_skip_bias = zip(*(_parts(layer.res_skip) for layer in layers))
    return Weights(
        start=_matrix(start),
        start_bias=_array(start_bias),
        conv=_array(conv),
        res_skip=np.stack([_matrix(weight) for weight in res_skip]),
        res_skip_bias=_array(torch.stack(res_skip_bias)),
        mix=_matrix(mix),
        mix_bias=_array(mix_bias),
        end=_matrix(end),
        end_bias=_array(end_bias),
        dilations=np.array(network.config.dilations),
        least_log_scale=np.float32(LEAST_LOG_SCALE),
    )


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
