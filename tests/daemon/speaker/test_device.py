"""What PortAudioOutput asks of PortAudio, and what it says when that is refused."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glowd.daemon.config import Speaker
from glowd.daemon.speaker import device
from glowd.daemon.speaker.device import DeviceError, PortAudioOutput
from tests.daemon.speaker.signals import noise


class PortAudioError(Exception):
    """Stands for sounddevice's."""


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


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice({(22_050, 1)})
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


@pytest.mark.parametrize("wanted", ["", "1", "loud", "loudspeaker"])
def test_a_device_is_found_by_default_by_number_and_by_name(module: FakeSoundDevice, wanted: str) -> None:
    output = PortAudioOutput(Speaker(device=wanted, latency_ms=40.0))
    output.open()
    assert (output.name, output.rate_hz, output.latency_ms) == ("loudspeaker", 22_050, 40.0)
    block = noise(220)
    assert output.write(block) is False
    np.testing.assert_array_equal(output._stream.written[0], block)
    assert output.delay_s() == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("takes", "own_hz", "wanted_hz", "rate_hz", "channels"),
    [
        ({(44_100, 1), (48_000, 1)}, 44_100.0, 0, 44_100, 1),
        ({(22_050, 2), (44_100, 1)}, 44_100.0, 0, 22_050, 2),
        ({(48_000, 2)}, 44_100.0, 0, 48_000, 2),
        ({(22_050, 1), (16_000, 1)}, 44_100.0, 16_000, 16_000, 1),
    ],
)
def test_the_best_format_that_the_device_takes_is_chosen(
    module: FakeSoundDevice, takes: set[tuple[int, int]], own_hz: float, wanted_hz: int, rate_hz: int, channels: int
) -> None:
    module.takes, module.devices[1]["default_samplerate"] = takes, own_hz
    output = PortAudioOutput(Speaker(rate_hz=wanted_hz))
    output.open()
    asked = output._stream.asked
    assert (asked["samplerate"], asked["channels"]) == (rate_hz, channels)
    for start in range(0, 22_000, 220):
        output.write(noise(22_000)[start : start + 220])
    written = np.concatenate(output._stream.written)
    assert written.dtype == np.float32
    if rate_hz == 22_050:
        assert len(written) == 22_000 * channels
    else:
        assert output.latency_ms == pytest.approx(60 + 10.9, abs=0.2)
        assert output.delay_s() == pytest.approx(0.0709, abs=0.0002)
        assert len(written) / channels == pytest.approx(22_000 * rate_hz / 22_050, abs=2)
    if channels == 2:
        np.testing.assert_array_equal(written[::2], written[1::2])


def test_a_resampled_tone_is_the_tone(module: FakeSoundDevice) -> None:
    module.takes = {(48_000, 1)}
    output = PortAudioOutput(Speaker(rate_hz=48_000))
    output.open()
    tone = np.sin(2 * np.pi * 1000 * np.arange(22_000) / 22_050).astype(np.float32)
    for start in range(0, 22_000, 220):
        output.write(tone[start : start + 220])
    written = np.concatenate(output._stream.written)[2000:]
    phase = 2 * np.pi * 1000 * np.arange(len(written)) / 48_000
    parts = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    level, *_ = np.linalg.lstsq(parts, written.astype(np.float64))
    assert np.hypot(*level) == pytest.approx(1, abs=1e-3)
    assert np.abs(written - parts @ level).max() < 1e-4


def test_every_opening_but_the_first_looks_for_devices_anew(module: FakeSoundDevice) -> None:
    output = PortAudioOutput(Speaker())
    module._initialized = 2
    for scans in (1, 2, 3):
        output.open()
        assert module.scans == scans
        output.close()
        output.close()
    assert module._initialized == 1


def test_what_goes_wrong_is_said_with_what_to_do(module: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(**settings: Any) -> str:
        with pytest.raises(DeviceError) as caught:
            PortAudioOutput(Speaker(**settings)).open()
        return str(caught.value)

    assert "speaker.device = 'horn' is none of the output devices 1 'loudspeaker'" in refusal(device="horn")
    text = refusal(rate_hz=96_000)
    assert text == "sound device loudspeaker cannot be opened at 96000 Hz, mono or stereo: Invalid sample rate"
    module.devices = module.devices[:1]
    assert refusal() == device.NO_DEVICE
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "apt-get install libportaudio2" in refusal() and "brew install portaudio" in refusal()


def test_a_device_that_is_unplugged_is_lost(module: FakeSoundDevice) -> None:
    output = PortAudioOutput(Speaker())
    output.open()
    output._stream.dead = True
    with pytest.raises(DeviceError, match="loudspeaker is lost: unplugged"):
        output.write(noise(220))
