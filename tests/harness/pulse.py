"""A private PulseAudio server, with sinks that discard their audio, and recorders of what is played there.

For tests and soaks: `with PulseServer(directory) as pulse: pulse.add_sink("glow")`; processes started with `pulse.env`
see a PortAudio device named "pulse"; `with pulse.record("glow") as heard: ...; heard.samples()` is what it played.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tests.harness.waiting import until

RATE_HZ = 22_050
DEVICE = "pulse"
SETTINGS = "rlimit-rttime = -1\n"
"""Else the kernel kills a server at real-time priority that has not waited for 0.2 s, as one that did not get its processor."""

Samples = NDArray[np.float32]


class Recording:
    """A recorder of a sink, running until the end of its `with`."""

    def __init__(self, path: Path, process: "subprocess.Popen[bytes]", rate_hz: int) -> None:
        self.path, self.process, self.rate_hz = path, process, rate_hz

    def samples(self) -> Samples:
        """The recording so far, [T] at `rate_hz`."""
        data = self.path.read_bytes()
        return np.frombuffer(data[: len(data) // 4 * 4], np.float32)

    def after(self, seconds: float) -> Samples:
        """The recording when it has grown by this much."""
        end_bytes = self.path.stat().st_size + round(seconds * self.rate_hz) * 4
        until(lambda: self.path.stat().st_size >= end_bytes, f"{seconds:g} s more of the recording")
        return self.samples()


class PulseServer:
    """A server in `directory`, with its own socket, without hardware and without a user's settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "PULSE_SERVER": f"unix:{directory}/native",
            "PULSE_RUNTIME_PATH": str(directory),
            "PULSE_STATE_PATH": str(directory),
            "PULSE_COOKIE": str(directory / "cookie"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._sinks: dict[str, str] = {}
        self._recordings = 0

    def start(self) -> None:
        """Start the server, without sinks, and wait until it answers."""
        (self.directory / "native").unlink(missing_ok=True)
        settings = self.directory / "server.conf"
        settings.write_text(SETTINGS)
        self._process = subprocess.Popen(
            [
                *(
                    "pulseaudio",
                    "-n",
                    "--daemonize=no",
                    "--use-pid-file=no",
                    "--exit-idle-time=-1",
                    "--log-level=error",
                ),
                f"--load=module-native-protocol-unix socket={self.directory}/native auth-anonymous=1",
            ],
            env={**self.env, "PULSE_CONFIG": str(settings)},
            stderr=subprocess.DEVNULL,
        )
        _request_realtime_priority(self._process)
        try:
            until(self._answers, "pulseaudio's first answer")
        except BaseException:
            self.kill()
            raise
        _request_realtime_priority(self._process)  # as it started, it gave its first thread an ordinary priority

    def _answers(self) -> bool:
        return subprocess.run(["pactl", "info"], env=self.env, capture_output=True).returncode == 0

    def kill(self) -> None:
        """End the server at once, with everything in it."""
        assert self._process
        self._process.kill()
        self._process.wait()
        self._sinks.clear()

    def restart(self, sink: str) -> None:
        """End the server and start a new one with one sink."""
        self.kill()
        self.start()
        self.add_sink(sink)

    def add_sink(self, name: str, rate_hz: int = RATE_HZ) -> None:
        """Add a 16-bit sink that discards its audio; the first one is the default."""
        self._sinks[name] = self._control("load-module", "module-null-sink", f"sink_name={name}", f"rate={rate_hz}")

    def remove_sink(self, name: str) -> None:
        """Remove the sink, even while something plays there."""
        self._control("unload-module", self._sinks.pop(name))

    def suspend(self, name: str, suspended: bool) -> None:
        """Stop the sink from taking audio, or let it take audio again."""
        self._control("suspend-sink", name, str(int(suspended)))

    @contextmanager
    def record(self, name: str, rate_hz: int = RATE_HZ) -> Iterator[Recording]:
        """Record what the sink plays; it is recording when the block begins."""
        self._recordings += 1
        path = self.directory / f"recording-{self._recordings}.f32"
        with path.open("wb") as file:
            command = ["parec", "-d", f"{name}.monitor", f"--rate={rate_hz}", "--channels=1", "--format=float32le"]
            process = subprocess.Popen([*command, "--latency-msec=20"], env=self.env, stdout=file)
        _request_realtime_priority(process)
        try:
            until(lambda: path.stat().st_size, f"a first sample from {name}")
            yield Recording(path, process, rate_hz)
        finally:
            process.kill()
            process.wait()

    def _control(self, *command: str) -> str:
        return subprocess.run(
            ["pactl", *command], env=self.env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()


@contextlib.contextmanager
def sound_device() -> Iterator[dict[str, str]]:
    """A PortAudio device named pulse that plays to nobody; the environment in which it is found."""
    with tempfile.TemporaryDirectory() as directory, PulseServer(Path(directory)) as server:
        server.add_sink("glow")
        yield server.env


def _request_realtime_priority(process: "subprocess.Popen[bytes]") -> None:
    """So that a sound server or a recorder does not wait behind the tests around it. Best effort."""
    with contextlib.suppress(OSError):  # needs a privilege
        os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(5))
