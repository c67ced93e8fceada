"""What the engine of a stream does for it: samples, failures, and going on in another engine.

Rules: no socket and no clock. What an engine sends of an utterance that does not need it any more is ignored.
"""

from collections.abc import Sequence
from dataclasses import replace

from glowd.daemon import ipc
from glowd.daemon.gateway.streams import notices
from glowd.daemon.gateway.streams.metrics import stamps_of
from glowd.daemon.gateway.streams.phases import Event, Phase
from glowd.daemon.gateway.streams.sink_side import SinkSide
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.gateway.streams.state import SessionState
from glowd.daemon.gateway.streams.utterance import MelChunk
from glowd.daemon.wire import Code

MAX_CHUNK_SAMPLES = 1 << 14
LOUD = 1.1
"""Times full scale: what is clipped from here on is heard to be."""


class EngineSide:
    """The messages to and from the engine that renders a stream."""

    def __init__(self, state: SessionState, sinks: SinkSide) -> None:
        self._state, self._sinks = state, sinks

    # -------------------------------------------------------------- to the engine

    def start(self) -> None:
        """Start the utterance in the engine, at its beginning or where another engine must continue."""
        asked, utterance = self._state.asked, self._state.utterance
        mark = utterance.resume_at
        utterance.attempt += 1
        self._state.ports.to_engine(
            ipc.Start(
                key=utterance.key,
                seed=asked.seed,
                first_frame=mark.frame,
                sigma=max(-1.0, asked.sigma),
                lead_frames=mark.frame - utterance.replay_from,
                phase=-1.0 if mark.phase is None else mark.phase,
                attempt=utterance.attempt,
            )
        )

    def send(self, chunk: MelChunk) -> None:
        """Pass frames on."""
        self._state.ports.to_engine(chunk.message(self._state.utterance.key))

    def finish(self) -> None:
        """Tell the engine that no more frames follow."""
        utterance = self._state.utterance
        self._state.ports.to_engine(ipc.Finish(utterance.key, utterance.ended_ns))

    def drop(self) -> None:
        """Tell the engine that another one renders the stream: it may be dead, or hang and come back."""
        self._state.drop_from_engine()

    def resume(self) -> None:
        """Give an engine that does not know the stream what it needs to continue exactly where the last one stopped."""
        if not self._state.phase.needs_engine:
            return
        self.start()
        for chunk in self._state.utterance.replay():
            self.send(chunk)
        if self._state.phase is Phase.ENDING:
            self.finish()

    # ------------------------------------------------------------ from the engine

    def pcm(self, message: ipc.Pcm, now_ns: int) -> None:
        """Deliver samples of the running utterance."""
        state = self._state
        if not state.phase.needs_engine or state.utterance.is_of_earlier_attempt(message):
            return
        first_sample = state.utterance.samples_made
        if state.utterance.goes_on and message.first_sample > first_sample:
            return  # still on its way from before the utterance was lost
        try:
            audio = state.utterance.accept_pcm(message)
            if message.last:
                state.advance(Event.RENDER_LAST)
        except ValueError as error:
            text = f"the engine broke the timeline: {error}"
            if not state.ports.blame_engine(text):
                state.fail(Code.INTERNAL, text)
            return
        state.meter.rendered(message, len(audio), now_ns)
        self._warn_of(message)
        whole = AudioChunk(first_sample, audio, message.last, stamps_of(message, now_ns), state.utterance.arrived)
        for chunk in _chunks(whole):
            if not self._sinks.deliver(chunk):
                return
        self._sinks.settle()

    def _warn_of(self, message: ipc.Pcm) -> None:
        """Tell the client what was done to its sound, or what will be."""
        if not message.silenced and message.peak <= LOUD:
            return
        frame = message.first_sample // self._state.limits.hop
        self._state.warn(notices.silenced(frame) if message.silenced else notices.loud_voice(message.peak, frame))

    def gave_up(self, message: ipc.Failed) -> None:
        """The engine has given up the stream."""
        if not self._state.utterance.is_of_earlier_attempt(message):
            self.failed(Code.INTERNAL, f"the engine gave up the stream: {message.text}")

    def failed(self, code: Code, text: str) -> None:
        """The stream can be rendered nowhere. It does not matter once all samples are rendered."""
        if self._state.phase.needs_engine:
            self._state.fail(code, text)


def _chunks(whole: AudioChunk) -> Sequence[AudioChunk]:
    """It in chunks of at most MAX_CHUNK_SAMPLES; an empty one only where it is the last."""
    if len(whole.audio) <= MAX_CHUNK_SAMPLES:
        return [whole] if len(whole.audio) or whole.last else []
    parts = []
    for begin in range(0, len(whole.audio), MAX_CHUNK_SAMPLES):
        part = whole.audio[begin : begin + MAX_CHUNK_SAMPLES]
        is_last = whole.last and begin + len(part) == len(whole.audio)
        parts.append(replace(whole, first_sample=whole.first_sample + begin, audio=part, last=is_last))
    return parts
