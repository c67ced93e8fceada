"""Streaming inversion of WaveGlow behind the vocoder interface: exact for causal voices, overlapped for the others.

`ExactVocoder`: every frame is computed once; each layer's past is cached, so any chunking gives what the whole would.

    frames    f-3 f-2 f-1 | f ... f+n-1 | f+n         (past and look-ahead of the frame encoder)
    groups                | n * hop / G |             (one more at the end of the utterance, lapped squeeze only)
    samples           <-G-| n * hop ... |             (a lapped block is complete one group late)

`OverlapVocoder`: a non-causal voice sees the future, so each chunk is rendered inside a window and the window's rim, where
the network misses its context, is thrown away:

    window    | context_frames | n frames | look_ahead_frames |
    kept                       |##########|                      samples of the n frames ...
    tail                                  |\\\\|                 ... and crossfade_samples more, which fade out
    next chunk                            |////##########|       under the fade-in of the next chunk's own render

Both renders of the crossfade used the same latents (latents.py), so they are nearly the same signal and the linear fade,
whose weights sum to one, is the right one. With context and look-ahead as long as the receptive field nothing differs
from the whole utterance at all.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glowd.flow.inversion.inverter import Inverter
from glowd.flow.inversion.runner import StepRunner
from glowd.flow.latents import NoiseTable, first_phase
from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.options import BACKENDS, PRECISIONS, Options, option
from glowd.flow.vocoder import BEGINNING, Origin, Stream, StreamT, Vocoder, render

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class VocoderOptions(Options):
    """Where and how a vocoder computes, and for how many streams; the same for both modes."""

    device: str = option("cpu", "torch device: cpu, cuda or cuda:N")
    max_batch: int = option(16, "largest number of streams that one call to step is expected to render", min=1)
    slots: int = option(
        64, "streams that can be open at a time, where the vocoder holds their state (ExactVocoder)", min=1
    )
    backend: str = option("auto", "what computes the flows (see Inverter)", choices=BACKENDS)
    precision: str = option(
        "auto", "number format of the convolutions; auto is bf16 on CUDA, float32 on a CPU", choices=PRECISIONS
    )

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions. Auto is float32 on a CPU because bf16 gains there with AVX512-BF16 or AMX only."""
        if self.precision == "auto":
            return torch.bfloat16 if self.device.startswith("cuda") else torch.float32
        return DTYPES[self.precision]


DEFAULTS = VocoderOptions()


class _WaveGlowVocoder(Vocoder[StreamT]):
    """What both modes share: the folded network, the noise, and the window of frames around a chunk."""

    def __init__(self, voice: WaveGlow, options: VocoderOptions, name: str) -> None:
        self.name, self.format, self.sigma = name, voice.config.mel, voice.config.sigma
        self.device = torch.device(options.device)
        self.inverter = Inverter(voice, self.device, options.dtype, options.backend)
        self.noise = NoiseTable(voice.config.group, device=self.device)
        self.config = voice.config
        self.runner = StepRunner(self.inverter, self.noise)
        self.max_batch = options.max_batch

    def shapes(self, max_batch: int, max_frames: int) -> list[tuple[int, int]]:
        """See Vocoder: what the runner prepares."""
        return self.runner.shapes(max_batch, max_frames)

    def _windows(self, streams: Sequence[StreamT], begin: int, end: int) -> Floats:
        """Frames begin ... end - 1 relative to each stream's next frame [B, n, M], padded outside the utterance."""
        return np.stack(
            [self._window(stream, stream.frames_done + begin, stream.frames_done + end) for stream in streams]
        )

    def _window(self, stream: StreamT, begin: int, end: int) -> Floats:
        inner_begin, inner_end = max(begin, stream.first_in), min(end, stream.frames_in)
        mel = stream.frames(inner_begin, inner_end)
        rim = ((inner_begin - begin, end - inner_end), (0, 0))
        if rim[0] == (0, 0):
            return mel
        return np.pad(mel, rim, mode="edge") if self.inverter.pad == "replicate" else np.pad(mel, rim)


class ExactStream(Stream):
    """A stream of a causal voice; its caches are row `slot` of the vocoder's bank."""

    slot: int
    noise_row: int
    owes_tail = False
    """Whether samples are left that only the group after the last frame completes."""

    @property
    def done(self) -> bool:
        """See Stream."""
        return super().done and not self.owes_tail


