"""Anything that client, engine and speaker can do, in any order, crashes included, against a model that only counts.

The model's engine and speaker check that every message is the next one for them. The value of a sample tells its utterance
and its index, so samples that are lost, repeated, moved or left over from another utterance are found. The phase of the
session is compared with that of the model, and what the model expects to be refused is read from the transition table.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.phases import TRANSITIONS, Event, Phase
from glowd.daemon.gateway.streams.sink_side import FORGET_FRAMES
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Array, Message
from tests.harness.session import FIRST_KEY, HOP, LIMITS, SessionHarness, mel_message, phase_at


def tone(key: int, first: int, samples: int) -> Array:
    """The samples of an utterance: a function of its key and of their index."""
    return ((np.arange(first, first + samples) + 131 * key) % 1009 / 1009).astype(np.float32)


@dataclass
class Rendering:
    """One stream in the model's engine."""

    first_frame: int
    frames_in: int
    done: int
    ended: bool = False
    over: bool = False


@dataclass
class Engine:
    """Accepts frames as an engine does. Raises AssertionError for a message that an engine could not use."""

    streams: dict[int, Rendering] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Start():
                assert message.key not in self.streams and message.key not in self.dropped
                first, lead = message.first_frame, message.lead_frames
                assert lead == min(first, LIMITS.lead_frames)
                assert message.phase == (phase_at(first) if first else -1), "the phase is that of the frame"
                self.streams[message.key] = Rendering(first, first - lead, first)
            case ipc.Frames():
                stream = self.streams[message.key]
                assert message.first_frame == stream.frames_in and not stream.ended
                stream.frames_in += message.frames
            case ipc.Finish():
                self.streams[message.key].ended = True
            case ipc.Drop():
                self.streams.pop(message.key, None)
                self.dropped.add(message.key)

    def ready(self, key: int) -> int:
        stream = self.streams.get(key)
        if stream is None or stream.over:
            return -1
        return stream.frames_in - stream.done - (0 if stream.ended else LIMITS.look_ahead_frames)


@dataclass
class Track:
    """One stream in the model's speaker."""

    begin: int
    end: int
    at: int
    paused: bool = False
    ended: bool = False
    flushing: bool = False


@dataclass
class Speaker:
    """Plays as a speaker does. `heard` counts what was played of each key, over all restarts."""

    tracks: dict[int, Track] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Attach():
                assert message.key not in self.tracks
                # What was played but not reported before a crash is played again; nothing is left out.
                assert message.first_sample <= self.heard.get(message.key, 0)
                self.tracks[message.key] = Track(message.first_sample, message.first_sample, message.first_sample)
            case ipc.Pcm():
                track = self.tracks[message.key]
                assert message.first_sample == track.end and not track.ended
                np.testing.assert_array_equal(message.audio, tone(message.key, track.end, message.samples))
                track.end, track.ended = track.end + message.samples, message.last
            case ipc.Pause() | ipc.Resume():
                self.tracks[message.key].paused = isinstance(message, ipc.Pause)
            case ipc.Flush():
                self.tracks[message.key].flushing = True
            case ipc.Detach():
                self.tracks.pop(message.key, None)


