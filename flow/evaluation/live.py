"""Renders by a running daemon at the pace of speech, through the programs glowd and glowctl.

Rules: glowd and glowctl run as processes, as a user would start them, in a run directory of their own; the report has their
commands. No sound device is needed: the audio comes back over the socket.
"""

import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glowd.clients.launch import LaunchError, launch
from glowd.flow import checkpoint
from glowd.flow.mel import Floats
from glowd.flow.recordings import read_audio

ANSWER_S = 15
CHUNK_FRAMES = 4
GLOWCTL = (sys.executable, "-m", "glowd.clients.cli.glowctl")


class LiveError(ValueError):
    """A daemon that did not start or did not render. The text has the end of its log."""


def settings(voice: str) -> list[str]:
    """The settings of a daemon with one voice and no sound device, as arguments of `glowd`."""
    path = voice if voice == "embedded" else str(checkpoint.resolve(voice).absolute())
    voices = f'voices={{glow={{engine="waveglow", checkpoint={json.dumps(path)}}}}}'
    return ["--set", voices, "--set", "speaker.enabled=false"]


def sending(source: str, out: str, seed: int) -> list[str]:
    """The arguments of `glowctl` that render a saved mel into a file, at the pace of speech."""
    pace = ["--pace", "realtime", "--chunk", str(CHUNK_FRAMES)]
    return ["send", source, *pace, "--sink", "socket", "--seed", str(seed), "--out", out]


def commands(voice: str, seed: int) -> list[str]:
    """What runs, as a user would type it."""
    return [shlex.join(["glowd", *settings(voice)]), shlex.join(["glowctl", *sending("MEL.npy", "SPEECH.wav", seed)])]


@dataclass(frozen=True, slots=True)
class LiveRenderer:
    """Renders through the daemon at `endpoint`; files are exchanged in `folder`."""

    endpoint: str
    folder: Path

    def render(self, mel: Floats, rate_hz: int, seed: int) -> Floats:
        """Send mel [L, M] in chunks at the pace of speech; the samples [T] that come back. Raises LiveError."""
        source, out = self.folder / "sentence.npy", self.folder / "sentence.wav"
        np.save(source, mel)
        out.unlink(missing_ok=True)  # of the sentence before
        options = ["--endpoint", self.endpoint, "--timeout", str(ANSWER_S)]
        command = [*GLOWCTL, *options, *sending(str(source), str(out), seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LiveError(f"glowctl send ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
        return read_audio(out, rate_hz)


@contextlib.contextmanager
def running(voice: str) -> Iterator[LiveRenderer]:
    """A daemon with this voice, stopped at the end. Raises LiveError if it does not start or does not stop well."""
    try:
        with tempfile.TemporaryDirectory(prefix="glowd-live-") as folder, launch("run", *settings(voice)) as daemon:
            yield LiveRenderer(daemon.endpoint, Path(folder))
    except LaunchError as error:
        raise LiveError(str(error)) from error
