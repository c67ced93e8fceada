"""Recordings as training data: the clips of a folder as one waveform and one mel, and aligned segments of them.

Rules: no network here. A clip that cannot be used does not end a run: `Clips.skipped` names it with the reason. Samples are
kept as int16, because a recording holds 16 bits and likelihood needs that grid (`Segments` adds the noise of
dequantisation); the mel is that of these samples.

    audio   | clip 0: L0 * hop samples | clip 1: L1 * hop samples | ...
    mel     | clip 0: L0 frames        | clip 1: L1 frames        | ...
    segment            [ n * hop samples, n frames ]    never across two clips
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.recordings import RecordingError, find_recordings, read_speech
from glowd.flow.training import augment
from glowd.flow.training.torch_mel import log_mel as log_mel_of

FULL_SCALE = 32768
READERS = 4
ALL = slice(None)
NO_WEIGHTS: Mapping[str, float] = {}
TRIM_FRAME_S, TRIM_HOP_S = 1024 / 22050, 256 / 22050
"""Of the levels by which silence is found, where it is trimmed."""
SILENCE_DB = 40.0
"""What is softer than the loudest moment of a clip by more than this is silence, where silence is trimmed."""
SPARE_FRAMES = 4
"""A clip must be longer than a segment by this much, so that segments can begin at several frames."""


class Batch(NamedTuple):
    """Aligned segments."""

    audio: Tensor
    """[B, T] float32."""
    mel: Tensor
    """[B, M, T / hop]."""
    phase: Tensor | None = None
    """Of the recordings' fundamental, in cycles [B, T] float32; None where the clips have none."""


def trim_silence(wave: Floats, rate_hz: int, keep_s: float) -> Floats:
    """Samples [T] without the silence at both ends beyond `keep_s` of it; silence is what lies below SILENCE_DB."""
    from librosa.effects import trim

    frame, hop = round(TRIM_FRAME_S * rate_hz), round(TRIM_HOP_S * rate_hz)
    _, (begin, end) = trim(wave, top_db=SILENCE_DB, frame_length=frame, hop_length=hop)
    keep = round(keep_s * rate_hz)
    return wave[max(0, int(begin) - keep) : int(end) + keep]


@dataclass(frozen=True, slots=True)
class _Clip:
    name: str
    folder: str  # the sub-folder of the data in which it lies, "" for none
    samples: NDArray[np.int16]  # [L * hop]
    mel: Floats  # [L, M]


