"""What the sinks of a stream do: they are opened, take audio, deliver it, and report; the device also fades and fails.

Rules: no socket and no clock. What the sinks have delivered decides when credit is granted and when an utterance ends.
"""

from glowd.daemon import ipc
from glowd.daemon.gateway.streams import notices
from glowd.daemon.gateway.streams.audio_format import AudioConverter
from glowd.daemon.gateway.streams.beginning import AT_FIRST_FRAME
from glowd.daemon.gateway.streams.file_sink import FileSink
from glowd.daemon.gateway.streams.phases import Event, Phase
from glowd.daemon.gateway.streams.sinks import AudioChunk, DeviceSink, NullSink, Sink, SocketSink
from glowd.daemon.gateway.streams.state import SessionState
from glowd.daemon.wire import Code, WireError

CLIENT_PAUSE_NS = 300_000_000
"""A client that sends at the pace of speech sends more often than that."""
ENGINE_SLACK_NS = 100_000_000
"""An engine that could have begun with a sample at least this long before the device needed it was late."""
FORGET_FRAMES = 16
"""What a stream does not need any more is freed whenever so much more audio was delivered: for each chunk takes longer."""
SLOW_S = 1.0
"""A client for which more of its audio waits than this reads too slowly."""


class SinkSide:
    """The sinks of a stream's utterance, and the messages of the speaker."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._report_samples = state.asked.position_ms * state.rate_hz // 1000
        self._reported, self._forget_at = -1, 0

    # ------------------------------------------------------------------ audio out

    def open(self) -> bool:
        """Open the sinks of a new utterance. Returns False if one could not be opened; the utterance has failed then."""
        state = self._state
        try:
            for name in dict.fromkeys(state.asked.sinks):
                state.sinks.add(self._sink(name), state.paused)
        except WireError as fault:
            state.fail(fault.code, fault.text)
            return False
        state.underruns, self._reported = state.utterance.beginning.underruns, -1
        self._forget_at = 0
        state.meter.begin()
        self._report()
        return True

    def _sink(self, name: str) -> Sink:
        state, number, heard = self._state, self._state.utterance.number, self._state.utterance.beginning.heard_samples
        kind, _, file = name.partition(":")
        if kind == "device":
            return DeviceSink(state.ports.to_speaker, self._attach_message(), heard)
        if kind == "socket":
            convert = AudioConverter(state.audio_format).convert
            return SocketSink(
                lambda chunk, seq: convert(state.replies.audio(number, chunk, seq)), state.ports.try_owner, heard
            )
        if kind == "file":
            new = state.files.take(file, number, state.utterance.beginning != AT_FIRST_FRAME)
            if new is not None:  # else the lost gateway has completed it
                return FileSink(new, state.rate_hz, heard, state.ports.recordings.charge)
        return NullSink(heard)

    def _attach_message(self) -> ipc.Attach:
        state, asked = self._state, self._state.asked
        cushion_samples = int(state.ports.cushion_ms * state.rate_hz / 1000)
        return ipc.Attach(
            key=state.utterance.key,
            rate_hz=state.rate_hz,
            gain_db=state.gain_db,
            prefill_samples=state.prefill_samples + cushion_samples,
            catch_up=asked.catch_up,
            max_lead_samples=asked.max_lead_ms * state.rate_hz // 1000,
            t_dac_ns=state.utterance.beginning.heard_ns,
            goes_on=state.utterance.beginning != AT_FIRST_FRAME,
            after=state.ports.key_of(asked.after) if asked.after else 0,
        )

    def deliver(self, chunk: AudioChunk) -> bool:
        """Give audio to the sinks and the listeners. Returns False if a sink failed; the utterance has failed then."""
        try:
            self._state.sinks.write(chunk)
        except WireError as fault:
            self._state.fail(fault.code, fault.text)
            return False
        self._state.replies.to_listeners(self._state.utterance.number, chunk)
        return True

    def settle(self) -> None:
        """After a delivery: end the utterance or grant credit, free frames, and announce the state."""
        state = self._state
        state.sinks.pump()
        self._look_at_reader()
        if state.phase is Phase.RENDERED and state.sinks.finished:
            state.played()
            return
        delivered = state.sinks.delivered_samples
        if state.phase.has_begun and not state.phase.is_flushing:
            if delivered >= self._forget_at:
                self._forget_at = delivered + FORGET_FRAMES * state.limits.hop
                state.utterance.forget(delivered, state.sinks.sounded_samples)
            self._report()
        self.grant(delivered)
        state.announce()

    def grant(self, delivered_samples: int) -> None:
        """Grant the credit that is due after so many samples were delivered, unless the peer has sent as much as it may."""
        state = self._state
        if not state.phase.takes_frames or not state.utterance.due_credit(delivered_samples):
            return
        if notice := state.ports.held_back():
            state.warn(notice)
        else:
            state.replies.credit(state.utterance.number, state.utterance.credit(delivered_samples))

    def grant_due(self) -> None:
        """Grant the credit that was held back."""
        self.grant(self._state.sinks.delivered_samples)

    def _look_at_reader(self) -> None:
        """Warn a client that does not read its own audio."""
        state, socket = self._state, self._state.sinks.socket
        if socket is not None and not state.paused:
            waiting_s = (state.utterance.samples_made - socket.delivered_samples) / state.rate_hz
            if waiting_s > SLOW_S:
                state.warn(notices.slow_reader(waiting_s))

    def _report(self) -> None:
        """Tell the client how far the listener is, if it wants to know and that has changed by enough."""
        if not self._report_samples:
            return
        sounded = self._state.sinks.sounded_samples
        if self._reported < 0 or sounded >= self._reported + self._report_samples:
            self.report_position()

    def report_position(self) -> None:
        """Tell the client how far the listener is, if it wants to know."""
        if not self._report_samples:
            return
        state, device = self._state, self._state.sinks.device
        self._reported = sounded = state.sinks.sounded_samples
        t_ns = device.sounded_ns if device is not None and device.sounded_samples == sounded else 0
        state.replies.position(state.utterance, sounded, t_ns, state.underruns)

    def flush(self, event: Event, fade_ms: int) -> None:
        """Barge-in: the device fades out. Without a device that plays, the utterance has ended."""
        state, device = self._state, self._state.sinks.device
        state.drop_from_engine()
        state.advance(event)
        if device is None or device.finished:
            state.flushed(state.sinks.heard_samples - 1)
            return
        device.flush(fade_ms * state.rate_hz // 1000)
        state.announce()

    # ------------------------------------------------------------ from the speaker

    def position(self, message: ipc.Position) -> None:
        """The device has played up to a sample."""
        if device := self._state.sinks.device:
            device.position(message)
            self._state.meter.position(message)
            self.settle()

    def underrun(self, message: ipc.Underrun) -> None:
        """The listener heard a gap: count it, and whose it was."""
        state, cause = self._state, self._cause(message)
        state.meter.underrun(cause, message.missing_samples)
        state.underruns += 1
        missing_ms = 1000 * message.missing_samples / state.rate_hz
        state.warn(notices.gap(cause, missing_ms, message.sample // state.limits.hop))

    def limited(self, message: ipc.Limited) -> None:
        """The mix in which the stream sounds was too loud."""
        state = self._state
        frame = message.sample // state.limits.hop
        state.warn(notices.loud_mix(message.peak, message.streams, state.gain_db, frame))

    def _cause(self, underrun: ipc.Underrun) -> str:
        """The device, if it was gone; the engine, if it could have rendered the sample in time; else the client.

        An engine that was a little late before a long pause of the client did not make that gap.
        """
        if underrun.by_device:
            return "device"
        utterance, missing_ns = self._state.utterance, underrun.missing_samples * 1_000_000_000 // self._state.rate_hz
        pause_ns = utterance.client_pause_ns(underrun.t_ns, underrun.t_ns + missing_ns)
        if pause_ns > max(CLIENT_PAUSE_NS, missing_ns // 2):
            return "client"
        due_ns = utterance.due_ns(underrun.sample)
        return "engine" if due_ns is not None and due_ns + ENGINE_SLACK_NS < underrun.t_ns else "client"

    def played(self, message: ipc.Played) -> None:
        """The device has played everything."""
        if device := self._state.sinks.device:
            device.played(message.samples)
            if self._state.phase.is_flushing:  # it had played everything before it read the flush
                self._state.flushed(message.samples - 1)
            else:
                self.settle()

    def flushed(self, message: ipc.Flushed) -> None:
        """The device has faded out; or it has dropped the utterance, together with the one that it was to follow."""
        state = self._state
        if state.phase.has_begun and not state.phase.is_flushing:
            state.drop_from_engine()
            state.advance(Event.FLUSH_BY_OTHER)
        if state.phase.is_flushing:
            state.flushed(message.last_sample_played)

    def failed(self, text: str) -> None:
        """The speaker has given up the stream."""
        if self._state.phase.has_begun:
            self._state.fail(Code.INTERNAL, f"the speaker gave up the stream: {text}")

    def resume(self) -> None:
        """A speaker that does not know the stream has started: play on where the last one stopped; a flush is over."""
        device = self._state.sinks.device
        if device is not None and self._state.phase.is_flushing:
            self._state.flushed(device.delivered_samples - 1)
        elif device is not None and not device.finished:
            device.attach()

    def device_lost(self, text: str) -> None:
        """The device will not come back. It does not matter once it has played everything; a flush is over."""
        device = self._state.sinks.device
        if device is not None and self._state.phase.is_flushing:
            self._state.flushed(device.delivered_samples - 1)
        elif device is not None and not device.finished:
            self._state.fail(Code.DEVICE_LOST, text)
