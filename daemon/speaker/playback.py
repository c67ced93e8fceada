"""The loop of the speaker: between the gateway's messages, the mixer and the device's thread.

Rules: one thread owns the link to the gateway and the mixer; only the device's thread calls the device. Played and Flushed
are sent when the device has played the samples, not when they were mixed.

While there is no device, streams hold their position and continue from there when it is back. What was inside the device
when it was lost, at most its latency, is lost. A device that comes back at another rate needs a new mixer; the gateway then
attaches the streams again, as it does for a new process. Messages: ipc.py.
"""

import logging
import time

import zmq

from glowd.daemon import ipc
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.speaker.catch_up import Policy
from glowd.daemon.speaker.clock import DeviceClock
from glowd.daemon.speaker.device_thread import DeviceThread, Lost, Opened, Wrote
from glowd.daemon.speaker.drift import Arrival
from glowd.daemon.speaker.events import Broken, Finished, Flushed, Limited, Progress, Underrun
from glowd.daemon.speaker.link import GatewayLink
from glowd.daemon.speaker.mixer import Mixer, factor
from glowd.daemon.speaker.track import TrackSettings
from glowd.daemon.wire.fields import Message

log = logging.getLogger("glowd")

STEP_MS = 50  # how long the loop sleeps at most
MESSAGES_PER_STEP = 32  # many messages must not delay a block for the device
REPORT_EVERY_S = 1.0
IDLE_BLOCKS = 4
OPENING_S = 5.0  # how long the start waits for the device
FIRST_HZ = 48_000  # of the mixer, until a device is open


