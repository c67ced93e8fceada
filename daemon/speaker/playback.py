"""The loop of the speaker: between the gateway's messages, the mixer and the device's thread.

Rules: one thread owns the link to the gateway and the mixer; only the device's thread touches the device. What is told
as done (Played, Flushed) is told when the device has sounded it, not when it was mixed.

While there is no device, streams stand where they stopped and go on from there when it is back; what was inside the
device when it went, at most its latency, is lost. Messages: ipc.py.
"""

import logging
import time
from heapq import heappop, heappush

import zmq

from glowd.daemon import ipc
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.speaker.clock import DeviceClock
from glowd.daemon.speaker.device import RATE_HZ
from glowd.daemon.speaker.device_thread import Lost, Opened, Pump, Wrote
from glowd.daemon.speaker.mixer import Cut, Drained, Mixer, Reached, Starved
from glowd.daemon.wire.codec import WireError
from glowd.daemon.wire.fields import Message

log = logging.getLogger("glowd")


TURN_MS = 50  # how long the loop sleeps at most
MESSAGES_PER_TURN = 32  # a flood of messages must not keep a block from the device
TELL_EVERY_S = 1.0
IDLE_BLOCKS = 4
OPENING_S = 5.0  # how long the start waits for the device


class Speaker:
    """The loop between the gateway, the mixer and the pump."""

    def __init__(self, socket: zmq.Socket[bytes], pump: Pump, block_samples: int) -> None:
        self.mixer, self.clock = Mixer(RATE_HZ, IDLE_BLOCKS * block_samples), DeviceClock()
        self.device: Opened | None = None
        self.gone = "the sound device is being opened"  # why there is no device, where there is none
        self.dry = 0  # how often the device ran out of samples since we last said so
        self.settled = False  # whether the first attempt to open the device is over
        self.stalled = False
        self._limited = 0  # of the mixer's limited_samples, those we have spoken of
        self._socket, self._pump, self._block_samples = socket, pump, block_samples
        self._instance = time.time_ns() // 1000
        self._later: list[tuple[int, int, Message]] = []  # a heap by the time at which a message becomes true
        self._order = 0  # breaks ties in it
        self._tell_at_s = time.monotonic() + TELL_EVERY_S
        self._opened: Opened | None = None
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(pump.wake, zmq.POLLIN)

    def turn(self) -> None:
        """Wait for something to do, at most TURN_MS, and do it."""
        self._poller.poll(TURN_MS)
        self._serve_device()
        self._receive()
        self._tell()

    # ---------------------------------------------------------------- the device

    def _serve_device(self) -> None:
        for report in self._pump.reports():
            self.settled = True
            if isinstance(report, Opened):
                self._opened = report
                self._go_on()
            elif isinstance(report, Wrote):
                self._wrote(report)
            else:
                self._stop(report)
        if self._pump.stalled_s and self.device:
            self.stalled = True
            self._stop(Lost(f"sound device {self.device.name} takes no more sound; waiting for it"))
        elif self._pump.stalled_s > OPENING_S and not self.stalled:
            self._stop(Lost("the sound device does not answer; waiting for it"))

    def _go_on(self) -> None:
        assert self._opened
        self.device, self.stalled = self._opened, False
        latency_ns = int(1e6 * self.device.latency_ms)
        self.clock.reset(self.mixer.mixed_samples, time.monotonic_ns() + latency_ns)
        log.info("sound device %s at %d Hz, %.0f ms", self.device.name, self.device.rate_hz, self.device.latency_ms)
        self._tell_at_s = 0.0
        self._feed()

    def _wrote(self, report: Wrote) -> None:
        if self.stalled:  # it was not gone for good
            self._go_on()
            return
        jumped = self.clock.correct(self.mixer.mixed_samples, report.t_next_ns, report.dry)
        if report.dry:
            self.dry += 1
            self.mixer.miss(max(jumped, 1))
        self._feed()

    def _feed(self) -> None:
        blocks = 1 if self.mixer.keys else self._idle_blocks
        block = self.mixer.mix(blocks * self._block_samples)
        self._tell_events()
        self._pump.feed(block)

    @property
    def _idle_blocks(self) -> int:
        """Blocks of silence at a time while nobody plays: fewer wake-ups, and still half a buffer to spare."""
        assert self.device
        half = self.device.latency_ms / 2000 * RATE_HZ / self._block_samples
        return max(1, min(IDLE_BLOCKS, int(half)))

    def _stop(self, lost: Lost) -> None:
        if lost.text != self.gone or self.device:
            log.warning("%s", lost.text)
            self._tell_at_s = 0.0
        if self.device:
            self.mixer.interrupt()
            self._tell_events()
        self.device, self.gone = None, lost.text

    # ---------------------------------------------------------------- the gateway

    def _receive(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                self._obey(ipc.decode(parts))
            except (WireError, ValueError) as error:  # a fault of ours on either side; the other streams go on
                log.error("refused a message of the gateway: %s", error)
            self._tell_events()

    def _obey(self, message: Message) -> None:
        match message:
            case ipc.Pcm():
                self.mixer.push(message.key, message.first_sample, message.audio, message.last)
            case ipc.Attach():
                self.mixer.attach(message.key, message.gain_db, message.prefill_samples, message.first_sample)
            case ipc.Pause():
                self.mixer.pause(message.key)
            case ipc.Resume():
                self.mixer.resume(message.key)
            case ipc.Gain():
                self.mixer.gain(message.key, message.gain_db)
            case ipc.Flush():
                self.mixer.flush(message.key, message.fade_samples)
            case ipc.Detach():
                self.mixer.detach(message.key)
            case ipc.DetachAll():
                for key in self.mixer.keys:
                    self.mixer.detach(key)
            case _:
                raise ValueError(f"{message.TYPE} is not for the speaker")

    def _tell_events(self) -> None:
        for event in self.mixer.take_events():
            t_ns = self.clock.ns(event.at)
            match event:
                case Reached():
                    self._send(ipc.Position(key=event.key, samples=event.sample, t_dac_ns=t_ns))
                case Starved():
                    self._send(
                        ipc.Underrun(key=event.key, sample=event.sample, missing_samples=event.missing, t_ns=t_ns)
                    )
                case Drained():
                    self._send_at(t_ns, ipc.Played(key=event.key, samples=event.samples, t_dac_ns=t_ns))
                case Cut():
                    flushed = ipc.Flushed(key=event.key, last_sample_played=event.last_sample, dropped=event.dropped)
                    self._send_at(t_ns, flushed)

    def _send_at(self, t_ns: int, message: Message) -> None:
        self._order += 1
        heappush(self._later, (t_ns, self._order, message))

    def _tell(self) -> None:
        """Send what has become true, and once a second how the device is."""
        while self._later and self._later[0][0] <= time.monotonic_ns():
            self._send(heappop(self._later)[2])
        now_s = time.monotonic()
        if now_s < self._tell_at_s:
            return
        self._tell_at_s = now_s + TELL_EVERY_S
        load = ipc.SpeakerLoad(rss_bytes=rss_bytes(), limited_samples=self.mixer.limited_samples)
        self._send(ipc.Load(stats=load))
        self._log_faults()
        if self.device:
            self._send(
                ipc.DeviceReady(
                    name=self.device.name[:200], rate_hz=self.device.rate_hz,
                    latency_ms=self.device.latency_ms, instance=self._instance,
                )
            )  # fmt: skip
        else:
            self._send(ipc.DeviceGone(text=self.gone[:1000], instance=self._instance))

    def _log_faults(self) -> None:
        if self.dry:
            log.warning("the sound device ran dry %d times; a larger speaker.latency_ms helps", self.dry)
        if self.mixer.limited_samples > self._limited:
            log.info("the mix was too loud in %d samples", self.mixer.limited_samples - self._limited)
        self.dry, self._limited = 0, self.mixer.limited_samples

    def _send(self, message: Message) -> None:
        try:
            self._socket.send_multipart(ipc.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            log.debug("no gateway to tell %s", message.TYPE)  # the next one begins anew