def _read_clip(path: Path, folder: str, format: MelFormat, segment_frames: int, max_silence_s: float) -> _Clip:
    wave = read_speech(path, format.rate_hz)
    if max_silence_s:
        wave = trim_silence(wave, format.rate_hz, max_silence_s)
    frames = len(wave) // format.hop
    needed_s = (segment_frames + SPARE_FRAMES) * format.hop / format.rate_hz
    if len(wave) <= (segment_frames + SPARE_FRAMES) * format.hop:
        raise RecordingError(f"{path} is too short: {len(wave) / format.rate_hz:.2f} s, needed: over {needed_s:.2f} s")
    grid = np.rint(wave[: frames * format.hop] * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return _Clip(path.stem, folder, grid, log_mel((grid / FULL_SCALE).astype(np.float32), format)[:frames])


class Clips:
    """All usable clips of a folder on one device, as one waveform and one mel."""

    def __init__(self, folder: Path, clips: list[_Clip], skipped: list[str], format: MelFormat, frames: int) -> None:
        self.folder, self.skipped, self.format, self.segment_frames = folder, skipped, format, frames
        self.count = len(clips)
        self.names = [clip.name for clip in clips]
        self.folders = [clip.folder for clip in clips]
        self.audio = torch.from_numpy(np.concatenate([clip.samples for clip in clips]))  # [T] int16
        self.mel = torch.from_numpy(np.concatenate([clip.mel for clip in clips]).T.copy())  # [M, L]
        self.phase: Tensor | None = None
        """[T] float16, in cycles, 0 to 1: of the fundamental, for a voice with a source (locked_phase.py)."""
        lengths = torch.tensor([len(clip.mel) for clip in clips])
        begins = lengths.cumsum(0) - lengths
        self._lengths, self._begins = lengths.tolist(), begins.tolist()
        self.starts = torch.cat(
            [torch.arange(begin, begin + length - frames - 1) for begin, length in zip(begins, lengths)]
        )
        """First frames at which a whole segment of one clip begins, on the CPU."""

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.format.rate_hz

    def to(self, device: torch.device) -> "Clips":
        """Move waveform, mel and phase to the device that trains."""
        self.audio, self.mel = self.audio.to(device), self.mel.to(device)
        self.phase = None if self.phase is None else self.phase.to(device)
        return self

    def whole(self, index: int) -> tuple[Tensor, Tensor]:
        """One clip from its beginning to its end: audio [L * hop] float32, mel [M, L]."""
        begin, length, hop = self._begins[index], self._lengths[index], self.format.hop
        audio = self.audio[begin * hop : (begin + length) * hop]
        return audio.float() / FULL_SCALE, self.mel[:, begin : begin + length]

    def weights(self, by_folder: Mapping[str, float]) -> Tensor:
        """How often each of `starts` is drawn, cumulated, for weights of sub-folders. Raises RecordingError."""
        if unknown := by_folder.keys() - set(self.folders):
            found = ", ".join(sorted(set(self.folders) - {""})) or "none"
            raise RecordingError(f"favour names {min(unknown)!r}; sub-folders of {self.folder} with clips: {found}")
        each = torch.tensor([by_folder.get(folder, 1.0) for folder in self.folders], dtype=torch.float64)
        return each.repeat_interleave(torch.tensor(self._lengths) - self.segment_frames - 1).cumsum(0)

    def draw(self, count: int, generator: torch.Generator, share: slice = ALL, weights: Tensor | None = None) -> Batch:
        """`count` random segments, of which a process that trains together with others takes its `share`.

        `generator` is one of the CPU; `weights`: of the method above, None: all segments alike.
        """
        return self.at(self.draw_starts(count, generator, weights)[share])

    def draw_starts(self, count: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
        """First frames of `count` random segments, on the CPU."""
        if weights is None:
            return self.starts[torch.randint(len(self.starts), (count,), generator=generator)]
        chance = torch.rand(count, generator=generator, dtype=torch.float64) * weights[-1]
        return self.starts[torch.searchsorted(weights, chance, right=True).clamp(max=len(weights) - 1)]

    def possible_paces(self, starts: Tensor, paces: Tensor) -> Tensor:
        """The paces [B], lowered where the clip ends before the segment would."""
        ends = torch.tensor(self._begins) + torch.tensor(self._lengths)
        left = ends[torch.bucketize(starts, torch.tensor(self._begins), right=True) - 1] - starts
        most = (left * self.format.hop - augment.TAPS) / (self.segment_frames * self.format.hop)
        return torch.minimum(paces, most)

    def at(self, starts: Tensor) -> Batch:
        """The segments that begin at these frames [B]."""
        pick = starts.to(self.audio.device)
        frame = pick[:, None] + torch.arange(self.segment_frames, device=pick.device)
        sample = pick[:, None] * self.format.hop + torch.arange(
            self.segment_frames * self.format.hop, device=pick.device
        )
        phase = None if self.phase is None else self.phase[sample].float()
        return Batch(self.audio[sample].float() / FULL_SCALE, self.mel[:, frame].transpose(0, 1), phase)


def sub_folder(folder: Path, path: Path) -> str:
    """The first folder on the way from `folder` to a file in it, "" if there is none."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def load_clips(folder: Path, format: MelFormat, segment_samples: int, max_silence_s: float = 0.0) -> Clips:
    """Read a folder; if `max_silence_s` is not 0, silence at both ends of each clip is cut to that length.

    Raises RecordingError if there is no folder, no recording in it, or none of use (the text says why).
    """
    paths, frames = find_recordings(folder), segment_samples // format.hop

    def read(path: Path) -> _Clip | str:
        try:
            return _read_clip(path, sub_folder(folder, path), format, frames, max_silence_s)
        except RecordingError as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as pool:
        results = list(pool.map(read, paths))
    clips = [result for result in results if isinstance(result, _Clip)]
    skipped = [result for result in results if isinstance(result, str)]
    if not clips:
        raise RecordingError(f"data folder {folder} holds no usable recording: {skipped[0]} ({len(skipped)} files)")
    return Clips(folder, clips, skipped, format, frames)


class Segments:
    """The endless batches of a training run. Which ones come next is explicit state, so a run resumes exactly.

    A process that trains together with others gets its `share` of each batch; the state is that of whole batches. `colour`
    and `pace` are the shares of the segments that are coloured and played at another pace; `favour` are weights of
    sub-folders.
    """

    def __init__(
        self, clips: Clips, batch: int, seed: int, share: slice = ALL, colour: float = 0.0, pace: float = 0.0,
        favour: Mapping[str, float] = NO_WEIGHTS,
    ) -> None:  # fmt: skip
        """Raises RecordingError if `favour` names no sub-folder of the data."""
        self.clips, self.batch, self.share, self.colour, self.pace = clips, batch, share, colour, pace
        self._weights = clips.weights(favour) if favour else None
        self.device = clips.audio.device
        self._picks = torch.Generator().manual_seed(seed)
        self._noise = torch.Generator(self.device).manual_seed(seed + 1)

    def next(self) -> Batch:
        """The next segments, some of them changed, with the uniform noise of dequantisation."""
        starts = self.clips.draw_starts(self.batch, self._picks, self._weights)[self.share]
        batch = self.clips.at(starts)
        if self.pace:
            batch = self._paced(batch, starts)
        if self.colour:
            batch = self._coloured(batch)
        # One step of 16 bits.
        noise = torch.rand((self.batch, batch.audio.shape[1]), generator=self._noise, device=self.device)[self.share]
        return batch._replace(audio=batch.audio + noise / FULL_SCALE)

    def _paced(self, batch: Batch, starts: Tensor) -> Batch:
        """Some segments at another pace (augment.py), with the mel of that; their phase goes along."""
        chances = torch.rand(self.batch, 2, generator=self._picks)[self.share]
        chosen = (chances[:, 0] < self.pace).nonzero()[:, 0]
        if not len(chosen):
            return batch
        paces = self.clips.possible_paces(starts[chosen], augment.paces(chances[chosen, 1]))
        begins, rows = (starts[chosen] * self.clips.format.hop).to(self.device), chosen.to(self.device)
        length = batch.audio.shape[1]
        grid = augment.at_pace(self.clips.audio, begins, paces.to(self.device), length)
        phase = batch.phase
        if phase is not None and self.clips.phase is not None:
            phase = phase.index_copy(
                0, rows, augment.phase_at_pace(self.clips.phase, begins, paces.to(self.device), length)
            )
        mel = log_mel_of(grid, self.clips.format)[:, :, : batch.mel.shape[2]]
        return Batch(batch.audio.index_copy(0, rows, grid), batch.mel.index_copy(0, rows, mel), phase)

    def _coloured(self, batch: Batch) -> Batch:
        """Some segments as another microphone or codec would give them (augment.py), with the mel of that.

        Their phase stays, because the filters of colouring have none.
        """
        chances = augment.draw(self.batch, self._picks)[self.share]
        audio = augment.coloured(batch.audio, chances, self.colour, self.clips.format)
        changed = (chances[:, 0] < self.colour).to(self.device)[:, None, None]
        mel = log_mel_of(audio, self.clips.format)[:, :, : batch.mel.shape[2]]
        return batch._replace(audio=audio, mel=torch.where(changed, mel, batch.mel))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue with the same batches."""
        return {"picks": self._picks.get_state(), "noise": self._noise.get_state(), "device": self.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. On another kind of device the noise of dequantisation differs."""
        self._picks.set_state(state["picks"])
        if state["device"] == self.device.type:
            self._noise.set_state(state["noise"])


def fixed_segments(clips: Clips, count: int, seed: int = 1, batch: int = 16) -> list[Batch]:
    """A validation set: the same segments for the same folder, whatever the device."""
    generator = torch.Generator().manual_seed(seed)
    return [clips.draw(min(batch, count - done), generator) for done in range(0, count, batch)]
