"""Where audio goes: what each sink counts as delivered, and what it does when it cannot."""

import wave
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.gateway.sinks import DeviceSink, FileSink, OwnerSink, Piece
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from tests.daemon.gateway.session_rig import signal


def piece(first: int, samples: int, last: bool = False) -> Piece:
    return Piece(first, signal(first, samples), last)


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 1000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "new", "a.b", 1000)
    sink.write(piece(0, 10))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.b.wav.part"]
    assert (sink.delivered_samples, sink.finished) == (10, False)
    sink.write(piece(10, 5, last=True))
    sink.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.b.wav"]
    assert (sink.delivered_samples, sink.finished) == (15, True)
    np.testing.assert_array_equal(samples_of(sink.path), np.round(signal(0, 15) * 32767))


def test_what_is_too_loud_is_clipped_not_wrapped(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "a", 1000)
    sink.write(Piece(0, np.array([1.5, -1.5, 1.0], np.float32), True))
    assert samples_of(sink.path).tolist() == [32767, -32767, 32767]


def test_a_flushed_file_keeps_what_was_written_under_another_name(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "a", 1000)
    sink.write(piece(0, 10))
    sink.close()
    assert len(samples_of(tmp_path / "a.wav.part")) == 10 and not sink.path.exists()


@pytest.mark.parametrize("there", ["a.wav", "a.wav.part"])
def test_no_file_is_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("dear")
    with pytest.raises(WireError, match=r"a.wav exists already, or .* choose another name") as caught:
        FileSink(tmp_path, "a", 1000)
    assert caught.value.code is Code.SINK_UNAVAILABLE
    assert (tmp_path / there).read_text() == "dear"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.wav.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WireError):
        FileSink(tmp_path, "a", 1000)
    assert not (tmp_path / "elsewhere").exists()


def test_two_streams_do_not_share_a_file(tmp_path: Path) -> None:
    first = FileSink(tmp_path, "a", 1000)
    with pytest.raises(WireError):
        FileSink(tmp_path, "a", 1000)
    first.write(piece(0, 10, last=True))
    assert len(samples_of(first.path)) == 10


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WireError, match="cannot write"):
        FileSink(tmp_path / "file" / "below", "a", 1000)


def test_a_full_disk_is_told_and_closing_does_not_complain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    sink = FileSink(tmp_path, "a", 1000)
    with pytest.raises(WireError, match="No space left on device") as caught:
        for at in range(0, 100_000, 1000):
            sink.write(piece(at, 1000))
    assert caught.value.code is Code.SINK_UNAVAILABLE
    sink.close()


def test_the_owner_loses_nothing() -> None:
    took: list[Piece] = []
    reads = True

    def try_send(offered: Piece) -> bool:
        if reads:
            took.append(offered)
        return reads

    sink = OwnerSink(try_send)
    sink.write(piece(0, 10))
    reads = False
    sink.write(piece(10, 10))
    sink.write(piece(20, 10, last=True))
    assert (sink.delivered_samples, sink.finished) == (10, False)
    reads = True
    sink.pump()
    assert (sink.delivered_samples, sink.finished) == (30, True)
    assert [offered.first_sample for offered in took] == [0, 10, 20]


def device() -> tuple[DeviceSink, list[Message]]:
    said: list[Message] = []
    return DeviceSink(said.append, 7, -3.0, 8), said


def test_the_device_holds_what_was_not_played() -> None:
    sink, said = device()
    for at in (0, 10, 20):
        sink.write(piece(at, 10))
    sink.position(12)
    assert sink.delivered_samples == 12
    sink.position(11)
    assert sink.delivered_samples == 12, "a position told late takes nothing back"
    said.clear()
    sink.attach()
    attach, *pieces = said
    assert attach == ipc.Attach(7, -3.0, 8, 12)
    again = [message for message in pieces if isinstance(message, ipc.Pcm)]
    assert [(message.first_sample, message.samples) for message in again] == [(12, 8), (20, 10)]


def test_the_word_that_it_was_the_last_is_not_lost_with_a_speaker() -> None:
    """All samples may have been mixed, and yet the speaker dies before it says that they were played."""
    sink, said = device()
    sink.write(piece(0, 10, last=True))
    sink.position(10)
    said.clear()
    sink.attach()
    last = said[-1]
    assert isinstance(last, ipc.Pcm) and (last.first_sample, last.samples, last.last) == (10, 0, True)
    sink.played(10)
    assert sink.finished


def test_a_device_that_is_done_is_not_detached() -> None:
    playing, said = device()
    playing.close()
    assert said[-1] == ipc.Detach(7)
    done, said = device()
    done.played(0)
    done.close()
    assert not any(isinstance(message, ipc.Detach) for message in said)
