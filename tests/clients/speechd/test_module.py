"""The module as a process, spoken to as speech-dispatcher does, against the fake daemon."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glowd.daemon import wire
from tests.fakes.daemon import FakeDaemon
from tests.harness.waiting import WAIT_S

UPSTREAM = """
import sys, time, numpy as np
def speak(text, rate=1.0):
    for word in text.split():
        if word == "slow":
            time.sleep(2)
        if word == "fail":
            raise RuntimeError("no")
        yield np.full((round(20 / rate), 80), -4, np.float32)
"""


class Module:
    """The module and the lines that it has written."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def end(self) -> None:
        """End the program, and read what it wrote last."""
        self.process.kill()
        self._reading.join()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def send(self, *lines: str) -> None:
        assert self.process.stdin
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def next(self) -> str:
        return self._lines.get(timeout=WAIT_S)

    def asks(self, *lines: str, replies: int = 1) -> list[str]:
        self.send(*lines)
        return [self.next() for _ in range(replies)]

    def speaks(self, text: str, command: str = "SPEAK") -> None:
        assert self.asks(command, text, ".", replies=2) == ["202 OK RECEIVING MESSAGE", "200 OK SPEAKING"]


@contextmanager
def running(folder: Path, *settings: str) -> Iterator[Module]:
    (folder / "my_words.py").write_text(UPSTREAM)
    (folder / "glowd.conf").write_text("\n".join(['tts = "python:my_words:speak"', *settings]))
    command = [sys.executable, "-m", "glowd.clients.speechd", str(folder / "glowd.conf")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, text=True, stdin=pipe, stdout=pipe) as process:
        module = Module(process)
        try:
            yield module
        finally:
            module.end()


@pytest.fixture
def module(fake: FakeDaemon, tmp_path: Path) -> Iterator[Module]:
    with running(tmp_path, f'endpoint = "{fake.endpoint}"') as found:
        assert found.asks("INIT", replies=2) == ["299-glowd, texts by my_words:speak", "299 OK LOADED SUCCESSFULLY"]
        yield found


def test_message_is_spoken_to_its_end(module: Module, fake: FakeDaemon) -> None:
    module.speaks("<speak>One two.</speak>")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]
    (opened,) = fake.of_type(wire.Open)
    assert (opened.sinks, opened.seed, opened.gain_db, opened.prefill_ms) == (["device"], 0, 0.0, 20)
    assert [end.total_frames for end in fake.of_type(wire.End)] == [40]


def test_marks_between_sentences_are_reported_when_heard(module: Module, fake: FakeDaemon) -> None:
    text = '<speak>One. <mark name="__spd_0"/>Two <mark name="2:3"/>three! <mark name="__spd_1"/><mark name="b"/>Four</speak>'
    module.speaks(text)
    said = [module.next() for _ in range(8)]
    marks = [line for name in ("__spd_0", "__spd_1", "b") for line in (f"700-{name}", "700 INDEX MARK")]
    assert said == ["701 BEGIN", *marks, "702 END"]
    assert [end.total_frames for end in fake.of_type(wire.End)] == [80], "without a gap"


def test_mark_after_a_stop_is_not_reported(module: Module, fake: FakeDaemon) -> None:
    module.speaks('<speak>One. <mark name="__spd_0"/>A slow one. <mark name="__spd_1"/>End.</speak>')
    assert module.next() == "701 BEGIN"
    fake.wait_for(lambda: fake.of_type(wire.Mel))
    module.send("PAUSE")
    said = [module.next()]
    while said[-1] != "704 PAUSE":
        said.append(module.next())
    assert "700-__spd_1" not in said


def test_settings_change_the_next_message(module: Module, fake: FakeDaemon) -> None:
    settings = ("rate=100", "pitch=0", "volume=0", "language=c", "punctuation_mode=none", "synthesis_voice=NULL")
    assert module.asks("SET", *settings, ".", replies=2) == ["203 OK RECEIVING SETTINGS", "203 OK SETTINGS RECEIVED"]
    module.speaks("a", "CHAR")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]
    assert fake.of_type(wire.Open)[0].gain_db == pytest.approx(-6.02, abs=0.01)
    assert [end.total_frames for end in fake.of_type(wire.End)] == [7]


@pytest.mark.parametrize(("command", "event"), [("STOP", "703 STOP"), ("PAUSE", "704 PAUSE")])
def test_message_is_stopped_while_it_plays(module: Module, fake: FakeDaemon, command: str, event: str) -> None:
    fake.auto = False
    module.speaks("word " * 100)
    assert module.next() == "701 BEGIN"
    fake.wait_for(lambda: fake.of_type(wire.Mel))
    assert module.asks(command) == [event]
    fake.wait_for(lambda: fake.of_type(wire.Close))
    assert [flush.fade_ms for flush in fake.of_type(wire.Flush)] == [5]
    module.speaks("Next.")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]


