"""The part of the sounddevice module that the daemon uses, without PortAudio."""

from types import SimpleNamespace
from typing import Any

import numpy as np


class PortAudioError(Exception):
    """In place of sounddevice's."""


class FakeStream:
    """A stream that keeps what is written."""

    def __init__(self, **asked: Any) -> None:
        self.asked, self.latency, self.write_available, self.dead = asked, asked["latency"], 0, False
        self.written: list[np.ndarray] = []

    def start(self) -> None:
        pass

    def write(self, data: Any) -> bool:
        if self.dead:
            raise PortAudioError("unplugged")
        self.written.append(data.copy())
        return False

    def abort(self, ignore_errors: bool) -> None:
        self.dead = True

    def close(self, ignore_errors: bool) -> None:
        assert self.dead


class FakeSoundDevice(SimpleNamespace):
    """The part of the sounddevice module that is used: two devices, of which the second takes what `takes` allows."""

    def __init__(self, takes: set[tuple[int, int]], own_hz: float = 44_100.0) -> None:
        super().__init__(PortAudioError=PortAudioError, RawOutputStream=FakeStream, _initialized=1, scans=1)
        self.takes = takes
        self.devices = [
            {"index": 0, "name": "microphone", "max_output_channels": 0, "default_samplerate": 44_100.0},
            {"index": 1, "name": "loudspeaker", "max_output_channels": 2, "default_samplerate": own_hz},
        ]

    def query_devices(self, wanted: int | str | None = None, kind: str = "") -> Any:
        if not kind:
            return self.devices
        if wanted not in (None, 1, "loud", "loudspeaker"):
            raise ValueError(f"No output device matching {wanted!r}")
        return self.devices[1]

    def check_output_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        assert (device, dtype) == (1, "float32")
        if (samplerate, channels) not in self.takes:
            raise PortAudioError("Invalid sample rate")

    def _terminate(self) -> None:
        self._initialized -= 1

    def _initialize(self) -> None:
        self._initialized += 1
        self.scans += 1
