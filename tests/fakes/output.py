"""A sound device for tests: no PortAudio, no sound."""

import time

from glowd.daemon.speaker.device import DeviceError
from glowd.daemon.speaker.sample_queue import Samples


class FakeOutput:
    """A device made of a list and a clock: it takes samples at `speed` times real time and keeps them.

    `fail` makes the next `open` or `write` raise; `hang` holds `write` until it is cleared; `underflow` makes one `write`
    report an underflow. With `notices` a device that has run dry plays on from the next block, half a buffer of silence ahead,
    and reports the underflow with the one after it, as ALSA does.
    """

    def __init__(self, latency_ms: float = 60.0, speed: float = 1.0) -> None:
        self.name, self.preferred_hz, self.rate_hz, self.latency_ms = "fake", 0, 22_050, latency_ms
        self.fail, self.hang, self.underflow, self.notices = "", False, False, False
        self.blocks: list[Samples] = []
        self.opened = 0
        self._speed, self._full_at_s = speed, 0.0

    def open(self) -> None:
        """See Output."""
        if self.fail:
            raise DeviceError(self.fail)
        self.opened += 1
        self.rate_hz = self.preferred_hz or self.rate_hz
        self._full_at_s = time.monotonic()

    def write(self, block: Samples) -> bool:
        """See Output."""
        while self.hang:
            time.sleep(0.005)
        if self.fail:
            raise DeviceError(self.fail)
        self.blocks.append(block.copy())
        is_dry = self.notices and self._full_at_s < time.monotonic()
        self._full_at_s = time.monotonic() + self.latency_ms / 2000 if is_dry else self._full_at_s
        self._full_at_s += len(block) / self.rate_hz / self._speed
        time.sleep(max(0.0, self._full_at_s - self.latency_ms / 1000 / self._speed - time.monotonic()))
        underflowed, self.underflow = self.underflow, is_dry
        return underflowed

    def delay_s(self) -> float:
        """See Output."""
        return max(0.0, self._full_at_s - time.monotonic())

    def close(self) -> None:
        """See Output."""
