"""The thread that feeds the sound device, so that a device that hangs hangs nobody else.

Rules: the thread owns the Output and is the only one to call it; it mixes nothing and knows no stream. The speaker's
loop owns the rest: it polls `wake`, takes reports, and feeds one block each time one is wanted. Both sides talk through
queues only. A device that fails is opened again, for ever, with growing pauses.
"""

import contextlib
import logging
import math
import os
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from glowd.daemon.runtime.system import hurry
from glowd.daemon.speaker.device import RATE_HZ, DeviceError, Output
from glowd.daemon.speaker.track import Samples

log = logging.getLogger("glowd")

RETRY_S, RETRY_MAX_S = 0.2, 5.0
HEALTHY_S = 2.0  # a device that worked this long is tried again at once
STALL_S = 0.35
FILL_S = 5.0  # more silence than this no device swallows


@dataclass(frozen=True, slots=True)
class Opened:
    """The device runs, filled with silence, and wants a block."""

    name: str
    rate_hz: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Wrote:
    """The device has taken a block and wants the next, whose first sample will sound at `t_next_ns`."""

    samples: int
    t_next_ns: int
    dry: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no device, for the reason given; it is being tried again."""

    text: str


Report = Opened | Wrote | Lost


class Pump:
    """Feeds an Output from a thread. All methods are for the speaker's loop."""

    def __init__(self, output: Output, block_samples: int) -> None:
        self._output, self._block_samples = output, block_samples
        self._blocks: queue.SimpleQueue[Samples | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._busy_since_s = 0.0  # when the thread went into the device; 0 while it is out
        self.wake, self._waker = os.pipe()  # `wake` is readable when there are reports
        os.set_blocking(self.wake, False)
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Begin to open the device."""
        self._thread.start()

    def feed(self, block: Samples) -> None:
        """Hand over the block that an Opened or Wrote report asked for; it must not change until the next report."""
        self._blocks.put(block)

    def reports(self) -> list[Report]:
        """What the thread has reported since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake, 4096):
                pass
        taken = []
        while not self._reports.empty():
            taken.append(self._reports.get())
        return taken

    @property
    def stalled_s(self) -> float:
        """How long the device has been opening, or sitting on a block; 0.0 while it works or is closed."""
        since_s = self._busy_since_s
        waited_s = time.monotonic() - since_s
        return waited_s if since_s and waited_s > STALL_S else 0.0

    def stop(self, timeout_s: float) -> bool:
        """Close the device and end the thread. False: it hangs in the device and cannot be ended."""
        self._stopping.set()
        self._blocks.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        os.close(self.wake)
        os.close(self._waker)
        return True

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        hurry()
        retry_s = RETRY_S
        while not self._stopping.is_set():
            started_s = self._busy_since_s = time.monotonic()
            try:
                self._output.open()
                self._fill()
                self._busy_since_s = 0.0
                self._report(Opened(self._output.name, self._output.rate_hz, self._output.latency_ms))
                self._play()
            except DeviceError as error:
                self._busy_since_s = 0.0
                self._report(Lost(str(error)))
            except Exception as error:  # the thread's edge: whatever a driver's binding raises, sound comes back
                self._busy_since_s = 0.0
                log.exception("sound device")
                self._report(Lost(f"sound device: {type(error).__name__}: {error}"))
            self._output.close()
            if time.monotonic() - started_s > HEALTHY_S:
                retry_s = RETRY_S
            self._stopping.wait(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    def _fill(self) -> None:
        """Write silence until the device makes us wait: it may take a second before it does so for the first time."""
        block, waited_s = np.zeros(self._block_samples, np.float32), 0.0
        block_s = self._block_samples / RATE_HZ
        for _ in range(math.ceil(FILL_S / block_s)):
            began_s = time.monotonic()
            self._output.write(block)
            waited_s += time.monotonic() - began_s
            if waited_s > block_s / 2:
                return

    def _play(self) -> None:
        while not self._stopping.is_set():
            block = self._blocks.get()
            if block is None:
                return
            self._busy_since_s = time.monotonic()
            dry = self._output.write(block)
            self._busy_since_s = 0.0
            self._report(Wrote(len(block), time.monotonic_ns() + int(1e9 * self._output.delay_s()), dry))

    def _report(self, report: Report) -> None:
        self._reports.put(report)
        with contextlib.suppress(BlockingIOError):  # the pipe is full: it is readable anyhow
            os.write(self._waker, b"R")
