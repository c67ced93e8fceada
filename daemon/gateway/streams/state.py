"""The state of one stream, which the three sides of its session share, and how an utterance ends.

Rules: no socket and no clock. Every ending of an utterance is made here, so that each has exactly one: close what it had
open, send the ending, grant the credit of the next utterance.
"""

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.audio_format import AudioFormat
from glowd.daemon.gateway.streams.beginning import AT_FIRST_FRAME, Beginning, GoingOn, run_in
from glowd.daemon.gateway.streams.file_sink import ClaimedFiles
from glowd.daemon.gateway.streams.metrics import Meter
from glowd.daemon.gateway.streams.notices import Notice
from glowd.daemon.gateway.streams.phases import TRANSITIONS, Event, Phase, next_phase
from glowd.daemon.gateway.streams.replies import ReplySender, SessionPorts
from glowd.daemon.gateway.streams.sinks import SinkGroup
from glowd.daemon.gateway.streams.utterance import StreamLimits, Utterance
from glowd.daemon.wire import Code, WireError

STATES = {
    Phase.IDLE: "idle",
    Phase.ENDING: "ending",
    Phase.RENDERED: "ending",
    Phase.FLUSHING: "flushing",
    Phase.SILENCED: "flushing",
    Phase.CLOSED: "closed",
}
"""The states of PROTOCOL.md. While SENDING, the state depends on the audio: see SessionState.state."""


class SessionState:
    """One stream: what its client asked for, its phase, the running utterance and that utterance's sinks."""

    def __init__(
        self,
        asked: wire.Open,
        voice: str,
        rate_hz: int,
        prefill_samples: int,
        limits: StreamLimits,
        ports: SessionPorts,
    ) -> None:
        self.name, self.asked, self.voice, self.rate_hz, self.limits = asked.stream, asked, voice, rate_hz, limits
        self.prefill_samples, self.ports = prefill_samples, ports
        self.audio_format = AudioFormat(asked.audio_rate_hz, asked.audio_dtype)
        self.gain_db, self.paused, self.phase = asked.gain_db, asked.paused, Phase.IDLE
        self.meter, self.sinks = Meter(rate_hz, ports.counts.voice(voice)), SinkGroup()
        self.replies = ReplySender(self.name, rate_hz, ports)
        self.underruns = 0
        """Of the running utterance."""
        self.going_on = GoingOn(
            limits.hop, limits.history_frames, limits.lead_frames, *run_in(rate_hz, asked.audio_rate_hz)
        )
        beginning = self.going_on.beginning(asked, limits.max_frames)
        self.files = ClaimedFiles(ports.recordings, asked.sinks, asked.generation, beginning != AT_FIRST_FRAME)
        self.utterance = self._utterance(asked.generation, ports.new_key(asked.key), beginning)

    def _utterance(self, number: int, key: int, beginning: Beginning = AT_FIRST_FRAME) -> Utterance:
        made = Utterance(number, key, self.limits, self.going_on if self.asked.position_ms else None, beginning)
        if self.ports.held_back():
            made.withhold()
        return made

    # ------------------------------------------------------------------ phase

    def advance(self, event: Event) -> None:
        """Enter the next phase. Raises WrongPhaseError."""
        self.phase = next_phase(self.phase, event)

    def check(self, event: Event, generation: int) -> None:
        """Raises WireError if a message of the client names another generation, or does not fit the phase."""
        if generation != self.utterance.number:
            text = f"generation {generation} is not the running one; that is {self.utterance.number}"
            raise WireError(Code.WRONG_GENERATION, text, self.name)
        if event not in TRANSITIONS[self.phase]:
            what = "is being flushed" if self.phase.is_flushing else "has ended already"
            raise WireError(Code.WRONG_STATE, f"generation {generation} {what}; send nothing more in it", self.name)

    @property
    def state(self) -> str:
        """The state as PROTOCOL.md names it."""
        if self.paused and not (self.phase.is_flushing or self.phase is Phase.CLOSED):
            return "paused"
        return STATES.get(self.phase) or self._playback_state()

    def _playback_state(self) -> str:
        device, made = self.sinks.device, self.utterance.samples_made
        if made == 0 or (device is not None and not device.playing):
            return "priming"
        return "starved" if device is not None and device.delivered_samples == made else "playing"

    def announce(self) -> None:
        """Send the state to the client, if it has changed."""
        self.replies.state(self.state)

    def warn(self, notice: Notice) -> None:
        """Tell the client something about the running utterance, once of each kind."""
        self.replies.warning(self.utterance.number, notice)

    # ---------------------------------------------------------------- endings

    def played(self) -> None:
        """End the utterance: every sink has delivered all of it."""
        self.replies.played(self.utterance.number, self.utterance.samples_made, self.underruns)
        self.meter.ended("played")
        self._next_utterance()

    def flushed(self, last_sample: int) -> None:
        """End the utterance: it was flushed after `last_sample`."""
        self.replies.flushed(self.utterance.number, last_sample, self.utterance.samples_made)
        self.meter.ended("flushed")
        self._next_utterance()

    def fail(self, code: Code, text: str) -> None:
        """End the utterance with a fatal error."""
        self.replies.failed(self.utterance.number, WireError(code, text, self.name))
        self.meter.ended("failed")
        self._next_utterance()

    def close(self) -> None:
        """Close the stream. Its own client has asked for it or is gone; its listeners are sent a `flushed`."""
        if self.phase.has_begun:
            last_sample, made = self.sinks.heard_samples - 1, self.utterance.samples_made
            self.replies.flushed(self.utterance.number, last_sample, made, to_owner=False)
            self.meter.ended("closed")
        self._close_utterance()
        self.files.release()
        self.advance(Event.CLOSE)

    def drop_from_engine(self) -> None:
        """Tell the engine that it need not render the rest."""
        if self.phase.needs_engine:
            self.ports.to_engine(ipc.Drop(key=self.utterance.key))

    def _close_utterance(self) -> None:
        self.drop_from_engine()
        self.sinks.close()

    def _next_utterance(self) -> None:
        self._close_utterance()
        self.advance(Event.CONCLUDE)
        self.utterance = self._utterance(self.utterance.number + 1, self.ports.new_key())
        self.replies.credit(self.utterance.number, self.utterance.granted_frames - self.utterance.frames_in)
        self.announce()
