"""Any order of what client, engine and speaker can do, deaths included, against a model that only counts.

The model's engine and speaker believe nothing: they check that every message is the next one for them. The value of a
sample says which generation and which index it is, so what is lost, doubled, moved or left over from the past shows.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Array, Message
from tests.daemon.gateway.session_rig import HOP, TERMS, Rig, mel, phase_at


def tone(key: int, first: int, samples: int) -> Array:
    """The samples of a generation: a function of its key and of their index."""
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
    """Takes frames as an engine does; raises AssertionError for what an engine could not use."""

    streams: dict[int, Rendering] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Start():
                assert message.key not in self.streams and message.key not in self.dropped
                first, lead = message.first_frame, message.lead_frames
                assert lead == min(first, TERMS.lead_frames)
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
        return stream.frames_in - stream.done - (0 if stream.ended else TERMS.look_ahead_frames)


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
    """Plays as a speaker does; `heard` counts what was played of each key, over all its lives."""

    tracks: dict[int, Track] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Attach():
                assert message.key not in self.tracks
                # What was played but not told before a speaker died is played again; nothing is left out.
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

    rig: Rig

    @initialize(sinks=st.sets(st.sampled_from(["device", "socket", "null"]), min_size=1))
    def begin(self, sinks: set[str]) -> None:
        self.rig = Rig(*sorted(sinks))
        self.sinks = sinks
        self.engine, self.speaker = Engine(), Speaker()
        self._engine_at = self._speaker_at = self._owner_at = 0
        self.granted, self.endings = TERMS.window_frames, list[Message]()
        self.owner_samples = 0
        self.errors = list[wire.Error]()
        self._reset()

    def _reset(self) -> None:
        self.seq = self.sent = self.refusals = 0
        self.ended = self.flushing = False

    # ------------------------------------------------------------ deliveries

    def _settle(self) -> None:
        """Let everybody read what was said to them."""
        rig = self.rig
        for message in rig.engine[self._engine_at :]:
            self.engine.take(message)
        for message in rig.speaker[self._speaker_at :]:
            self.speaker.take(message)
        new = rig.owner[self._owner_at :]
        self._engine_at, self._speaker_at, self._owner_at = len(rig.engine), len(rig.speaker), len(rig.owner)
        for message in new:
            self._client_hears(message)

    def _client_hears(self, message: Message) -> None:
        number = len(self.endings)
        match message:
            case wire.Credit():
                if message.generation == number:
                    self.granted += message.frames
                else:
                    raise AssertionError(f"credit of generation {message.generation} in {number}")
            case wire.Audio():
                assert message.generation == number, "audio of another generation"
                assert message.first_sample == self.owner_samples and not message.gap
                np.testing.assert_array_equal(
                    message.payload, tone(self._key(number), message.first_sample, message.samples)
                )
                self.owner_samples += message.samples
            case wire.Error(fatal=False):
                self.errors.append(message)
            case wire.Played() | wire.Flushed() | wire.Error():
                self._ends(message)

    def _key(self, generation: int) -> int:
        return 101 + generation

    def _ends(self, message: Any) -> None:
        assert message.generation == len(self.endings), "every generation ends once, in order"
        if isinstance(message, wire.Played):
            assert self.ended and message.total_samples == self.sent * HOP
            assert "socket" not in self.sinks or self.owner_samples == self.sent * HOP
            assert (
                "device" not in self.sinks
                or self.speaker.heard.get(self._key(message.generation), 0) == self.sent * HOP
            )
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
        number = len(self.endings)
        self.rig.session.mel(mel(self.seq, self.sent, frames, number), self.rig.now_ns)
        if self.flushing or self.ended:
            expected = [Code.WRONG_STATE]
        elif self.sent + frames > TERMS.max_frames:
            expected = [Code.TOO_LONG]
        else:
            expected = [Code.OVER_CREDIT] if self.sent + frames > self.granted else []
        if expected:
            self._was_refused(expected)
            return
        self.seq, self.sent = self.seq + 1, self.sent + frames
        assert self._new_errors() == []

    def _was_refused(self, expected: list[Code]) -> None:
        endings = len(self.endings)
        counted = not self.flushing
        self.refusals += counted
        fatal = self.refusals > 16
        codes = self._new_errors()
        if fatal:
            assert codes == [] and len(self.endings) == endings + 1
        elif not (self.rig.session.interrupted and self.flushing):
            assert codes == expected

    @rule(ahead=st.integers(1, 3))
    def send_with_a_gap(self, ahead: int) -> None:
        number = len(self.endings)
        expected = [Code.WRONG_STATE if self.flushing or self.ended else Code.GAP]
        # The same seq again and again: each is a fault of its own.
        self.rig.session.mel(mel(self.seq, self.sent + ahead, 1, number), self.rig.now_ns)
        self._was_refused(expected)

    @rule()
    def send_to_the_generation_before(self) -> None:
        if self.endings:
            self.rig.session.mel(mel(0, 0, 1, len(self.endings) - 1), self.rig.now_ns)
            if not self.rig.session.interrupted:
                assert self._new_errors() == [Code.WRONG_GENERATION]

    @rule()
    def send_what_cannot_be_decoded(self) -> None:
        self.rig.session.refuse_mel(WireError(Code.NOT_FINITE, "NaN", "s"))
        self._was_refused([Code.NOT_FINITE])

    @precondition(lambda self: not self.ended and not self.flushing)
    @rule()
    def end(self) -> None:
        self.ended = True
        self.rig.session.end(wire.End("s", len(self.endings), self.sent))
        assert self._new_errors() == []

    @precondition(lambda self: not self.flushing)
    @rule(by_the_client=st.booleans())
    def flush(self, by_the_client: bool) -> None:
        self.flushing = True
        endings = len(self.endings)
        if by_the_client:
            self.rig.session.flush(wire.Flush("s", endings, 4))
        elif self.rig.session.begun:
            self.rig.session.interrupt(4)
        else:
            self.flushing = False
        assert self._new_errors() == []

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.rig.session.pause(paused)
        self._settle()

    @rule(reads=st.booleans())
    def owner_reads(self, reads: bool) -> None:
        self.rig.owner_reads = reads
        self.rig.session.settle()
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
            self.rig.session.pcm(message, self.rig.now_ns)
            self._settle()

    @rule()
    def the_engine_dies_and_comes_back(self) -> None:
        self.engine.streams.clear()
        self.rig.session.engine_back()
        self._settle()

    @rule()
    def the_stream_moves_to_another_engine(self) -> None:
        there = list[Message]()
        self.rig.session.move(there.append)
        self._settle()
        assert all(stream.over for stream in self.engine.streams.values()), "the one before it lets go of the stream"
        self.engine, self.rig.engine, self._engine_at = Engine(), there, 0
        self._settle()

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
                self.rig.session.played(ipc.Played(key, track.at, self.rig.now_ns))
            else:
                self.rig.session.position(ipc.Position(key, track.at, self.rig.now_ns))
            self._settle()

    @rule(faded=st.integers(0, 8))
    def the_fade_is_over(self, faded: int) -> None:
        for key, track in list(self.speaker.tracks.items()):
            if track.flushing:
                last = min(track.at + faded, track.end) - 1
                del self.speaker.tracks[key]
                self.rig.session.flushed(ipc.Flushed(key, last, track.end - last - 1))
                self._settle()

    @rule()
    def the_speaker_dies_and_comes_back(self) -> None:
        self.speaker.tracks.clear()
        self.rig.session.speaker_back()
        self._settle()

    # -------------------------------------------------------------- promises

    @invariant()
    def credit_is_never_negative_and_never_more_than_the_window(self) -> None:
        delivered = self.rig.session.delivered_samples // HOP
        assert self.sent <= self.granted <= min(delivered + TERMS.window_frames, TERMS.max_frames)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        held = sum(len(chunk.mel) for chunk in self.rig.session.generation._held)
        assert held <= TERMS.window_frames + TERMS.history_frames + TERMS.lead_frames + 12 + 16

    @invariant()
    def the_engine_keeps_nothing_that_has_ended(self) -> None:
        alive = {key for key, stream in self.engine.streams.items() if not stream.over}
        assert alive <= {self.rig.key}
        assert set(self.speaker.tracks) <= {self.rig.key}

    def teardown(self) -> None:
        """Whatever happened, the utterance can be brought to its end, and everything was heard once."""
        if not hasattr(self, "rig"):
            return
        self.owner_reads(True)
        self.pause(False)
        endings = len(self.endings)
        if not self.ended and not self.flushing:
            self.end()
        for _ in range(200):
            if len(self.endings) > endings:
                break
            self.render(16)
            self.play(40)
            self.the_fade_is_over(4)
        assert len(self.endings) > endings, "it never ended"


SessionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSessionMachine = SessionMachine.TestCase
