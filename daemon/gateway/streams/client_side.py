"""What the client of a stream does to it: frames, end, flush, pause, gain, close.

Rules: no socket and no clock. A message that cannot be used becomes a numbered error for the client, and the stream
continues; only the 17th refused mel of an utterance ends it.
"""

import numpy as np

from glowd.daemon import wire
from glowd.daemon.gateway.streams.engine_side import EngineSide
from glowd.daemon.gateway.streams.mel_intake import MelIntake
from glowd.daemon.gateway.streams.notices import Notice
from glowd.daemon.gateway.streams.phases import Event, Phase
from glowd.daemon.gateway.streams.sink_side import SinkSide
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.gateway.streams.state import SessionState
from glowd.daemon.wire import Code, WireError


class ClientSide:
    """The messages of a stream's client."""

    def __init__(self, state: SessionState, engine: EngineSide, sinks: SinkSide, intake: MelIntake) -> None:
        self._state, self._engine, self._sinks, self._intake = state, engine, sinks, intake

    def opened(self) -> None:
        """The client has been sent `opened`: tell it what its mel format costs, and begin with what is to go on."""
        for notice in self._intake.notices:
            self._state.replies.warning(self._state.utterance.number, notice)
        if self._state.asked.key and self._begin(Event.FRAMES):
            self._state.announce()

    def mel(self, message: wire.Mel, now_ns: int) -> None:
        """Accept frames and pass them on to the engine."""
        state = self._state
        try:
            state.check(Event.FRAMES, message.generation)
            chunk = state.utterance.take(message, now_ns, self._intake.convert)
        except WireError as fault:
            self.refuse_mel(fault, message)
            return
        is_first = state.phase is Phase.IDLE
        if not self._begin(Event.FRAMES):
            return
        state.meter.frames(now_ns)
        self._engine.send(chunk)
        state.ports.took(len(chunk.mel))
        if self._pass(self._intake.judge(chunk.mel)):  # while the engine works
            if state.limits.whole_utterance:  # of others, what is delivered decides
                self._sinks.grant(state.sinks.delivered_samples)
            if is_first:
                state.announce()

    def refuse_mel(self, fault: WireError, mel: wire.Mel | None = None) -> None:
        """Reject a mel (None: it could not be decoded). It uses no credit; after MAX_REFUSALS the utterance fails.

        A mel that was sent before its utterance ended or was flushed does not count against the running one.
        """
        state = self._state
        if state.phase.is_flushing or (mel is not None and mel.generation < state.utterance.number):
            self._report(fault)
        elif state.utterance.refuse(mel):
            state.fail(fault.code, f"{fault.text}; that was one refusal too many")
        else:
            state.replies.fault(state.utterance.number, fault, state.utterance.frames_in)

    def end(self, message: wire.End, now_ns: int) -> None:
        """The client has no more frames."""
        state = self._state
        try:
            state.check(Event.END, message.generation)
            state.utterance.end(message, now_ns)
        except WireError as fault:
            self._report(fault)
            return
        if not self._begin(Event.END) or not self._pass(self._intake.finish()):
            return
        if state.utterance.frames_in:
            self._engine.finish()
        else:
            self._end_empty()
        self._sinks.settle()

    def _end_empty(self) -> None:
        """An utterance without frames has one empty chunk of audio, and needs no engine."""
        self._state.drop_from_engine()
        self._state.advance(Event.RENDER_LAST)
        self._sinks.deliver(AudioChunk(0, np.zeros(0, np.float32), True))

    def flush(self, message: wire.Flush) -> None:
        """Barge-in by the client of the stream. A second flush of the same utterance changes nothing."""
        state = self._state
        if state.phase.is_flushing and message.generation == state.utterance.number:
            return
        try:
            state.check(Event.FLUSH, message.generation)
        except WireError as fault:
            state.replies.fault(state.utterance.number, fault)
            return
        self._sinks.flush(Event.FLUSH, message.fade_ms)

    def flush_by_other(self, fade_ms: int) -> None:
        """Barge-in by another client. The stream's own client is not blamed for what it sends until it learns of it."""
        if not self._state.phase.is_flushing:
            self._sinks.flush(Event.FLUSH_BY_OTHER, fade_ms)

    def pause(self, paused: bool) -> None:
        """Hold the position in every sink, or continue."""
        self._state.paused = paused
        self._state.sinks.pause(paused)
        self._sinks.settle()

    def gain(self, gain_db: float) -> None:
        """Set the volume on the device, for this utterance and later ones."""
        self._state.gain_db = gain_db
        if device := self._state.sinks.device:
            device.set_gain(gain_db)

    def _begin(self, event: Event) -> bool:
        """Enter the next phase; with the first message of an utterance, open its sinks and start it in the engine.

        Returns False if a sink could not be opened; the utterance has failed then.
        """
        is_first = self._state.phase is Phase.IDLE
        self._state.advance(event)
        if is_first and not self._sinks.open():
            return False
        if is_first:
            self._intake.begin()
            self._engine.start()
        return True

    def _pass(self, notices: list[Notice]) -> bool:
        """Tell what is suspicious of the frames. Returns False if the stream is strict: the utterance has failed then."""
        for notice in notices:
            if self._intake.strict:
                self._state.fail(Code.UNLIKELY_MEL, f"{notice.text} (the stream is strict)")
                return False
            self._state.replies.warning(self._state.utterance.number, notice)
        return True

    def _report(self, fault: WireError) -> None:
        if self._state.phase is not Phase.SILENCED:
            self._state.replies.fault(self._state.utterance.number, fault)
