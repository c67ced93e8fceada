"""Speech as a listener of a running daemon hears it: glowd and glowctl as programs, at the pace of speech.

Rules: this room knows no daemon; it only starts the installed programs as a user would, in a run directory of its own, and
says which commands these were. No sound device is needed: the audio comes back over the socket.
"""

import contextlib
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from glowd.flow import checkpoint
from glowd.flow.mel import Floats
from glowd.flow.training.data import read_audio

READY_S = 180.0
STOP_S = 15.0
ANSWER_S = 15
CHUNK_FRAMES = 4
GLOWD = (sys.executable, "-m", "glowd.daemon.app")
GLOWCTL = (sys.executable, "-m", "glowd.clients.cli.glowctl")


class LiveError(ValueError):
    """A daemon that did not start or did not speak. The text has its own last words."""


def settings(voice: str) -> list[str]:
    """The settings of a daemon with one voice and no sound device, as arguments of `glowd`."""
    path = voice if voice == "embedded" else str(checkpoint.resolve(voice).absolute())
    voices = f'voices={{glow={{engine="waveglow", checkpoint={json.dumps(path)}}}}}'
    return ["--set", voices, "--set", "speaker.enabled=false"]


def sending(source: str, out: str, seed: int) -> list[str]:
    """The arguments of `glowctl` that speak a saved mel at the pace of speech into a file."""
    pace = ["--pace", "realtime", "--chunk", str(CHUNK_FRAMES)]
    return ["send", source, *pace, "--sink", "socket", "--seed", str(seed), "--out", out]


def commands(voice: str, seed: int) -> list[str]:
    """What runs, as a user would type it."""
    return [shlex.join(["glowd", *settings(voice)]), shlex.join(["glowctl", *sending("MEL.npy", "SPEECH.wav", seed)])]


@dataclass(frozen=True, slots=True)
class Daemon:
    """A glowd that is ready."""

    endpoint: str
    folder: Path
    environment: dict[str, str]

    def speak(self, mel: Floats, rate_hz: int, seed: int) -> Floats:
        """Send mel [L, M] chunk by chunk at the pace of speech; the samples that came back. Raises LiveError."""
        source, out = self.folder / "sentence.npy", self.folder / "sentence.wav"
        np.save(source, mel)
        command = [
            *GLOWCTL,
            "--endpoint",
            self.endpoint,
            "--timeout",
            str(ANSWER_S),
            *sending(str(source), str(out), seed),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            raise LiveError(f"glowctl send ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
        return read_audio(out, rate_hz)


@contextlib.contextmanager
def running(voice: str) -> Iterator[Daemon]:
    """A daemon with this voice, stopped at the end. Raises LiveError if it does not become ready."""
    with tempfile.TemporaryDirectory(prefix="glowd-live-") as name:
        folder = Path(name)
        environment = os.environ | {"GLOWD_RUN_DIR": str(folder / "run")}
        log = folder / "log"
        with log.open("wb") as logged:
            command = [*GLOWD, "run", *settings(voice)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=logged, text=True, env=environment)
        assert process.stdout is not None, "it is a pipe"
        try:
            yield Daemon(_endpoint(process.stdout, log), folder, environment)
        finally:
            _stop(process)


def _endpoint(output: IO[str], log: Path) -> str:
    """What the line that says ready names. A thread reads, so that a daemon which says nothing is not waited for for ever."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in output:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline_s = time.monotonic() + READY_S
    with contextlib.suppress(queue.Empty):
        while line := lines.get(timeout=max(0.0, deadline_s - time.monotonic())):
            if found := re.match(r"glowd ready .*?endpoint=(\S+)", line):
                return found[1]
    words = log.read_text("utf-8", errors="replace").strip().splitlines()[-3:]
    raise LiveError(f"the daemon did not become ready; its last words: {' / '.join(words) or 'none'}")


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