class Playback:
    """Plays the streams of the gateway on the device, and reports what was played."""

    def __init__(self, link: GatewayLink, thread: DeviceThread, instance: int) -> None:
        """`instance` identifies this process, so that the gateway notices a restart."""
        self.mixer, self.clock = Mixer(FIRST_HZ), DeviceClock(FIRST_HZ, time.monotonic_ns())
        self.device: Opened | None = None
        """The device, while it works."""
        self.missing_because = "the sound device is being opened"
        """Why there is no device, while there is none."""
        self.settled = False
        """Whether the first attempt to open the device is over."""
        self._link, self._thread, self._instance = link, thread, instance
        self._opened: Opened | None = None  # the device as it was opened last; it may have stalled since
        self._stalled = self._is_timed = self._ran_dry = False
        self._underflows = self._logged_limited = 0
        self._report_at_s = 0.0
        self._poller = zmq.Poller()
        self._poller.register(link.socket, zmq.POLLIN)
        self._poller.register(thread.wake, zmq.POLLIN)

    def step(self) -> None:
        """Wait for something to do, at most STEP_MS, and do it."""
        self._poller.poll(STEP_MS)
        self._serve_device()
        self._receive()
        self._link.send_due()
        if time.monotonic() >= self._report_at_s:
            self._report()

    # ---------------------------------------------------------------- the device

    def _serve_device(self) -> None:
        for report in self._thread.reports():
            self.settled = True
            match report:
                case Opened():
                    self._opened = report
                    self._start_device()
                case Wrote():
                    self._on_wrote(report)
                case Lost():
                    self._lose_device(report.text)
        if self._thread.stalled_s and self.device:
            self._stalled = True
            self._lose_device(f"sound device {self.device.name} accepts no more samples; waiting for it")
        elif self._thread.stalled_s > OPENING_S and not self._stalled:
            self._lose_device("the sound device does not answer; waiting for it")

    def _start_device(self) -> None:
        assert self._opened
        self.device = self._opened
        self._stalled = self._is_timed = self._ran_dry = False
        if self.device.rate_hz != self.mixer.rate_hz:
            self._use_rate(self.device.rate_hz)
        latency_ns = int(1e6 * self.device.latency_ms)
        self.clock.expect(self.device.latency_ms)
        silent = self.clock.reset(self.mixer.mixed_samples, time.monotonic_ns() + latency_ns)
        self.mixer.miss(max(silent, 0))
        log.info("sound device %s at %d Hz, %.0f ms", self.device.name, self.device.rate_hz, self.device.latency_ms)
        self._report_at_s = 0.0
        self._feed()

    def _use_rate(self, rate_hz: int) -> None:
        """Start a new mixer. If there are streams, the gateway is told by a new instance to attach them again."""
        self._instance += bool(self.mixer.keys)
        self.mixer, self.clock = Mixer(rate_hz), DeviceClock(rate_hz, time.monotonic_ns())

    def _on_wrote(self, report: Wrote) -> None:
        if self._stalled:  # it was slow, not lost
            self._start_device()
            return
        jumped = self.clock.update(self.mixer.mixed_samples, report.t_next_ns, report.underflowed)
        self._underflows += report.underflowed
        ran_dry = jumped > 0 and self._is_timed  # before its first report, it was only assumed when samples sound
        if (report.underflowed or ran_dry) and not (self._ran_dry and report.underflowed):
            self.mixer.miss(max(jumped, 1))
        self._ran_dry = ran_dry and not report.underflowed  # the device says so with the next block, if at all
        self._is_timed = True
        self._feed()

    def _feed(self) -> None:
        assert self.device
        blocks = 1 if self.mixer.keys else self._idle_blocks
        block = self.mixer.mix(blocks * self.device.block_samples)
        self._send_events()
        self._thread.feed(block)

    @property
    def _idle_blocks(self) -> int:
        """Blocks of silence at a time while no stream is there: fewer wake-ups, with half a buffer to spare."""
        assert self.device
        half = self.device.latency_ms / 2000 * self.device.rate_hz / self.device.block_samples
        return max(1, min(IDLE_BLOCKS, int(half)))

    def _lose_device(self, reason: str) -> None:
        if reason != self.missing_because or self.device:
            log.warning("%s", reason)
            self._report_at_s = 0.0
        if self.device:
            self.mixer.stop_output()
            self._send_events()
        self.device, self.missing_because = None, reason

    # ---------------------------------------------------------------- the gateway

    def _receive(self) -> None:
        for message in self._link.receive(MESSAGES_PER_STEP):
            try:
                self._handle(message)
            except ValueError as error:  # it does not fit what is played, which goes on: a key or samples come twice
                log.error("rejected a message of the gateway: %s", error)
            except Exception as error:  # the edge between streams: a mistake of ours
                self._give_up(getattr(message, "key", -1), error)
            self._send_events()

    def _give_up(self, key: int, error: Exception) -> None:
        """A stream cannot be played any further; the others go on."""
        log.error("stream %d is given up: %s", key, error, exc_info=error)
        self.mixer.detach(key)
        if key >= 0:
            self._link.send(ipc.Failed(key=key, text=f"{type(error).__name__}: {error}"[:500]))

    def _handle(self, message: Message) -> None:
        match message:
            case ipc.Pcm():
                self.mixer.push(message.key, message.first_sample, message.audio, message.last, message.t_gateway_ns)
                self._note_arrival(message)
            case ipc.Attach():
                self.mixer.attach(message.key, self._track_settings(message), message.goes_on, message.after)
            case ipc.OutputRate():
                self._thread.prefer(message.rate_hz)
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
                self.mixer.orphan_all()
            case _:
                raise ValueError(f"{message.TYPE} is not for the speaker")

    def _note_arrival(self, pcm: ipc.Pcm) -> None:
        if pcm.arrived_ns:
            arrival = Arrival(pcm.arrived_ns, pcm.arrived_first, pcm.arrived_end, pcm.arrived_freely)
            self.mixer.note_arrival(pcm.key, arrival, self.clock.ns(self.mixer.mixed_samples))

    def _track_settings(self, attach: ipc.Attach) -> TrackSettings:
        resumes_ns = self.clock.ns(self.mixer.mixed_samples)
        silent_ns = resumes_ns - attach.t_dac_ns
        return TrackSettings(
            rate_hz=attach.rate_hz,
            gain=factor(attach.gain_db),
            prefill=attach.prefill_samples,
            first_sample=attach.first_sample,
            missing=round(silent_ns * attach.rate_hz / 1e9) if attach.t_dac_ns else None,
            policy=Policy(attach.catch_up),
            max_lead=attach.max_lead_samples,
        )

    def _send_events(self) -> None:
        for event in self.mixer.take_events():
            t_ns = self.clock.ns(event.at)
            match event:
                case Progress():
                    self._link.send(self._position(event, t_ns))
                case Underrun(key, _, sample, missing, by_device):
                    self._link.send(
                        ipc.Underrun(key=key, sample=sample, missing_samples=missing, t_ns=t_ns, by_device=by_device)
                    )
                case Finished(key, _, samples):
                    self._link.send_at(t_ns, ipc.Played(key=key, samples=samples, t_dac_ns=t_ns))
                case Limited(key, _, sample, peak, streams):
                    self._link.send(ipc.Limited(key=key, sample=sample, peak=min(peak, ipc.MAX_PEAK), streams=streams))
                case Broken(key, _, error):
                    self._give_up(key, error)
                case Flushed(key, _, last_sample, dropped):
                    self._link.send_at(t_ns, ipc.Flushed(key=key, last_sample_played=last_sample, dropped=dropped))

    def _position(self, progress: Progress, t_ns: int) -> ipc.Position:
        return ipc.Position(
            key=progress.key,
            samples=progress.sample,
            t_dac_ns=t_ns,
            behind_samples=progress.behind,
            skipped_samples=progress.skipped,
            unheard_ns=max(0, t_ns - time.monotonic_ns()),
            latency_ns=max(0, round(1e9 * (progress.latency_s or 0.0))),
            is_paced=progress.drift_ppm is not None,
            drift_ppm=progress.drift_ppm or 0.0,
        )

    # ---------------------------------------------------------------- reports

    def _report(self) -> None:
        """Send the load and the state of the device, and log its faults: once a second, and when the device changes."""
        self._report_at_s = time.monotonic() + REPORT_EVERY_S
        load = ipc.SpeakerLoad(rss_bytes=rss_bytes(), limited_samples=self.mixer.limited_samples)
        self._link.send(ipc.Load(stats=load))
        self._log_faults()
        if self.device:
            self._link.send(
                ipc.DeviceReady(
                    name=self.device.name[:200], rate_hz=self.device.rate_hz,
                    latency_ms=self.device.latency_ms, instance=self._instance,
                )
            )  # fmt: skip
        elif self.settled:
            self._link.send(ipc.DeviceGone(text=self.missing_because[:1000], instance=self._instance))

    def _log_faults(self) -> None:
        if self._underflows:
            log.warning("the sound device ran out of samples %d times; raise speaker.latency_ms", self._underflows)
        if self.mixer.limited_samples > self._logged_limited:
            log.info("the mix was too loud in %d samples", self.mixer.limited_samples - self._logged_limited)
        self._underflows, self._logged_limited = 0, self.mixer.limited_samples
