"""The thread that feeds the sound device, so that a device that hangs blocks no other part.

Rules: the thread owns the Output and is the only one to call it; it mixes nothing and knows no stream. The playback loop
owns the rest: it polls `wake`, takes reports, and feeds one block each time the thread asks for one. Both sides talk
through queues only. A device that fails is opened again, without limit, after pauses that grow.
"""

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glowd.daemon.runtime.system import request_realtime_priority
from glowd.daemon.speaker.device import DeviceError, Output
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.wire.liveness import AwakeClock

log = logging.getLogger("glowd")

RETRY_S, RETRY_MAX_S = 0.2, 5.0
HEALTHY_S = 2.0  # a device that worked this long is opened again without delay
STALL_S = 0.35
LONGEST_PASS_S = 0.2  # of the playback loop; what takes longer is an absence of this process, not of the device
FILL_S = 5.0  # no device buffers more silence than this
RATE_WAIT_S = 1.0  # how long the first opening waits to be told which rate suits the voices


@dataclass(frozen=True, slots=True)
class Opened:
    """The device runs, is filled with silence, and asks for a block, or for some, of `block_samples`."""

    name: str
    rate_hz: int
    latency_ms: float
    block_samples: int


@dataclass(frozen=True, slots=True)
class Wrote:
    """The device has taken a block and asks for the next, whose first sample will sound at `t_next_ns`."""

    samples: int
    t_next_ns: int
    underflowed: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no device, for the reason in `text`; the thread tries again."""

    text: str


Report = Opened | Wrote | Lost


class DeviceThread:
    """Feeds an Output from a thread. All methods are for the playback loop."""

    def __init__(self, output: Output, block_ms: float) -> None:
        self._output, self._block_ms = output, block_ms
        self._blocks: queue.SimpleQueue[Samples | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping, self._rate_known = threading.Event(), threading.Event()
        self._calls = 0  # counts the beginnings and the ends of calls of the device: odd while one is under way
        self._clock = AwakeClock(LONGEST_PASS_S)
        self._seen_calls, self._seen_ns = 0, self._clock.read_ns()
        self.wake, self._waker = os.pipe()  # `wake` is readable when there are reports
        os.set_blocking(self.wake, False)
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Start the thread, which opens the device."""
        self._thread.start()

    def prefer(self, rate_hz: int) -> None:
        """Open the device at this rate if it can, 0: at its own. A device that is open stays as it is."""
        self._output.preferred_hz = rate_hz
        self._rate_known.set()

    def feed(self, block: Samples) -> None:
        """Hand over the block that an Opened or Wrote report asked for; it must not change until the next report."""
        self._blocks.put(block)

    def reports(self) -> list[Report]:
        """The reports since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake, 4096):
                pass
        taken = []
        while not self._reports.empty():
            taken.append(self._reports.get())
        return taken

    @property
    def stalled_s(self) -> float:
        """How long the present call of the device has taken, if longer than STALL_S; else 0.0.

        To be read in every pass of the loop: only the time counts in which this process ran.
        """
        calls, now_ns = self._calls, self._clock.read_ns()
        if calls != self._seen_calls:
            self._seen_calls, self._seen_ns = calls, now_ns
        waited_s = (now_ns - self._seen_ns) / 1e9
        return waited_s if calls % 2 and waited_s > STALL_S else 0.0

    def stop(self, timeout_s: float) -> bool:
        """Close the device and end the thread. False: a call of the device hangs, and the thread cannot be ended."""
        self._stopping.set()
        self._rate_known.set()
        self._blocks.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        os.close(self.wake)
        os.close(self._waker)
        return True

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        request_realtime_priority()
        self._rate_known.wait(RATE_WAIT_S)
        retry_s = RETRY_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            if reason := self._use_device():
                self._report(Lost(reason))  # before closing, which takes time on a device that is gone
            self._output.close()
            if time.monotonic() - started_s > HEALTHY_S:
                retry_s = RETRY_S
            self._stopping.wait(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    def _use_device(self) -> str:
        """Open the device and play; returns why it is lost, "" when the thread is to stop."""
        try:
            output = self._output
            with self._calling():
                output.open()
                block_samples = max(1, round(self._block_ms * output.rate_hz / 1000))
                self._fill(block_samples)
            self._report(Opened(output.name, output.rate_hz, output.latency_ms, block_samples))
            self._play()
            return ""
        except DeviceError as error:
            return str(error)
        except Exception as error:  # the thread's edge: whatever a driver's binding raises, the device is opened again
            log.exception("sound device")
            return f"sound device: {type(error).__name__}: {error}"

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """A call of the device is under way, which may hang."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls += 1

    def _fill(self, block_samples: int) -> None:
        """Write silence until a write waits for room: that may take a second of it at first."""
        block, waited_s = np.zeros(block_samples, np.float32), 0.0
        block_s = block_samples / self._output.rate_hz
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
            with self._calling():
                underflowed = self._output.write(block)
            # Read before the clock: a report may be late, but not early (clock.py).
            delay_ns = int(1e9 * self._output.delay_s())
            self._report(Wrote(len(block), time.monotonic_ns() + delay_ns, underflowed))

    def _report(self, report: Report) -> None:
        self._reports.put(report)
        with contextlib.suppress(BlockingIOError):  # a full pipe is readable anyway
            os.write(self._waker, b"R")
