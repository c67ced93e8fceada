"""Training data: aligned segments of one clip each, unusable files named, and the same batches after a resume."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.recordings import RecordingError, find_recordings
from glowd.flow.training.data import Segments, fixed_segments, load_clips, trim_silence
from tests.harness.recordings import voice_like, write_recordings

FORMAT = MelFormat()
SEGMENT = 4096


def test_segment_is_an_aligned_part_of_one_clip(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data", 3), FORMAT, SEGMENT)
    sources = [soundfile.read(path, dtype="float32")[0] for path in find_recordings(tmp_path / "data")]
    frames = SEGMENT // FORMAT.hop
    audio, mel, _ = clips.draw(20, torch.Generator().manual_seed(0))
    assert audio.shape == (20, SEGMENT) and mel.shape == (20, 80, frames)
    for segment, segment_mel in zip(audio.numpy(), mel.numpy()):
        places = [
            (source, begin)
            for source in sources
            for begin in range(0, len(source) - SEGMENT, FORMAT.hop)
            if np.array_equal(source[begin : begin + SEGMENT], segment)
        ]
        assert len(places) == 1
        source, begin = places[0]
        whole = log_mel(source[: len(source) // FORMAT.hop * FORMAT.hop], FORMAT)
        assert np.array_equal(whole[begin // FORMAT.hop :][:frames].T, segment_mel)


def test_starts_reach_all_frames_and_cross_no_clip(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data", 2, seconds=0.4), FORMAT, SEGMENT)
    frames_per_clip, frames = int(0.4 * 22050) // 256, SEGMENT // 256
    assert len(clips.mel.T) == 2 * frames_per_clip
    within = clips.starts % frames_per_clip
    assert within.min() == 0 and int(within.max()) + frames <= frames_per_clip
    assert set((clips.starts // frames_per_clip).tolist()) == {0, 1}


def test_wrong_metadata_is_named(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs" / "a.wav", voice_like(1.0, 0), 22050)
    (tmp_path / "metadata.csv").write_text("a|text|text\nb|text|text\n")
    clips = load_clips(tmp_path, FORMAT, SEGMENT)
    assert clips.count == 1 and "b.wav: no such file" in clips.skipped[0]
    (tmp_path / "metadata.csv").write_text("\n")
    with pytest.raises(RecordingError, match=r"metadata\.csv lists no recordings"):
        load_clips(tmp_path, FORMAT, SEGMENT)
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordingError, match=r"metadata\.csv cannot be read"):
        load_clips(tmp_path, FORMAT, SEGMENT)


def test_silence_at_both_ends_is_cut_to_a_length(tmp_path: Path) -> None:
    second = 22050
    breath = 1e-3 * np.random.default_rng(0).standard_normal(6 * second).astype(np.float32)
    tone = 0.3 * np.sin(0.1 * np.arange(second)).astype(np.float32)
    wave = breath.copy()
    wave[second : 2 * second] += tone
    wave[3 * second : 4 * second] += tone  # the pause between is no silence at an end
    cut = trim_silence(wave, second, 0.25)
    assert len(cut) == pytest.approx(3.5 * second, abs=2 * 1024)
    begin = next(i for i in range(len(wave)) if np.array_equal(wave[i : i + len(cut)], cut))
    assert begin == pytest.approx(0.75 * second, abs=1024)
    assert len(trim_silence(np.zeros(second, np.float32), second, 0.25)) == second
    soundfile.write(tmp_path / "clip.wav", wave, second)
    lengths = [load_clips(tmp_path, FORMAT, SEGMENT, keep).seconds for keep in (0.0, 0.25)]
    assert lengths == pytest.approx([6.0, 3.5], abs=0.1)


def test_unusable_clip_is_named_and_skipped(tmp_path: Path) -> None:
    data = write_recordings(tmp_path / "data", 1)
    (data / "text.wav").write_text("no sound")
    soundfile.write(data / "short.wav", voice_like(0.1, 0), 22050)
    soundfile.write(data / "nan.wav", np.full(22050, np.nan, np.float32), 22050, subtype="FLOAT")
    soundfile.write(data / "loud.wav", 3 * voice_like(1.0, 0), 22050, subtype="FLOAT")
    clips = load_clips(data, FORMAT, SEGMENT)
    assert clips.count == 1
    reasons = {"loud.wav": "peaks at 1.5", "nan.wav": "NaN", "short.wav": "0.10 s", "text.wav": "not a readable"}
    for (name, reason), text in zip(reasons.items(), clips.skipped, strict=True):
        assert name in text and reason in text


def test_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nowhere does not exist"):
        load_clips(tmp_path / "nowhere", FORMAT, SEGMENT)
    with pytest.raises(RecordingError, match="holds no recordings"):
        load_clips(tmp_path, FORMAT, SEGMENT)
    soundfile.write(tmp_path / "short.wav", voice_like(0.1, 0), 22050)
    with pytest.raises(RecordingError, match=r"no usable recording.*short\.wav is too short"):
        load_clips(tmp_path, FORMAT, SEGMENT)


def test_batches_resume_from_their_state(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data"), FORMAT, SEGMENT)
    straight, resumed = Segments(clips, 4, seed=0), Segments(clips, 4, seed=9)
    straight.next()
    resumed.load_state_dict(straight.state_dict())
    for _ in range(2):
        for a, b in zip(straight.next()[:2], resumed.next()[:2]):
            assert torch.equal(a, b)


def test_noise_is_within_one_step_of_sixteen_bits(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data"), FORMAT, SEGMENT)
    noisy = Segments(clips, 4, seed=0).next().audio
    clean = clips.draw(4, torch.Generator().manual_seed(0)).audio
    steps = (noisy - clean) * 32768
    assert steps.min() > -0.01 and steps.max() < 1.01 and steps.std() > 0.25


def test_validation_set_is_fixed(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data"), FORMAT, SEGMENT)
    first, second = fixed_segments(clips, 20), fixed_segments(clips, 20)
    assert [len(batch.audio) for batch in first] == [16, 4]
    assert all(torch.equal(a, b) for x, y in zip(first, second) for a, b in zip(x[:2], y[:2]))


def test_favoured_sub_folder_is_drawn_more_often(tmp_path: Path) -> None:
    for name in ("few", "many"):
        write_recordings(tmp_path / "data" / name, 2)
    clips = load_clips(tmp_path / "data", FORMAT, SEGMENT)
    starts = clips.draw_starts(4000, torch.Generator().manual_seed(0), clips.weights({"few": 3.0}))
    first_of_many = clips._begins[clips.folders.index("many")]
    assert (starts < first_of_many).float().mean() == pytest.approx(0.75, abs=0.03)
    with pytest.raises(RecordingError, match=r"favour names 'other'; sub-folders of .*: few, many"):
        Segments(clips, 2, seed=0, favour={"other": 2.0})