class ExactVocoder(_WaveGlowVocoder[ExactStream]):
    """Streams a causal voice exactly: streamed == whole utterance, for every chunking."""

    def __init__(self, voice: WaveGlow, options: VocoderOptions = DEFAULTS, name: str = "glow") -> None:
        if not voice.config.causal:
            raise ValueError("exact streaming needs a causal voice; use OverlapVocoder for this one")
        super().__init__(voice, options, name)
        config = voice.config
        self.look_ahead_frames = self.inverter.look_ahead_frames
        self.latency_samples = config.group if self.inverter.lapped else 0
        reach = -(-config.reach_groups // config.groups_per_frame)
        self.history_frames, self.lead_frames = reach + 1, self.inverter.past_frames
        # One slot more than streams: the rows of a CUDA bucket that carry no stream play there.
        self.bank = self.inverter.initial_state(options.slots + 1)
        self._fresh = self.inverter.initial_state(1)
        self._free = list(range(options.slots - 1, -1, -1))

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> ExactStream:
        """See Vocoder. Raises RuntimeError when all slots are taken."""
        if not self._free:
            raise RuntimeError(
                f"all {len(self.bank.past) - 1} stream slots of voice {self.name} are taken; close a stream"
            )
        sigma = self.sigma if sigma is None else sigma
        stream = ExactStream(seed, sigma, self.format.n_mels, origin, self.inverter.past_frames + 1)
        stream.slot = self._free.pop()
        stream.noise_row = self.noise.first_row(seed)
        if self.config.source is not None:
            stream.phase = first_phase(seed) if origin.phase is None else origin.phase
        with self.runner.on_stream():
            self._fresh.phase.fill_(stream.phase)
            self.bank.put(torch.tensor([stream.slot], device=self.device), self._fresh)
        return stream

    def close(self, stream: ExactStream) -> None:
        """See Vocoder."""
        assert stream.slot not in self._free
        self._free.append(stream.slot)

    def ready_frames(self, stream: ExactStream, limit: int) -> int | None:
        """See Vocoder: everything but the look-ahead, in the sizes the runner has prepared."""
        if stream.done:
            return None
        held_back = 0 if stream.ended else self.look_ahead_frames
        ready = self.runner.largest(min(limit, stream.frames_in - held_back - stream.frames_done))
        if ready:
            return ready
        return 0 if stream.ended and stream.frames_done == stream.frames_in else None

    def key(self, stream: ExactStream, frames: int) -> Hashable:
        """See Vocoder."""
        return frames, self._is_final(stream, frames)

    def step(self, streams: Sequence[ExactStream], frames: int) -> list[Floats]:
        """See Vocoder."""
        final = self._is_final(streams[0], frames)
        groups = frames * self.config.groups_per_frame + (self.inverter.extra_groups if final else 0)
        # With no frame left but a tail to play, the window is that of the last frame.
        windows = self._windows(
            streams, min(0, frames - 1) - self.inverter.past_frames, frames + self.look_ahead_frames
        )
        rows = [stream.noise_row + stream.frames_done * self.config.groups_per_frame for stream in streams]
        slots, sigmas = [stream.slot for stream in streams], [stream.sigma for stream in streams]
        audio, phases = self.runner.run(windows, groups, rows, sigmas, self.bank, slots, repeats=True)
        for stream, phase in zip(streams, phases):
            stream.phase = float(phase)
        return [self._take(stream, row, frames, final) for stream, row in zip(streams, audio)]

    def _take(self, stream: ExactStream, samples: Floats, frames: int, final: bool) -> Floats:
        # The block before the utterance's first group is the lapped transform's run-in.
        first = stream.frames_done == stream.first_frame
        samples = samples[self.latency_samples :] if first else samples
        stream.owes_tail = self.inverter.lapped and not final
        stream.rendered(frames, len(samples))
        return samples

    def _is_final(self, stream: ExactStream, frames: int) -> bool:
        return stream.ended and stream.frames_done + frames == stream.frames_in


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How a non-causal voice is cut: all in frames but the crossfade. The truncation has a price; `glowlab context` shows it."""

    chunk_frames: int = 8
    context_frames: int = 24
    look_ahead_frames: int = 8
    crossfade_samples: int = 256

    def __post_init__(self) -> None:
        for name, low in (
            ("chunk_frames", 1),
            ("context_frames", 0),
            ("look_ahead_frames", 0),
            ("crossfade_samples", 0),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"chunk plan: {name} is {getattr(self, name)}; allowed: at least {low}")

    def check(self, hop: int, delay_samples: int) -> None:
        """Raises ValueError if a chunk or its crossfade needs more look-ahead than the window renders."""
        room = self.look_ahead_frames * hop - delay_samples
        if room < 0:
            raise ValueError(
                "chunk plan: look_ahead_frames is 0; allowed: at least 1, for a lapped squeeze ends a group late"
            )
        if self.crossfade_samples > max(0, room):
            raise ValueError(
                f"chunk plan: crossfade_samples is {self.crossfade_samples}; allowed: at most {max(0, room)}, the look-ahead"
            )


class OverlapStream(Stream):
    """A stream of a non-causal voice; it owns the fading tail of its last chunk."""

    noise_row: int
    tail: Floats


class OverlapVocoder(_WaveGlowVocoder[OverlapStream]):
    """Streams any voice in overlapping windows; equal to the whole utterance when the plan covers its receptive field."""

    def __init__(
        self, voice: WaveGlow, plan: ChunkPlan, options: VocoderOptions = DEFAULTS, name: str = "glow"
    ) -> None:
        super().__init__(voice, options, name)
        plan.check(self.hop, voice.config.group if self.inverter.lapped else 0)
        self.plan = plan
        self.look_ahead_frames = plan.look_ahead_frames
        self.latency_samples = 0
        self.history_frames = plan.context_frames + self.inverter.past_frames + plan.chunk_frames
        self.run_in_frames = plan.context_frames
        # The crossfade begins where the chunk does: w runs over (0, 1) and the other render has weight 1 - w.
        self._fade_in = ((np.arange(plan.crossfade_samples) + 0.5) / max(1, plan.crossfade_samples)).astype(np.float32)

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> OverlapStream:
        """See Vocoder."""
        keep = self.plan.context_frames + self.inverter.past_frames
        stream = OverlapStream(seed, self.sigma if sigma is None else sigma, self.format.n_mels, origin, keep)
        stream.noise_row, stream.tail = self.noise.first_row(seed), np.zeros(0, np.float32)
        return stream

    def ready_frames(self, stream: OverlapStream, limit: int) -> int | None:
        """See Vocoder: whole chunks of the plan, at least one of them, or what is left at the end.

        A window of several chunks pays for context and look-ahead once.
        """
        held_back, chunk = 0 if stream.ended else self.look_ahead_frames, self.plan.chunk_frames
        ready = stream.frames_in - held_back - stream.frames_done
        if ready >= chunk:
            return max(chunk, min(ready, limit) // chunk * chunk)
        return ready if stream.ended and ready else None

    def key(self, stream: OverlapStream, frames: int) -> Hashable:
        """See Vocoder."""
        return frames, *self._rims(stream, frames)

    def _rims(self, stream: OverlapStream, frames: int) -> tuple[int, int, bool]:
        """Frames before and after the chunk inside its window, and whether the window ends the utterance."""
        before = min(self.plan.context_frames, stream.frames_done - stream.first_frame)
        left = stream.frames_in - stream.frames_done - frames
        after = min(self.plan.look_ahead_frames, left)
        return before, after, stream.ended and after == left

    def step(self, streams: Sequence[OverlapStream], frames: int) -> list[Floats]:
        """See Vocoder."""
        before, after, final = self._rims(streams[0], frames)
        windows = self._windows(
            streams, -before - self.inverter.past_frames, frames + after + self.inverter.look_ahead_frames
        )
        per_frame = self.config.groups_per_frame
        rows = [stream.noise_row + (stream.frames_done - before) * per_frame for stream in streams]
        groups = (before + frames + after) * per_frame + (self.inverter.extra_groups if final else 0)
        steady = (before, after, final) == (self.plan.context_frames, self.plan.look_ahead_frames, False)
        audio, _ = self.runner.run(windows, groups, rows, [stream.sigma for stream in streams], None, [], steady)
        delay = self.config.group if self.inverter.lapped else 0
        return [self._take(stream, row[delay:], before, frames) for stream, row in zip(streams, audio)]

    def _take(self, stream: OverlapStream, window: Floats, before: int, frames: int) -> Floats:
        begin = before * self.hop
        samples, rest = window[begin : begin + frames * self.hop].copy(), window[begin + frames * self.hop :]
        n = min(len(stream.tail), len(samples))
        w = self._fade_in[:n]
        samples[:n] = w * samples[:n] + (1 - w) * stream.tail[:n]
        stream.tail = rest[: self.plan.crossfade_samples]
        stream.rendered(frames, len(samples))
        return samples


def stream_vocoder(
    voice: WaveGlow, plan: ChunkPlan, options: VocoderOptions = DEFAULTS, name: str = "glow"
) -> ExactVocoder | OverlapVocoder:
    """The streaming mode that suits a voice: exact if it is causal, overlapped by `plan` if not.

    Raises ValueError for a plan that cannot be, and for a backend that this voice cannot have on this device.
    """
    if voice.config.causal:
        return ExactVocoder(voice, options, name)
    return OverlapVocoder(voice, plan, options, name)


def receptive_frames(voice: WaveGlow) -> int:
    """Frames on one side that can reach a sample at all."""
    return -(-voice.config.reach_groups // voice.config.groups_per_frame) + voice.encoder.past_frames


def whole(
    voice: WaveGlow, mel: Floats, seed: int = 0, sigma: float | None = None, device: torch.device | str = "cpu"
) -> Floats:
    """Whole-utterance inversion of mel [L, M] with the latents of `seed` -> samples [L * hop]. `sigma` None: the voice's."""
    options = VocoderOptions(str(device), slots=1)
    if voice.config.causal:
        return render(ExactVocoder(voice, options), mel, seed, len(mel), sigma)
    rim = receptive_frames(voice)
    vocoder = OverlapVocoder(voice, ChunkPlan(len(mel), rim, rim, 0), options)
    return render(vocoder, mel, seed, len(mel), sigma)
