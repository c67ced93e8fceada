"""glowctl as a process, against the fake daemon: what it does, what it prints, its exit status."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import soundfile
import zmq

from glowd.clients import Client
from glowd.clients.cli import top
from glowd.daemon import wire
from tests.fakes.daemon import HOP, VOICE, FakeDaemon, refuse_once
from tests.harness.snapshots import SNAPSHOT
from tests.harness.waiting import WAIT_S, until

ROOT = Path(__file__).parents[3]
started: list["subprocess.Popen[str]"] = []


@pytest.fixture(autouse=True)
def end_processes() -> Iterator[None]:
    """End the processes that a failed test has left running."""
    yield
    for process in started:
        process.kill()
        process.wait()
    started.clear()


def start(endpoint: str, *words: str, **more: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", endpoint, *words]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    started.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
    return started[-1]


def glowctl(endpoint: str, *words: str, said: str | None = None) -> tuple[int, str, str]:
    process = start(endpoint, *words)
    out, err = process.communicate(said, timeout=WAIT_S)
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.fixture
def mel_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "m.npy", np.full((50, 80), -4, np.float32))
    return tmp_path / "m.npy"


@pytest.fixture
def telemetry(socket_dir: Path) -> Iterator[str]:
    endpoint, stop = f"ipc://{socket_dir}/top.ipc", threading.Event()
    context = zmq.Context()

    def publish() -> None:
        publisher = context.socket(zmq.PUB)
        publisher.bind(endpoint)
        while not stop.wait(0.05):
            publisher.send(msgpack.packb(SNAPSHOT))

    thread = threading.Thread(target=publish)
    thread.start()
    yield endpoint
    stop.set()
    thread.join()
    context.destroy(linger=0)


def test_send_speaks_a_file_and_writes_the_audio(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    words = ["--voice", "glow", "--seed", "7", "--stream", "s", "--chunk", "8", "--out", str(tmp_path / "o.wav")]
    code, _, err = glowctl(fake.endpoint, "send", str(mel_file), *words)
    assert code == 0 and f"{50 * HOP} samples" in err
    assert soundfile.info(tmp_path / "o.wav").frames == 50 * HOP
    opened = fake.of_type(wire.Open)[0]
    assert (opened.stream, opened.voice, opened.seed, opened.sinks) == ("s", "glow", 7, ["socket"])
    assert [m.frames for m in fake.of_type(wire.Mel)] == [8] * 6 + [2]
    assert fake.received[-2:] == [wire.Close("s"), wire.Bye()]


def test_taken_out_is_refused_before_a_stream_is_opened(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    (tmp_path / "o.wav").write_text("dear")
    for words in (["send", str(mel_file)], ["listen", "--once"]):
        code, _, err = glowctl(fake.endpoint, *words, "--out", str(tmp_path / "o.wav"))
        assert code == 1 and "o.wav exists already, and is a text" in err and "or give --overwrite" in err
    assert not fake.of_type(wire.Open) and not fake.of_type(wire.Listen) and (tmp_path / "o.wav").read_text() == "dear"
    assert glowctl(fake.endpoint, "send", str(mel_file), "--out", str(tmp_path / "o.wav"), "--overwrite")[0] == 0
    assert soundfile.info(tmp_path / "o.wav").frames == 50 * HOP


def test_sink_option_repeats_and_defaults_to_device(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    assert glowctl(fake.endpoint, "send", str(mel_file))[0] == 0
    sinks = ["--sink", "null", "--sink", "file:x", "--out", str(tmp_path / "o.wav")]
    assert glowctl(fake.endpoint, "send", str(mel_file), *sinks)[0] == 0
    assert [o.sinks for o in fake.of_type(wire.Open)] == [["device"], ["null", "file:x", "socket"]]


def test_realtime_pace_sends_at_the_pace_of_speech(fake: FakeDaemon, mel_file: Path) -> None:
    words = ("--sink", "null", "--pace", "realtime", "--chunk", "4")
    assert glowctl(fake.endpoint, "send", str(mel_file), *words)[0] == 0
    sent_ns = [m.t_client_ns for m in fake.of_type(wire.Mel)]
    # A stall makes one pause long and those after it short; most are what they are meant to be.
    assert len(sent_ns) == 13 and np.median(np.diff(sent_ns)) / 1e9 == pytest.approx(4 * HOP / 22050, rel=0.3)


@pytest.mark.parametrize("text", ["hello you", "-"])
def test_say_speaks_a_text(fake: FakeDaemon, text: str) -> None:
    code, _, err = glowctl(fake.endpoint, "say", "--sink", "null", "--", text, said="hello from a pipe")
    assert (code, err) == (0, "")
    frames = sum(m.frames for m in fake.of_type(wire.Mel))
    assert fake.of_type(wire.End)[0].total_frames == frames > 20


def test_say_speaks_by_the_upstream_that_is_named(fake: FakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "tts.py"
    script.write_text("import sys, numpy as np\nnp.save(sys.stdout.buffer, np.full((len(sys.stdin.read()), 80), -4.0))")
    words = ("say", "--sink", "null", "--tts", f"program:{sys.executable} {script}")
    code, _, err = glowctl(fake.endpoint, *words, "--speed", "0.5", "hello you")
    assert (code, err) == (0, "")
    assert fake.of_type(wire.End)[0].total_frames == 2 * len("hello you") - 1


def test_module_of_speech_dispatcher_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    code, out, _ = glowctl("ipc:///somewhere", "speechd", "--print", "--tts", "espeak-ng")
    assert (
        code == 0 and "exec " in out and 'endpoint = "ipc:///somewhere"' in out and not (tmp_path / "config").exists()
    )
    code, out, _ = glowctl("ipc:///somewhere", "speechd", "--tts", "espeak-ng", "--tts-voice", "de")
    config = tmp_path / "config/speech-dispatcher/modules/glowd.conf"
    assert code == 0 and f"wrote {tmp_path}/libexec/speech-dispatcher-modules/sd_glowd and {config}" in out
    assert 'tts_voice = "de"' in config.read_text()
    assert glowctl("", "speechd", "--tts", "festival")[0] == 2


def test_say_speaks_what_a_pipe_brings_before_it_ends(fake: FakeDaemon) -> None:
    process = start(fake.endpoint, "say", "--sink", "null", "--tts", "espeak-ng", "-")
    assert process.stdin
    process.stdin.write("One sentence. And the next ")
    process.stdin.flush()
    until(lambda: fake.of_type(wire.Mel))
    process.stdin.close()
    assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("text", ["", " ", "."])
def test_say_without_words_is_an_empty_utterance(fake: FakeDaemon, tmp_path: Path, text: str) -> None:
    code, _, err = glowctl(fake.endpoint, "say", "--out", str(tmp_path / "o.wav"), "--", text)
    assert code == 0 and "wrote" in err
    assert fake.of_type(wire.End) and (tmp_path / "o.wav").exists()


def test_say_splits_a_long_text_into_utterances(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.limits["max_utterance_s"] = 4
    text = "This is a sentence of a long chapter. " * 5
    code, _, err = glowctl(fake.endpoint, "say", "--out", str(tmp_path / "o.wav"), "--", text)
    ends = fake.of_type(wire.End)
    assert code == 0 and len(ends) > 2, err
    assert all(end.total_frames * HOP / 22050 <= 4 for end in ends)
    assert soundfile.info(tmp_path / "o.wav").frames == sum(end.total_frames for end in ends) * HOP


def test_send_splits_a_long_mel_into_utterances(fake: FakeDaemon, mel_file: Path) -> None:
    fake.limits["max_utterance_s"] = 1
    np.save(mel_file, np.full((200, 80), -4, np.float32))
    assert glowctl(fake.endpoint, "send", str(mel_file), "--sink", "null")[0] == 0
    assert sum(end.total_frames for end in fake.of_type(wire.End)) == 200


def test_out_keeps_what_came_before_an_error(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    fake.refuse = refuse_once(4, wire.Code.OUT_OF_RANGE)
    code, _, err = glowctl(fake.endpoint, "send", str(mel_file), "--out", str(tmp_path / "o.wav"), "--chunk", "8")
    assert code == 1 and "303 OUT_OF_RANGE" in err and "wrote" in err
    assert soundfile.info(tmp_path / "o.wav").frames == 24 * HOP


def test_say_waits_for_a_voice_that_is_loading(fake: FakeDaemon, mel_file: Path) -> None:
    fake.voices, fake.snapshot = [], {"voices": {"glow": {"state": "loading", "default": True}}, "streams": {}}
    process = start(fake.endpoint, "send", str(mel_file), "--sink", "null")
    fake.wait_for(lambda: len(fake.of_type(wire.Status)) > 1)
    fake.voices = [VOICE]
    assert process.communicate(timeout=WAIT_S)[1] == "glowctl: waiting for voice glow, which is loading\n"
    assert process.returncode == 0 and fake.of_type(wire.End)


def test_voice_that_cannot_load_is_refused_with_its_reason(fake: FakeDaemon, mel_file: Path) -> None:
    away = {"ready": False, "default": False, "state": "away", "reason": "no home for its cache"}
    fake.snapshot = {"voices": {"bad": away}, "streams": {}}
    code, _, err = glowctl(fake.endpoint, "send", str(mel_file), "--voice", "bad")
    assert code == 1 and err.splitlines() == [
        "glowctl: waiting for voice bad, which is away: no home for its cache",
        "glowctl: voice bad is away: no home for its cache; ready voices: glow",
    ]
    code, _, err = glowctl(fake.endpoint, "send", str(mel_file), "--voice", "none")
    assert (code, err) == (1, "glowctl: there is no voice none; ready voices: glow\n")


def test_listen_once_records_one_utterance(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    process = start(fake.endpoint, "listen", "--once", "--out", str(tmp_path / "heard.wav"))
    fake.wait_for(lambda: bool(fake.listeners))
    assert glowctl(fake.endpoint, "send", str(mel_file), "--sink", "null")[0] == 0
    assert process.communicate(timeout=WAIT_S) == ("", "") and process.returncode == 0
    assert soundfile.info(tmp_path / "heard.wav").frames == 50 * HOP


def test_listen_prints_that_audio_was_lost_once(fake: FakeDaemon, mel_file: Path, tmp_path: Path) -> None:
    process = start(fake.endpoint, "listen", "--once", "--out", str(tmp_path / "heard.wav"))
    fake.wait_for(lambda: bool(fake.listeners))
    fake.send_to_listeners(wire.Warning(622, "SLOW_LISTENER", "audio was lost", "s"))
    assert glowctl(fake.endpoint, "send", str(mel_file), "--sink", "null", "--stream", "s")[0] == 0
    assert process.communicate(timeout=WAIT_S) == ("", "glowctl: warning: audio was lost\n")


def test_listen_writes_one_rate_whatever_the_voices_have(fake: FakeDaemon, tmp_path: Path) -> None:
    """A daemon may have voices of several rates, but a file or a pipe has one."""
    for words in ([], ["--rate", "16000"]):
        start(fake.endpoint, "listen", "--out", str(tmp_path / f"heard{len(words)}.wav"), *words)
    fake.wait_for(lambda: len(fake.of_type(wire.Listen)) == 2)
    assert {listen.audio_rate_hz for listen in fake.of_type(wire.Listen)} == {22_050, 16_000}


def test_rate_and_catch_up_are_asked_for(fake: FakeDaemon, mel_file: Path) -> None:
    words = ("--rate", "8000", "--catch-up", "never")
    assert glowctl(fake.endpoint, "send", str(mel_file), *words)[0] == 0
    (asked,) = fake.of_type(wire.Open)
    assert (asked.audio_rate_hz, asked.catch_up) == (8000, "never")
    code, _, err = glowctl(fake.endpoint, "send", str(mel_file), "--rate", "7999")
    assert code == 2 and "expected Hz from 8000 to 192000, got '7999'" in err


def test_status_prints_text_and_json(fake: FakeDaemon) -> None:
    fake.snapshot = SNAPSHOT
    code, out, _ = glowctl(fake.endpoint, "status")
    assert code == 0 and "talk" in out and "0.31" in out
    assert json.loads(glowctl(fake.endpoint, "status", "--json")[1]) == SNAPSHOT


def test_flush_stops_another_clients_stream(fake: FakeDaemon, mel_file: Path) -> None:
    fake.snapshot = {"streams": {"s": {"generation": 0}}}
    np.save(mel_file, np.zeros((10_000, 80), np.float32))
    speaker = start(fake.endpoint, "send", str(mel_file), "--sink", "null", "--stream", "s", "--pace", "realtime")
    fake.wait_for(lambda: bool(fake.of_type(wire.Mel)))
    assert glowctl(fake.endpoint, "flush", "s", "--fade", "30")[:2] == (0, "last sample played 99, 1000 dropped\n")
    assert fake.of_type(wire.Flush) == [wire.Flush("s", 0, 30)]
    assert speaker.communicate(timeout=WAIT_S)[1] == "glowctl: stream s was flushed by another client\n"
    assert speaker.returncode == 1
    code, _, err = glowctl(fake.endpoint, "flush", "nobody")
    assert (code, err) == (1, "glowctl: no stream nobody is open; open streams: s\n")


def test_key_that_may_only_control_stops_a_stream(fake: FakeDaemon) -> None:
    fake.refuse_status = wire.Code.NOT_ALLOWED
    with Client(fake.endpoint) as other:
        other.open("s")
        code, out, _ = glowctl(fake.endpoint, "flush", "s", "--fade", "30")
    assert code == 0 and out.startswith("stopped; what was heard is told to keys")
    assert fake.of_type(wire.Flush) == [wire.Flush("s", 0, 30)]


def test_stream_of_another_client_is_held_and_turned_down(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as other:
        other.open("s")
        for words in (("pause", "s"), ("gain", "s", "-6.5"), ("resume", "s")):
            assert glowctl(fake.endpoint, *words) == (0, "", "")
    assert fake.of_type(wire.Pause) == [wire.Pause("s")] and fake.of_type(wire.Resume) == [wire.Resume("s")]
    assert fake.of_type(wire.Gain) == [wire.Gain("s", -6.5)]
    code, _, err = glowctl(fake.endpoint, "pause", "nobody")
    assert code == 1 and "there is no stream 'nobody'" in err and err.count("\n") == 1
    code, _, err = glowctl(fake.endpoint, "gain", "s", "30")
    assert code == 2 and "expected dB from -120 to 24, got '30'" in err


def test_top_prints_batch_and_json(telemetry: str) -> None:
    code, out, _ = glowctl("", "top", "--telemetry", telemetry, "--batch", "-n", "2")
    assert code == 0 and out.count("glowd ready") == 2 and "61" in out
    code, out, _ = glowctl("", "top", "--telemetry", telemetry, "--json", "-n", "3")
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == [SNAPSHOT] * 3


def test_top_goes_on_after_it_was_suspended(telemetry: str) -> None:
    """Several at once: what a program finds first when it goes on, a message or how late it is, is chance."""
    running = [start("", "top", "--telemetry", telemetry, "--json") for _ in range(3)]
    outputs = [process.stdout for process in running if process.stdout is not None]
    assert [json.loads(output.readline()) for output in outputs] == [SNAPSHOT] * 3
    for process in running:
        process.send_signal(signal.SIGSTOP)
    time.sleep(1.2 * top.STALE_S)
    for process in running:
        process.send_signal(signal.SIGCONT)
    for process, output in zip(running, outputs):
        assert [json.loads(output.readline()) for _ in range(100)] == [SNAPSHOT] * 100
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT_S)[1] == "" and process.returncode == 130


def test_top_on_a_terminal_ends_with_q(telemetry: str) -> None:
    ours, theirs = pty.openpty()
    terminal = {"COLUMNS": "140", "LINES": "30", "TERM": "xterm", **os.environ}
    process = start("", "top", "--telemetry", telemetry, stdin=theirs, stdout=theirs, env=terminal)
    os.close(theirs)
    shown: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # a closed terminal
            while data := os.read(ours, 65536):
                shown.append(data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    until(lambda: all(words in b"".join(shown) for words in (b"0.31", b"1.2/9.5")), "a full screen")
    os.write(ours, b"q")
    assert process.wait(WAIT_S) == 0
    assert process.stderr is not None and process.stderr.read() == ""
    process.stderr.close()
    watcher.join()
    os.close(ours)


def test_closed_output_pipe_exits_with_zero(telemetry: str) -> None:
    process = start("", "top", "--telemetry", telemetry, "--batch")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(WAIT_S) == 0 and process.stderr.read() == ""


def test_ctrl_c_flushes(fake: FakeDaemon, mel_file: Path) -> None:
    np.save(mel_file, np.zeros((10_000, 80), np.float32))  # two minutes of speech
    process = start(fake.endpoint, "send", str(mel_file), "--sink", "null", "--pace", "realtime", "--chunk", "2")
    fake.wait_for(lambda: bool(fake.of_type(wire.Mel)))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130 and "Traceback" not in err
    assert fake.of_type(wire.Flush) and not fake.of_type(wire.End)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["send", "none.wav"], 2, "none.wav: no such file"),
        (["send", "pyproject.toml"], 2, "expected one of .wav"),
        (["say", "x", "--espeak-voice", "klingon-x"], 2, "klingon-x"),
        (
            ["say", "x", "--tts", "festival"],
            2,
            "'festival' names nothing that speaks; expected one of espeak-ng, hibari",
        ),
        (["say", "x", "--speed", "9"], 2, "expected a factor from 0.3 to 3"),
        (["say", "x", "--sink", "loud"], 2, "open.sinks is ['loud']"),
        (["say", "x", "--voice", "bass"], 1, "there is no voice bass; ready voices: glow"),
        (["say", "x", "--chunk", "0"], 2, "whole number >= 1"),
        (["--timeout", "nan", "status"], 2, "expected seconds > 0 and < 3600, got 'nan'"),
        (["sing"], 2, "invalid choice"),
        (["top", "--telemetry", "nonsense"], 1, "cannot connect to nonsense"),
    ],
)
def test_error_is_one_line_and_a_status(fake: FakeDaemon, words: list[str], code: int, said: str) -> None:
    got, out, err = glowctl(fake.endpoint, *words)
    assert (got, out) == (code, "") and said in err
    assert len(err.splitlines()) == 1 or err.startswith("usage:")


def test_no_daemon_is_one_line(socket_dir: Path) -> None:
    for words in (["status"], ["top", "--telemetry", f"ipc://{socket_dir}/t.ipc", "-n", "1"]):
        code, _, err = glowctl(f"ipc://{socket_dir}/none.ipc", "--timeout", "0.2", *words)
        assert code == 1 and "start one with: glowd" in err and len(err.splitlines()) == 1


HEAVY = ("torch", "librosa", "numba", "scipy", "sounddevice", "soundfile", "rich")


@pytest.mark.parametrize("module", ["", ".client", ".aio", ".cli.glowctl", ".cli.demo"])
def test_import_of_a_client_loads_no_heavy_package(module: str) -> None:
    code = (
        f"import sys, glowd.clients{module}; from glowd.clients import Client; print({{*{HEAVY}}} & {{*sys.modules}})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_saved_mel_loads_no_heavy_package(mel_file: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from glowd.clients.cli.mel_sources import mel_of_file
from glowd.flow.mel import MelFormat
assert mel_of_file(Path({str(mel_file)!r}), MelFormat()).shape == (50, 80)
print([m for m in {HEAVY} if m in sys.modules])"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


def test_unknown_name_of_clients_lists_the_known_ones() -> None:
    from glowd import clients

    with pytest.raises(AttributeError, match="it has: AsyncClient, Client, GlowdError"):
        clients.Klient  # noqa: B018


@pytest.mark.parametrize(
    ("module", "package", "words"),
    [("soundfile", "soundfile", ["send", "x.wav"]), ("zmq", "pyzmq", ["status"]), ("numpy", "numpy", ["status"])],
)
def test_missing_package_is_named_with_its_install_command(
    fake: FakeDaemon, tmp_path: Path, module: str, package: str, words: list[str]
) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; import glowd.clients.cli as cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", program, "--endpoint", fake.endpoint, *words]
    process = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=WAIT_S)
    assert (process.returncode, process.stdout) == (1, "")
    assert f"needs the package {package}," in process.stderr and process.stderr.count("\n") == 1
    assert process.stderr.endswith(f"{sys.executable} -m pip install {package}\n")
    assert not fake.of_type(wire.Open)