class SessionMachine(RuleBasedStateMachine):
    """The rules are what can happen; the invariants are what PROTOCOL.md promises."""

    harness: SessionHarness

    @initialize(sinks=st.sets(st.sampled_from(["device", "socket", "null"]), min_size=1))
    def begin(self, sinks: set[str]) -> None:
        self.harness, self.sinks = SessionHarness(*sorted(sinks)), sinks
        self.session, self.ports = self.harness.session, self.harness.ports
        self.engine, self.speaker = Engine(), Speaker()
        self._engine_at = self._speaker_at = self._owner_at = 0
        self.granted, self.owner_samples = LIMITS.window_frames, 0
        self.endings, self.errors = list[Message](), list[wire.Error]()
        self._reset()

    def _reset(self) -> None:
        self.seq = self.sent = self.refusals = 0
        self.ended = self.rendered = False
        self.flushing: Phase | None = None

    @property
    def number(self) -> int:
        """The generation that runs."""
        return len(self.endings)

    @property
    def phase(self) -> Phase:
        """The phase, from what was done since the last ending."""
        if self.flushing:
            return self.flushing
        if self.ended:
            return Phase.RENDERED if self.rendered else Phase.ENDING
        return Phase.SENDING if self.sent else Phase.IDLE

    def _refusal(self, event: Event) -> list[Code]:
        """What the transition table refuses now."""
        return [] if event in TRANSITIONS[self.phase] else [Code.WRONG_STATE]

    # ------------------------------------------------------------ deliveries

    def _settle(self) -> None:
        """Let everybody read their messages."""
        for message in self.ports.engine[self._engine_at :]:
            self.engine.take(message)
        for message in self.ports.speaker[self._speaker_at :]:
            self.speaker.take(message)
        new = self.ports.owner[self._owner_at :]
        self._engine_at, self._speaker_at = len(self.ports.engine), len(self.ports.speaker)
        self._owner_at = len(self.ports.owner)
        for message in new:
            self._owner_reads(message)

    def _owner_reads(self, message: Message) -> None:
        match message:
            case wire.Credit():
                assert message.generation == self.number, "credit of another generation"
                self.granted += message.frames
            case wire.Audio():
                assert message.generation == self.number, "audio of another generation"
                assert message.first_sample == self.owner_samples and not message.gap
                expected = tone(FIRST_KEY + self.number, message.first_sample, message.samples)
                np.testing.assert_array_equal(message.payload, expected)
                self.owner_samples += message.samples
            case wire.Error(fatal=False):
                self.errors.append(message)
            case wire.Played() | wire.Flushed() | wire.Error():
                self._ends(message)

    def _ends(self, message: Any) -> None:
        assert message.generation == self.number, "every generation ends once, in order"
        if isinstance(message, wire.Played):
            heard = self.speaker.heard.get(FIRST_KEY + self.number, 0)
            assert self.ended and message.total_samples == self.sent * HOP
            assert "socket" not in self.sinks or self.owner_samples == self.sent * HOP
            assert "device" not in self.sinks or heard == self.sent * HOP
        if isinstance(message, wire.Flushed):
            made = message.last_sample_played + 1 + message.dropped_samples
            assert 0 <= made <= self.sent * HOP
        self.endings.append(message)
        self.granted, self.owner_samples = 0, 0
        self._reset()

    def _new_errors(self) -> list[Code]:
        self._settle()
        codes = [Code(error.code) for error in self.errors]
        self.errors.clear()
        return codes

    # ------------------------------------------------------------- the client

    @rule(frames=st.integers(1, 12))
    def send(self, frames: int) -> None:
        self.session.client.mel(mel_message(self.seq, self.sent, frames, self.number), self.harness.now_ns)
        expected = self._refusal(Event.FRAMES)
        if not expected and self.sent + frames > LIMITS.max_frames:
            expected = [Code.TOO_LONG]
        if not expected and self.sent + frames > self.granted:
            expected = [Code.OVER_CREDIT]
        if expected:
            self._was_refused(expected)
            return
        self.seq, self.sent = self.seq + 1, self.sent + frames
        assert self._new_errors() == []

    def _was_refused(self, expected: list[Code]) -> None:
        endings, silenced = self.number, self.flushing is Phase.SILENCED
        self.refusals += self.flushing is None
        fatal = self.refusals > 16
        codes = self._new_errors()
        if fatal:
            assert codes == [] and self.number == endings + 1
        else:
            assert codes == ([] if silenced else expected)

    @rule(ahead=st.integers(1, 3))
    def send_with_a_gap(self, ahead: int) -> None:
        expected = self._refusal(Event.FRAMES) or [Code.GAP]
        # The same seq again and again: each counts as a refusal.
        self.session.client.mel(mel_message(self.seq, self.sent + ahead, 1, self.number), self.harness.now_ns)
        self._was_refused(expected)

    @precondition(lambda self: self.endings)
    @rule()
    def send_to_the_generation_before(self) -> None:
        self.session.client.mel(mel_message(0, 0, 1, self.number - 1), self.harness.now_ns)
        assert self._new_errors() == ([] if self.flushing is Phase.SILENCED else [Code.WRONG_GENERATION])

    @rule()
    def send_a_mel_that_cannot_be_decoded(self) -> None:
        self.session.client.refuse_mel(WireError(Code.NOT_FINITE, "NaN", "s"))
        self._was_refused([Code.NOT_FINITE])

    @rule()
    def end(self) -> None:
        refusal, silenced = self._refusal(Event.END), self.flushing is Phase.SILENCED
        self.session.client.end(wire.End("s", self.number, self.sent), self.harness.now_ns)
        if not refusal:
            self.ended, self.rendered = True, not self.sent
        assert self._new_errors() == ([] if silenced else refusal)

    @rule(by_owner=st.booleans())
    def flush(self, by_owner: bool) -> None:
        if not self.flushing and (by_owner or self.phase is not Phase.IDLE):
            self.flushing = Phase.FLUSHING if by_owner else Phase.SILENCED
        if by_owner:
            self.session.client.flush(wire.Flush("s", self.number, 4))
        elif self.harness.phase.has_begun:  # what the router asks
            self.session.client.flush_by_other(4)
        assert self._new_errors() == []

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.session.client.pause(paused)
        self._settle()

    @rule(reads=st.booleans())
    def owner_reads(self, reads: bool) -> None:
        self.ports.owner_reads = reads
        self.session.sinks.settle()
        self._settle()

    # ------------------------------------------------------------- the engine

    @rule(limit=st.integers(1, 16))
    def render(self, limit: int) -> None:
        for key in list(self.engine.streams):
            stream, ready = self.engine.streams[key], self.engine.ready(key)
            frames = min(limit, ready)
            if frames < 1 and not (stream.ended and ready == 0):
                continue
            last = stream.ended and stream.done + frames == stream.frames_in
            first, samples = stream.done * HOP, frames * HOP
            stream.done, stream.over = stream.done + frames, last
            message = ipc.Pcm(
                key=key, first_sample=first, samples=samples, last=last, t_gateway_ns=5, t_engine_ns=6, t_start_ns=7,
                t_end_ns=9, batch=1, audio=tone(key, first, samples), frames_done=stream.done, phase=phase_at(stream.done),
            )  # fmt: skip
            self.rendered = self.rendered or last
            self.session.engine.pcm(message, self.harness.now_ns)
            self._settle()

    @rule()
    def engine_restarts(self) -> None:
        self.engine.streams.clear()
        self.session.engine.resume()
        self._settle()

    @rule()
    def stream_moves_to_another_engine(self) -> None:
        self.session.engine.drop()
        self._settle()
        assert all(stream.over for stream in self.engine.streams.values()), "the engine before drops the stream"
        self.engine = Engine()
        self.session.engine.resume()
        self._settle()

    @rule()
    def engine_fails(self) -> None:
        endings, needed = self.number, self.phase.needs_engine
        self.session.engine.failed(Code.ENGINE_LOST, "lost")
        assert self._new_errors() == [] and self.number == endings + needed

    # ------------------------------------------------------------ the speaker

    @rule(limit=st.integers(1, 40))
    def play(self, limit: int) -> None:
        for key, track in list(self.speaker.tracks.items()):
            if track.paused or track.flushing:
                continue
            track.at = min(track.at + limit, track.end)
            self.speaker.heard[key] = max(self.speaker.heard.get(key, 0), track.at)
            if track.ended and track.at == track.end:
                del self.speaker.tracks[key]
                self.session.sinks.played(ipc.Played(key, track.at, self.harness.now_ns))
            else:
                self.session.sinks.position(ipc.Position(key, track.at, self.harness.now_ns))
            self._settle()

    @rule(faded=st.integers(0, 8))
    def fade_ends(self, faded: int) -> None:
        for key, track in list(self.speaker.tracks.items()):
            if track.flushing:
                last = min(track.at + faded, track.end) - 1
                del self.speaker.tracks[key]
                self.session.sinks.flushed(ipc.Flushed(key, last, track.end - last - 1))
                self._settle()

    @rule()
    def speaker_restarts(self) -> None:
        self.speaker.tracks.clear()
        self.session.sinks.resume()
        self._settle()

    @rule()
    def device_is_lost(self) -> None:
        self.session.sinks.device_lost("lost")
        self._settle()
        assert self.speaker.tracks == {}, "nothing is played on a device that is lost"

    # -------------------------------------------------------------- promises

    @invariant()
    def phase_is_that_of_the_model(self) -> None:
        assert self.harness.phase is self.phase

    @invariant()
    def engine_works_only_where_it_is_needed(self) -> None:
        alive = {key for key, stream in self.engine.streams.items() if not stream.over}
        assert alive == ({self.harness.key} if self.phase.needs_engine else set())

    @invariant()
    def speaker_plays_only_the_running_utterance(self) -> None:
        assert set(self.speaker.tracks) <= ({self.harness.key} if self.phase.has_begun else set())

    @invariant()
    def credit_stays_within_the_window(self) -> None:
        delivered = self.session.state.sinks.delivered_samples // HOP
        assert self.sent <= self.granted <= min(delivered + LIMITS.window_frames, LIMITS.max_frames)

    @invariant()
    def kept_frames_are_few(self) -> None:
        assert (
            self.session.state.utterance.kept_frames
            <= LIMITS.window_frames + LIMITS.history_frames + LIMITS.lead_frames + 28 + FORGET_FRAMES
        )

    def teardown(self) -> None:
        """Whatever happened, the utterance can be brought to its end with every sample once, and the stream be closed."""
        if not hasattr(self, "harness"):
            return
        self.owner_reads(True)
        self.pause(False)
        endings = self.number
        if not self._refusal(Event.END):
            self.end()
        for _ in range(200):
            if self.number > endings:
                break
            self.render(16)
            self.play(40)
            self.fade_ends(4)
        assert self.number > endings, "it never ended"
        self.session.state.close()
        self._settle()
        assert self.harness.phase is Phase.CLOSED and self.harness.session.state.state == "closed"


SessionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSessionMachine = SessionMachine.TestCase
