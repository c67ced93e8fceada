"""PortAudioOutput on a fake sounddevice module: what it opens, and its errors."""

import sys
from typing import Any

import numpy as np
import pytest

from glowd.daemon.config import SpeakerSettings
from glowd.daemon.speaker import device
from glowd.daemon.speaker.device import DeviceError, PortAudioOutput
from tests.fakes.sounddevice import FakeSoundDevice
from tests.harness.signals import noise


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice({(44_100, 1)})
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


@pytest.mark.parametrize("wanted", ["", "1", "loud", "loudspeaker"])
def test_device_is_found_by_default_number_or_name(module: FakeSoundDevice, wanted: str) -> None:
    output = PortAudioOutput(SpeakerSettings(device=wanted, latency_ms=40.0))
    output.open()
    assert (output.name, output.rate_hz, output.latency_ms) == ("loudspeaker", 44_100, 40.0)
    block = noise(220)
    assert output.write(block) is False
    np.testing.assert_array_equal(output._stream.written[0], block)
    assert output.delay_s() == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("takes", "preferred_hz", "wanted_hz", "rate_hz", "channels"),
    [
        ({(22_050, 2), (44_100, 1)}, 22_050, 0, 22_050, 2),
        ({(24_000, 1), (44_100, 1)}, 24_000, 0, 24_000, 1),
        ({(44_100, 1), (48_000, 1)}, 22_050, 0, 44_100, 1),
        ({(22_050, 1), (44_100, 1)}, 0, 0, 44_100, 1),
        ({(48_000, 2)}, 22_050, 0, 48_000, 2),
        ({(22_050, 1), (16_000, 1)}, 22_050, 16_000, 16_000, 1),
    ],
)
def test_best_format_that_the_device_accepts_is_chosen(
    module: FakeSoundDevice, takes: set[tuple[int, int]], preferred_hz: int, wanted_hz: int, rate_hz: int, channels: int
) -> None:
    module.takes = takes
    output = PortAudioOutput(SpeakerSettings(rate_hz=wanted_hz))
    output.preferred_hz = preferred_hz
    output.open()
    asked = output._stream.asked
    assert (asked["samplerate"], asked["channels"]) == (rate_hz, channels) and output.rate_hz == rate_hz
    output.write(noise(220))
    (written,) = output._stream.written
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, np.repeat(noise(220), channels))


def test_second_opening_searches_devices_again(module: FakeSoundDevice) -> None:
    output = PortAudioOutput(SpeakerSettings())
    module._initialized = 2
    for scans in (1, 2, 3):
        output.open()
        assert module.scans == scans
        output.close()
        output.close()
    assert module._initialized == 1


def test_refused_device_names_reason_and_remedy(module: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(**settings: Any) -> str:
        with pytest.raises(DeviceError) as caught:
            PortAudioOutput(SpeakerSettings(**settings)).open()
        return str(caught.value)

    assert "speaker.device = 'horn' is not one of the output devices 1 'loudspeaker'" in refusal(device="horn")
    text = refusal(rate_hz=96_000)
    assert text == "sound device loudspeaker cannot be opened at 96000 Hz, mono or stereo: Invalid sample rate"
    module.devices = module.devices[:1]
    assert refusal() == f"this machine offers no sound device; {device.START_SOUND_SERVER}"
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "apt-get install libportaudio2" in refusal() and "brew install portaudio" in refusal()


def test_unplugged_device_is_lost(module: FakeSoundDevice) -> None:
    output = PortAudioOutput(SpeakerSettings())
    output.open()
    output._stream.dead = True
    with pytest.raises(DeviceError, match="loudspeaker is lost: unplugged"):
        output.write(noise(220))
