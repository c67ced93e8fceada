"""The file sink: names claimed at `open`, files complete or not there, nothing of other people touched."""

import stat
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.daemon.config import FileSettings
from glowd.daemon.gateway.streams.file_sink import ClaimedFiles, FileSink, Recordings
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.wire import Code, WireError
from tests.harness.session import SessionHarness, ramp


def chunk(first: int, samples: int, last: bool = False) -> AudioChunk:
    return AudioChunk(first, ramp(first, samples), last)


def recordings(directory: Path, **modes: Any) -> Recordings:
    return Recordings(FileSettings(directory=str(directory), **modes))


def file_sink(directory: Path, name: str = "a") -> FileSink:
    return FileSink(recordings(directory).claim(name), 1000)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 1000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_complete_file_gets_its_name(tmp_path: Path) -> None:
    sink = file_sink(tmp_path / "new", "a.b")
    sink.write(chunk(0, 10))
    assert names(tmp_path / "new") == ["a.b.wav.glowd-part"]
    assert (sink.delivered_samples, sink.finished) == (10, False)
    sink.write(chunk(10, 5, last=True))
    sink.close()
    assert names(tmp_path / "new") == ["a.b.wav"]
    assert (sink.delivered_samples, sink.finished) == (15, True)
    np.testing.assert_array_equal(samples_of(tmp_path / "new" / "a.b.wav"), np.round(ramp(0, 15) * 32767))


def test_loud_samples_are_clipped(tmp_path: Path) -> None:
    file_sink(tmp_path).write(AudioChunk(0, np.array([1.5, -1.5, 1.0], np.float32), True))
    assert samples_of(tmp_path / "a.wav").tolist() == [32767, -32767, 32767]


def test_flushed_file_keeps_its_part_until_the_next_claim(tmp_path: Path) -> None:
    sink = file_sink(tmp_path)
    sink.write(chunk(0, 10))
    sink.close()
    assert len(samples_of(tmp_path / "a.wav.glowd-part")) == 10 and names(tmp_path) == ["a.wav.glowd-part"]
    file_sink(tmp_path).write(chunk(0, 4, last=True))
    assert names(tmp_path) == ["a.wav"]


def test_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    sink = file_sink(tmp_path)
    sink.write(chunk(0, 10))
    (tmp_path / "a.wav").write_text("dear")
    with pytest.raises(WireError, match=r"sink: a\.wav was made .* meanwhile; ours is a\.wav\.glowd-part") as caught:
        sink.write(chunk(10, 5, last=True))
    sink.close()
    assert caught.value.code is Code.SINK_UNAVAILABLE
    assert (tmp_path / "a.wav").read_text() == "dear" and len(samples_of(tmp_path / "a.wav.glowd-part")) == 15


@pytest.mark.parametrize("there", ["file", "link"])
def test_taken_name_is_refused_before_the_first_sample(tmp_path: Path, there: str) -> None:
    if there == "file":
        (tmp_path / "a.wav").write_text("dear")
    else:
        (tmp_path / "a.wav").symlink_to("nowhere")
    with pytest.raises(WireError, match=r"file sink: a\.wav (exists already|is a link)") as caught:
        SessionHarness("null", "file:b", "file:a", directory=tmp_path)
    assert caught.value.code is Code.SINK_UNAVAILABLE
    assert names(tmp_path) == ["a.wav"], "the other name was given up again"


def test_claimed_name_is_refused_to_a_second_stream(tmp_path: Path) -> None:
    first = SessionHarness("file:a", directory=tmp_path)
    with pytest.raises(WireError, match="is being written already"):
        SessionHarness("file:a", directory=tmp_path)
    first.session.state.close()
    assert names(tmp_path) == [], "a stream without samples leaves nothing"
    second = SessionHarness("file:a", directory=tmp_path)
    second.end()
    assert second.only(wire.Played).total_samples == 0 and names(tmp_path) == ["a.wav"]


def test_stream_of_a_client_that_is_gone_blocks_no_name(tmp_path: Path) -> None:
    first = SessionHarness("file:a", directory=tmp_path)
    first.send(8)
    first.render(4)
    first.session.state.close()
    second = SessionHarness("file:a", directory=tmp_path)
    second.send(4)
    second.end()
    second.render(4, last=True)
    assert names(tmp_path) == ["a.wav"] and len(samples_of(tmp_path / "a.wav")) == 16


def test_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WireError, match="cannot write"):
        recordings(tmp_path / "file" / "below").claim("a")


@pytest.mark.parametrize(
    ("modes", "file", "folder"), [({}, 0o600, 0o700), ({"file_mode": "640", "folder_mode": "750"}, 0o640, 0o750)]
)
def test_modes_are_private_unless_set(tmp_path: Path, modes: dict[str, str], file: int, folder: int) -> None:
    claimed = recordings(tmp_path / "new", **modes).claim("a")
    FileSink(claimed, 1000).write(chunk(0, 1, last=True))
    assert (mode(tmp_path / "new" / "a.wav"), mode(tmp_path / "new")) == (file, folder)


def test_full_disk_is_reported_once(tmp_path: Path) -> None:
    claimed = recordings(tmp_path).claim("a")
    claimed.file.close()
    claimed.file = open("/dev/full", "w+b")  # noqa: PTH123, SIM115
    sink = FileSink(claimed, 1000)
    with pytest.raises(WireError, match="No space left on device") as caught:
        for at in range(0, 100_000, 1000):
            sink.write(chunk(at, 1000))
    assert caught.value.code is Code.SINK_UNAVAILABLE
    sink.close()


def test_two_sinks_of_one_name_are_one(tmp_path: Path) -> None:
    files = ClaimedFiles(recordings(tmp_path), ["file:a", "null", "file:a"], 3, False)
    assert names(tmp_path) == ["a-3.wav.glowd-part"]
    assert files.take("a", 3, False) is not None
