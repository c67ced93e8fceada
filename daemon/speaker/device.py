"""Sound devices.

Rules: the only file that imports sounddevice, and only when a device is opened, so that a daemon without PortAudio starts.
An Output takes blocks of mono float32 at its own rate through a write that blocks. PortAudio's C code keeps the clock, so no
Python runs where a late return would be heard. An Output has one owner, a thread that may hang in it (device_thread.py).
"""

from typing import Any, Protocol

import numpy as np

from glowd.daemon.config import SpeakerSettings
from glowd.daemon.speaker.sample_queue import Samples

COMMON_HZ = 48_000

INSTALL_PORTAUDIO = (
    "install it: apt-get install libportaudio2 (Debian, Ubuntu), dnf install portaudio (Fedora), brew install portaudio "
    "(macOS). Streams to sockets and files work without it"
)
START_SOUND_SERVER = (
    "start a sound server (PulseAudio or PipeWire, with the ALSA plug-in: apt-get install pulseaudio libasound2-plugins) "
    "or, in a container, mount its socket or /dev/snd. Streams to sockets and files work without it"
)


class DeviceError(Exception):
    """The device cannot be opened, or is lost. `text` says why, `remedy` what to do ("" if nothing is known)."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.text, self.remedy = text, remedy


class PortAudioMissing(DeviceError):
    """The PortAudio library is not installed."""


class Output(Protocol):
    """A sound device. `open`, `write` and `close` belong to one thread."""

    name: str
    preferred_hz: int
    """The rate at which it is opened if it can, set before `open`; 0: its own."""
    rate_hz: int
    latency_ms: float

    def open(self) -> None:
        """Open the device; name, rate_hz and latency_ms are valid from now on. Raises DeviceError."""

    def write(self, block: Samples) -> bool:
        """Write samples [n], float32 at rate_hz; waits for room. True: the device had underflowed. Raises DeviceError."""

    def delay_s(self) -> float:
        """Seconds from now until the next sample that is written will sound. Raises DeviceError."""

    def close(self) -> None:
        """Stop at once; never raises. The output can be opened again."""


class PortAudioOutput:
    """A PortAudio device, at speaker.rate_hz, else at the preferred rate if it can, else at its own."""

    def __init__(self, settings: SpeakerSettings) -> None:
        self.name, self.preferred_hz = settings.device or "default", 0
        self.rate_hz, self.latency_ms = settings.rate_hz or COMMON_HZ, settings.latency_ms
        self._settings, self._channels = settings, 1
        self._sounddevice: Any = None
        self._stream: Any = None

    def open(self) -> None:
        """See Output."""
        module = self._load()
        device = self._find(module)
        self.name = device["name"]
        self._choose_format(module, device)
        try:
            self._stream = module.RawOutputStream(
                device=device["index"], samplerate=self.rate_hz, channels=self._channels, dtype="float32",
                latency=self._settings.latency_ms / 1000, blocksize=0,
            )  # fmt: skip
            self._stream.start()
            self.latency_ms = 1000 * float(self._stream.latency)
        except module.PortAudioError as error:
            raise DeviceError(f"sound device {self.name} cannot be opened: {error}") from error

    def write(self, block: Samples) -> bool:
        """See Output."""
        if self._channels > 1:
            block = np.repeat(block, self._channels)
        try:
            return bool(self._stream.write(np.ascontiguousarray(block, np.float32)))
        except self._sounddevice.PortAudioError as error:
            raise DeviceError(f"sound device {self.name} is lost: {error}") from error

    def delay_s(self) -> float:
        """See Output."""
        try:
            room_s = self._stream.write_available / self.rate_hz
        except self._sounddevice.PortAudioError as error:
            raise DeviceError(f"sound device {self.name} is lost: {error}") from error
        return float(self._stream.latency) - room_s

    def close(self) -> None:
        """See Output."""
        if self._stream is None:
            return
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)
        self._stream = None

    def _load(self) -> Any:
        """sounddevice with a fresh list of devices: PortAudio looks for devices only when it is initialised."""
        try:
            import sounddevice
        except (ImportError, OSError) as error:
            raise PortAudioMissing(f"the PortAudio library is missing ({error})", INSTALL_PORTAUDIO) from error
        if self._sounddevice is None:  # importing it has just initialised PortAudio
            self._sounddevice = sounddevice
            return sounddevice
        try:
            while sounddevice._initialized:
                sounddevice._terminate()
            sounddevice._initialize()
        except sounddevice.PortAudioError as error:
            raise DeviceError(f"PortAudio cannot be initialised: {error}", "restart the sound server") from error
        return sounddevice

    def _find(self, module: Any) -> dict[str, Any]:
        """The device that speaker.device names: by number, by name, by a part of it, or "" for the default."""
        outputs = [device for device in module.query_devices() if device["max_output_channels"] > 0]
        if not outputs:
            raise DeviceError("this machine offers no sound device", START_SOUND_SERVER)
        wanted = self._settings.device
        try:
            number = int(wanted) if wanted.isdecimal() else wanted or None
            found: dict[str, Any] = module.query_devices(number, "output")
            return found
        except (ValueError, module.PortAudioError) as error:
            names = ", ".join(f"{device['index']} {device['name']!r}" for device in outputs)
            raise DeviceError(
                f"speaker.device = {wanted!r} is not one of the output devices {names} ({error})",
                "set it to the number of one, or to a unique part of its name: --set speaker.device=NAME",
            ) from error

    def _choose_format(self, module: Any, device: dict[str, Any]) -> None:
        """Set rate_hz and _channels to the first pair that the device accepts."""
        own_hz, wanted_hz = int(device["default_samplerate"]), self._settings.rate_hz
        rates_hz = [wanted_hz] if wanted_hz else list(dict.fromkeys([self.preferred_hz or own_hz, own_hz, COMMON_HZ]))
        refusal = ""
        for rate_hz, channels in [(rate_hz, channels) for rate_hz in rates_hz for channels in (1, 2)]:
            try:
                module.check_output_settings(device["index"], channels, "float32", samplerate=rate_hz)
            except module.PortAudioError as error:
                refusal = refusal or str(error)
                continue
            self.rate_hz, self._channels = rate_hz, channels
            return
        tried = ", ".join(map(str, rates_hz))
        raise DeviceError(f"sound device {self.name} cannot be opened at {tried} Hz, mono or stereo: {refusal}")
