"""Griffin-Lim as a vocoder: no network; the classical inversion of a mel, and the baseline of every voice.

Rules: no torch; librosa is imported by the first rendering. The phase is found by iterating between signal and spectrogram
(Griffin & Lim 1984; with momentum, Perraudin, Balazs & Soendergaard 2013), which needs the whole utterance: a stream renders
nothing before `end`, everything in its first step, and returns it in chunks.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from glowd.flow.mel import Floats, MelFormat
from glowd.flow.phase_recovery.mel_inversion import MelInversion
from glowd.flow.vocoder import BEGINNING, Origin, Stream, Vocoder


class GriffinLimStream(Stream):
    """A stream that keeps all its frames and, once they are rendered, all samples of the utterance."""

    samples: Floats | None = None


class GriffinLimVocoder(Vocoder[GriffinLimStream]):
    """Mel to magnitudes by mel_inversion.py, to samples by `iterations` rounds. The seed gives the first phase."""

    look_ahead_frames = 0
    history_frames = 2**31 - 1
    latency_samples = 0
    whole_utterance = True
    sigma = 0.0

    def __init__(self, format: MelFormat | None = None, name: str = "griffin-lim", iterations: int = 60) -> None:
        self.format, self.name, self.iterations = format or MelFormat(), name, iterations
        self._inversion = MelInversion(self.format)

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> GriffinLimStream:
        """See Vocoder; `sigma` has no effect. Raises ValueError for an origin other than frame 0."""
        if origin.frame != 0:
            raise ValueError(f"{self.name}: first_frame is {origin.frame}; allowed: 0, as it renders whole utterances")
        return GriffinLimStream(seed, self.sigma, self.format.n_mels, keep_frames=None)

    def ready_frames(self, stream: GriffinLimStream, limit: int) -> int | None:
        """See Vocoder."""
        if not stream.ended or stream.done:
            return None
        return min(limit, stream.frames_in - stream.frames_done)

    def key(self, stream: GriffinLimStream, frames: int) -> Hashable:
        """See Vocoder. One stream at a time: a batch would only make a stream wait for others."""
        return id(stream)

    def step(self, streams: Sequence[GriffinLimStream], frames: int) -> list[Floats]:
        """See Vocoder."""
        return [self._next(stream, frames) for stream in streams]

    def _next(self, stream: GriffinLimStream, frames: int) -> Floats:
        if stream.samples is None:
            stream.samples = self.invert(stream.frames(0, stream.frames_in), stream.seed)
        begin = stream.frames_done * self.hop
        samples = stream.samples[begin : begin + frames * self.hop]
        stream.rendered(frames, len(samples))
        return samples

    def invert(self, mel: Floats, seed: int) -> Floats:
        """Log-mel [L, M] -> samples [L * hop]."""
        import librosa

        # L centred frames cover (L - 1) * hop samples: the last frame is repeated for the rest. A spectrogram shorter
        # than its own window would be padded with silence instead. librosa centres frame f on f * hop: where the format
        # does not, the first frame is repeated too, and the samples before the first one wanted are left out.
        later = self.format.centre_samples
        before, begin = (1, self.hop - later) if later else (0, 0)
        frames = before + max(len(mel) + 1, self.format.n_fft // self.hop + 1)
        magnitudes = self._inversion(np.pad(mel, ((before, frames - before - len(mel)), (0, 0)), mode="edge"))
        samples: Floats = librosa.griffinlim(
            magnitudes.T,
            n_iter=self.iterations,
            hop_length=self.hop,
            win_length=self.format.win,
            n_fft=self.format.n_fft,
            random_state=np.random.default_rng(seed % 2**64),
        )
        return samples[begin : begin + len(mel) * self.hop]
