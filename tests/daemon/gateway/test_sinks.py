"""What each sink counts as delivered, and what it does if it cannot deliver."""

import wave
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.sinks import AudioChunk, DeviceSink, FileSink, SocketSink
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from tests.harness.session import ramp


def chunk(first: int, samples: int, last: bool = False) -> AudioChunk:
    return AudioChunk(first, ramp(first, samples), last)


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 1000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_complete_file_gets_its_name(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "new", "a.b", 1000)
    sink.write(chunk(0, 10))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.b.wav.part"]
    assert (sink.delivered_samples, sink.finished) == (10, False)
    sink.write(chunk(10, 5, last=True))
    sink.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.b.wav"]
    assert (sink.delivered_samples, sink.finished) == (15, True)
    np.testing.assert_array_equal(samples_of(sink.path), np.round(ramp(0, 15) * 32767))


def test_loud_samples_are_clipped(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "a", 1000)
    sink.write(AudioChunk(0, np.array([1.5, -1.5, 1.0], np.float32), True))
    assert samples_of(sink.path).tolist() == [32767, -32767, 32767]


def test_flushed_file_keeps_its_part_name(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "a", 1000)
    sink.write(chunk(0, 10))
    sink.close()
    assert len(samples_of(tmp_path / "a.wav.part")) == 10 and not sink.path.exists()


@pytest.mark.parametrize("there", ["a.wav", "a.wav.part"])
def test_existing_file_is_not_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("dear")
    with pytest.raises(WireError, match=r"a.wav exists already, or .* choose another name") as caught:
        FileSink(tmp_path, "a", 1000)
    assert caught.value.code is Code.SINK_UNAVAILABLE
    assert (tmp_path / there).read_text() == "dear"


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.wav.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WireError):
        FileSink(tmp_path, "a", 1000)
    assert not (tmp_path / "elsewhere").exists()


def test_second_stream_with_same_file_is_refused(tmp_path: Path) -> None:
    first = FileSink(tmp_path, "a", 1000)
    with pytest.raises(WireError):
        FileSink(tmp_path, "a", 1000)
    first.write(chunk(0, 10, last=True))
    assert len(samples_of(first.path)) == 10


def test_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WireError, match="cannot write"):
        FileSink(tmp_path / "file" / "below", "a", 1000)


def test_full_disk_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    sink = FileSink(tmp_path, "a", 1000)
    with pytest.raises(WireError, match="No space left on device") as caught:
        for at in range(0, 100_000, 1000):
            sink.write(chunk(at, 1000))
    assert caught.value.code is Code.SINK_UNAVAILABLE
    sink.close()


def test_socket_sink_loses_nothing() -> None:
    took: list[wire.Audio] = []
    reads = True

    def try_send(offered: wire.Audio) -> bool:
        if reads:
            took.append(offered)
        return reads

    sink = SocketSink(lambda offered: offered.message("s", 0, 22_050, 0), try_send)
    sink.write(chunk(0, 10))
    reads = False
    sink.write(chunk(10, 10))
    sink.write(chunk(20, 10, last=True))
    assert (sink.delivered_samples, sink.finished) == (10, False)
    reads = True
    sink.pump()
    assert (sink.delivered_samples, sink.finished) == (30, True)
    assert [offered.first_sample for offered in took] == [0, 10, 20]


ATTACH = ipc.Attach(7, 1000, -3.0, 8)


def played(samples: int) -> ipc.Position:
    return ipc.Position(7, samples, 10**9 + samples)


def device() -> tuple[DeviceSink, list[Message]]:
    said: list[Message] = []
    return DeviceSink(said.append, ATTACH), said


def test_device_sink_keeps_what_was_not_played() -> None:
    sink, said = device()
    for at in (0, 10, 20):
        sink.write(chunk(at, 10))
    sink.position(played(12))
    assert sink.delivered_samples == 12
    sink.position(played(11))
    assert sink.delivered_samples == 12, "an older position changes nothing"
    said.clear()
    sink.attach()
    attach, *chunks = said
    assert attach == ipc.Attach(7, 1000, -3.0, 8, 12, 10**9 + 11)
    again = [message for message in chunks if isinstance(message, ipc.Pcm)]
    assert [(message.first_sample, message.samples) for message in again] == [(12, 8), (20, 10)]


def test_pause_before_a_restart_is_no_gap() -> None:
    sink, said = device()
    sink.write(chunk(0, 10))
    sink.position(played(5))
    sink.pause(True)
    sink.pause(False)
    said.clear()
    sink.attach()
    assert said[0] == ipc.Attach(7, 1000, -3.0, 8, 5)


def test_last_chunk_is_sent_again_to_restarted_speaker() -> None:
    """The speaker may have mixed all samples and be lost before it reports that they were played."""
    sink, said = device()
    sink.write(chunk(0, 10, last=True))
    sink.position(played(10))
    said.clear()
    sink.attach()
    last = said[-1]
    assert isinstance(last, ipc.Pcm) and (last.first_sample, last.samples, last.last) == (10, 0, True)
    sink.played(10)
    assert sink.finished


def test_finished_device_sink_is_not_detached() -> None:
    playing, said = device()
    playing.close()
    assert said[-1] == ipc.Detach(7)
    done, said = device()
    done.played(0)
    done.close()
    assert not any(isinstance(message, ipc.Detach) for message in said)