def test_stop_does_not_wait_for_the_upstream(module: Module, fake: FakeDaemon) -> None:
    module.speaks("One slow word")
    assert module.next() == "701 BEGIN"
    fake.wait_for(lambda: fake.of_type(wire.Mel))
    assert module.asks("STOP") == ["703 STOP"]
    module.speaks("Next.")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]
    fake.wait_for(lambda: len(fake.of_type(wire.Close)) == 2)
    spoken = sum(mel.frames for mel in fake.of_type(wire.Mel))
    assert spoken == 40, "nothing of the first message is sent after its stop"


def test_stop_without_a_message_says_nothing(module: Module) -> None:
    module.send("STOP")
    assert module.asks("LIST VOICES", replies=2) == ["200-my_words:speak\ten\tnone", "200 OK VOICE LIST SENT"]


def test_messages_without_words_cannot_be_spoken(module: Module) -> None:
    assert module.asks("SPEAK", "<speak> </speak>", ".", replies=2)[1] == "301 ERROR CANT SPEAK"
    assert module.asks("SPEAK", ".", replies=2)[1] == "301 ERROR CANT SPEAK"


def test_message_waits_for_a_device_that_is_away(module: Module, fake: FakeDaemon) -> None:
    fake.opens_without_device = 2
    module.speaks("One.")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]
    assert len(fake.of_type(wire.Open)) == 3


def test_text_of_any_length_is_spoken_in_utterances(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.limits["max_utterance_s"] = 1  # 86 frames
    with running(tmp_path, f'endpoint = "{fake.endpoint}"') as module:
        module.asks("INIT", replies=2)
        module.speaks("Four words in it. " * 5)
        assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]
    ends = [end.total_frames for end in fake.of_type(wire.End)]
    assert sum(ends) == 5 * 4 * 20 and max(ends) <= 86


def test_message_that_fails_ends(module: Module) -> None:
    module.speaks("One fail")
    assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]


def test_glowd_plays_the_audio_itself(module: Module) -> None:
    begun = "207 OK RECEIVING AUDIO SETTINGS"
    refused = module.asks("AUDIO", "audio_output_method=server", ".", replies=2)
    assert refused == [begun, "303 ERROR INVALID PARAMETER OR VALUE"]
    assert module.asks("AUDIO", "audio_output_method=pulse", ".", replies=2) == [begun, "203 OK AUDIO INITIALIZED"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (("LOGLEVEL", "log_level=3", "."), "203 OK LOGLEVEL SET"),
        (("SET", "rate=1000", "."), "303 ERROR INVALID PARAMETER OR VALUE"),
        (("SET", "rate", "."), "302 ERROR BAD SYNTAX"),
        (("DEBUG ON /tmp/x",), "200 OK DEBUGGING ON"),
        (("LIST VOICES fr",), "304 CANT LIST VOICES"),
        (("SING",), "300 ERR UNKNOWN COMMAND"),
    ],
)
def test_other_commands_are_answered(module: Module, sent: tuple[str, ...], said: str) -> None:
    module.send(*sent)
    replies = [module.next()]
    while " RECEIVING" in replies[-1]:
        replies.append(module.next())
    assert replies[-1] == said


def test_quit_ends_the_module(module: Module) -> None:
    assert module.asks("QUIT") == ["210 OK QUIT"]
    assert module.process.wait(WAIT_S) == 0


def test_daemon_that_is_away_is_said(module: Module, fake: FakeDaemon) -> None:
    fake.stop()
    assert module.asks("SPEAK", "Hello", ".", replies=2)[1] == "301 ERROR CANT SPEAK"
    with FakeDaemon(fake.directory):
        module.speaks("Hello")
        assert [module.next(), module.next()] == ["701 BEGIN", "702 END"]


def test_module_without_a_daemon_gives_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, 'endpoint = "ipc:///nowhere/glowd.ipc"') as module:
        reason, code = module.asks("INIT", replies=2)
    assert "no daemon answers at ipc:///nowhere/glowd.ipc" in reason and code == "399 ERR CANT INIT MODULE"


def test_module_with_a_wrong_file_gives_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, "loudness = 3") as module:
        assert "loudness" in module.next() and module.next() == "399 ERR CANT INIT MODULE"
