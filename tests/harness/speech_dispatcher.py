"""A private speech-dispatcher with the module of glowd, and what `spd-say` does with it."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.harness.waiting import WAIT_S, until


@dataclass(frozen=True)
class SpeechDispatcher:
    """A server that runs, and the environment in which its clients find it."""

    env: Mapping[str, str]
    logs: Path

    def spd_say(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run spd-say to its end."""
        command = ["spd-say", *words]
        return subprocess.run(command, env=dict(self.env), capture_output=True, text=True, timeout=WAIT_S, check=False)


class Ssip:
    """A client of speech-dispatcher, by its text protocol."""

    def __init__(self, dispatcher: SpeechDispatcher) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT_S)
        self._socket.connect(dispatcher.env["SPEECHD_ADDRESS"].removeprefix("unix_socket:"))
        self._file = self._socket.makefile("rb")
        for command in ("SET SELF CLIENT_NAME test:test:main", "SET SELF OUTPUT_MODULE glowd"):
            self.ask(command)

    def ask(self, command: str) -> None:
        """Send a command and read its reply. Raises RuntimeError for one that is refused."""
        self._socket.sendall(f"{command}\r\n".encode())
        *_, reply = self.event()
        if not reply.startswith("2"):
            raise RuntimeError(f"speech-dispatcher answers {reply!r} to {command!r}")

    def event(self) -> list[str]:
        """The lines of the next reply or event."""
        lines = [self._file.readline().decode().rstrip()]
        while lines[-1][3:4] == "-":
            lines.append(self._file.readline().decode().rstrip())
        return lines

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def speech_dispatcher(
    directory: Path, *arguments: str, glowd: str, env: Mapping[str, str] | None = None
) -> Iterator[SpeechDispatcher]:
    """A server whose files are all in `directory`, with the module as `glowctl speechd ARGUMENTS` installs it.

    `glowd`: the address of the daemon; `env` adds environment variables.
    """
    places = {name: str(directory / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    environment = {**os.environ, **(env or {}), **places, "SPEECHD_ADDRESS": f"unix_socket:{directory}/speechd.sock"}
    logs = directory / "logs"
    for folder in (*places.values(), str(logs)):
        Path(folder).mkdir()
    install = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", glowd, "speechd", *arguments]
    subprocess.run(install, env=environment, check=True, capture_output=True)
    (directory / "xdg_config_home/speech-dispatcher/speechd.conf").write_text(
        'LogLevel 3\nDefaultModule glowd\nDefaultVolume 100\nSymbolsPreproc "char"\nSymbolsPreprocFile "symbols.dic"\n'
    )
    command = [
        *("speech-dispatcher", "--run-single", "--timeout", "0", "--log-dir", str(logs)),
        *("--communication-method", "unix_socket", "--socket-path", f"{directory}/speechd.sock"),
        *("--pid-file", f"{directory}/pid"),
    ]
    with (
        (logs / "output").open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            until((directory / "speechd.sock").exists, "the socket of speech-dispatcher")
            yield SpeechDispatcher(environment, logs)
        finally:
            server.terminate()
            server.wait(WAIT_S)
