"""Any program that writes mels as an upstream."""

import io
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from glowd.clients.upstream import Manner, Upstream, UpstreamError, open_upstream, processes, program
from tests.clients.upstream.speaking import WANTED, frames_of
from tests.harness.waiting import WAIT_S, until

HEAD = "import sys, time, numpy as np\ntext = sys.stdin.read()\nout = sys.stdout.buffer\n"


def upstream_of(folder: Path, body: str) -> Upstream:
    script = folder / "my tts.py"
    script.write_text(HEAD + body)
    return open_upstream(f"program:{sys.executable} '{script}'")


def test_raw_frames_follow_a_line_of_json(tmp_path: Path) -> None:
    body = """out.write(b'"matcha"\\n')\nout.write(np.full((len(text), 80), -2, np.float32).tobytes())"""
    upstream = upstream_of(tmp_path, body)
    assert upstream.speak("hello", WANTED).stated == {"preset": "matcha"}
    np.testing.assert_array_equal(frames_of(upstream, "hello"), np.full((5, 80), -2))


def test_stated_keys_give_the_number_of_bands(tmp_path: Path) -> None:
    body = """out.write(b'{"n_mels": 100}\\n')\nout.write(np.full((7, 100), -2, np.float32).tobytes())"""
    speech = upstream_of(tmp_path, body).speak("x", WANTED)
    assert speech.stated == {"n_mels": 100} and [c.shape for c in speech.frames] == [(7, 100)]


def test_saved_arrays_follow_one_another(tmp_path: Path) -> None:
    upstream = upstream_of(tmp_path, "for n in (2, 0, 3):\n  np.save(out, np.full((n, 80), -n, np.float32))")
    assert upstream.speak("x", WANTED).stated == WANTED.to_dict()
    assert frames_of(upstream, "x")[:, 0].tolist() == [-2, -2, -3, -3, -3]


def test_frames_come_before_the_program_ends(tmp_path: Path) -> None:
    body = "out.write(b'{}\\n' + bytes(4 * 80 * 3)); out.flush(); time.sleep(60)"
    frames = upstream_of(tmp_path, body).speak("x", WANTED).frames
    began_s = time.monotonic()
    assert len(next(frames)) == 3
    frames.close()
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize("started", [True, False])
def test_speech_that_is_given_up_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    monkeypatch.setattr(processes, "END_S", WAIT_S)  # a busy disk may hold up for seconds what leaves the mark
    mark = tmp_path / "ended"
    body = (
        f"import signal, pathlib\nsignal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(mark)!r}).touch(), sys.exit()))\n"
        "out.write(b'{}\\n' + bytes(4 * 80 * 3)); out.flush(); time.sleep(60)"
    )
    speech = upstream_of(tmp_path, body).speak("x", WANTED)
    if started:
        next(speech.frames)
    speech.frames.close()
    del speech
    until(mark.exists)


def test_rate_is_made_of_the_programs_frames(tmp_path: Path) -> None:
    upstream = upstream_of(tmp_path, "np.save(out, np.zeros((90, 80), np.float32) - 3)")
    assert len(frames_of(upstream, "x", manner=Manner(3.0))) == 30


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('no weights here')", "failed: no weights here"),
        ("out.write(b'{}\\n'); out.flush(); sys.exit(3)", "failed: status 3"),
        (
            "out.write(b'RIFF....WAVE')",
            "its output begins with b'RIFF....WAVE'; expected numpy's .npy, or a line of JSON",
        ),
        ("out.write(b'{}\\n' + bytes(4 * 80 + 8))", "ends within a frame: 8 bytes of 320"),
        ('out.write(b\'{"bank": "bark"}\\n\')', "the mel format that is stated cannot be used: .*bank"),
        ("np.save(out, np.zeros((3, 79), np.float32))", r"has shape \[3, 79\]"),
        ("pass", "its output begins with b''"),
    ],
)
def test_program_that_fails_is_an_error(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        frames_of(upstream_of(tmp_path, body), "x")


def test_program_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PATIENCE_S", 0.2)
    with pytest.raises(UpstreamError, match=r"has not spoken 1 characters within 0\.2 s"):
        frames_of(upstream_of(tmp_path, "time.sleep(60)"), "x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("program:/nowhere/tts", "there is no program /nowhere/tts"),
        ("program:'", "cannot be read"),
        ("program: ", "no command is named"),
    ],
)
def test_program_that_is_not_there_raises(name: str, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        frames_of(open_upstream(name), "x")


@pytest.mark.parametrize("shape", ["(99999999999, 80)", "(-3, 80)", "(1 << 40, 80)", "((((((80,"])
def test_header_that_promises_too_much_is_refused(shape: str) -> None:
    """numpy itself would ask the system for all that memory at once."""
    saved = io.BytesIO()
    np.save(saved, np.zeros((3, 80), np.float32))
    data = saved.getvalue().replace(b"(3, 80), }".ljust(len(shape) + 4), f"{shape}, }}".encode())
    assert data != saved.getvalue()
    with io.BufferedReader(io.BytesIO(data)) as output, pytest.raises(ValueError):
        list(program.saved_arrays(output, 80))
