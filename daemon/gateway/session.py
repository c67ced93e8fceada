"""A stream from `open` to `close`: what each message of its client, its engine and the speaker does to it.

Rules: no socket and no clock; messages go out through `Outside` (replies.py), time is passed in. A session owns its
generation and the generation's sinks. Nothing it does can fail another session: what its client did wrong becomes a
numbered error here.

    client: mel, end, flush, ...  ->  Session  ->  engine: Start, Frames, Finish, Drop
    client: credit, audio, ...    <-           <-  engine: Pcm, Failed
    speaker: Attach, Pcm, ...     <-           <-  speaker: Position, Underrun, Played, Flushed
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.mel_intake import MelIntake, Notice
from glowd.daemon.gateway.metrics import Meter, stamps_of
from glowd.daemon.gateway.replies import Announcer, Outside
from glowd.daemon.gateway.sinks import DeviceSink, FileSink, NullSink, Outlets, OwnerSink, Piece, Sink
from glowd.daemon.gateway.utterance import Generation, Terms
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message

MAX_PIECE_SAMPLES = 1 << 14
ENGINE_SLACK_NS = 100_000_000
"""A frame that arrived at least this long before the device missed it was there in time: the engine was late."""


class Session:
    """One stream of one client."""

    def __init__(
        self, asked: wire.Open, voice: str, rate_hz: int, prefill_samples: int, terms: Terms, outside: Outside,
        intake: MelIntake,
    ):  # fmt: skip
        self.name, self.asked, self.voice, self.rate_hz, self.terms = asked.stream, asked, voice, rate_hz, terms
        self.outside, self.prefill_samples = outside, prefill_samples
        self.gain_db, self.paused, self.closed, self.flushing = asked.gain_db, False, False, False
        self.intake = intake
        self.meter = Meter(rate_hz)
        self.outlets = Outlets()
        self.begun = self.interrupted = False
        self._underruns = 0
        self._announcer = Announcer(self.name, rate_hz, outside)
        self.generation = Generation(0, outside.new_key(self), terms)

    def opened(self) -> None:
        """The client has been told that the stream is open."""
        for notice in self.intake.notices:
            self._announcer.warning(self.generation.number, notice)

    # ------------------------------------------------------------ from the client

    def mel(self, message: wire.Mel, now_ns: int) -> None:
        """Frames of the client, into the timeline and on to the engine."""
        try:
            self._check_running(message.generation)
            chunk = self.generation.take(message, now_ns, self.intake.convert)
        except WireError as fault:
            self.refuse_mel(fault, message)
            return
        if not self._begin():
            return
        self.meter.frames(now_ns)
        self.outside.to_engine(chunk.message(self.generation.key))
        if self._pass(self.intake.judge(chunk.mel)):  # while the engine works
            self.settle()

    def refuse_mel(self, fault: WireError, mel: wire.Mel | None = None) -> None:
        """A mel that cannot be used, or (None) could not even be decoded, is told and uses nothing; the 17th is fatal.

        One that was under way when its generation ended or was flushed is no fault of the running one.
        """
        if self.flushing or (mel is not None and mel.generation < self.generation.number):
            self._tell_unless_interrupted(fault)
        elif self.generation.refuse(mel):
            self.fail(fault.code, f"{fault.text}; that was one refusal too many")
        else:
            self._announcer.fault(self.generation.number, fault, self.generation.frames_in)

    def end(self, message: wire.End) -> None:
        """The client has no more frames."""
        try:
            self._check_running(message.generation)
            self.generation.end(message)
        except WireError as fault:
            self._tell_unless_interrupted(fault)
            return
        if not self._begin() or not self._pass(self.intake.finish()):
            return
        if self.generation.frames_in:
            self.outside.to_engine(ipc.Finish(key=self.generation.key))
        else:
            self._drop_from_engine()
            self.generation.complete = True
            self._deliver(Piece(0, np.zeros(0, np.float32), True))
        self.settle()

    def flush(self, message: wire.Flush) -> None:
        """Barge-in: nothing of the generation is rendered or sent any more; the device fades. Once is enough."""
        if self.flushing and message.generation == self.generation.number:
            return
        try:
            self._check_running(message.generation)
        except WireError as fault:
            self._announcer.fault(self.generation.number, fault)
            return
        self._flush(message.fade_ms)

    def interrupt(self, fade_ms: int) -> None:
        """Barge-in by somebody else than the stream's client, who may be sending on until it hears of it."""
        if not self.flushing:
            self.interrupted = True
            self._flush(fade_ms)

    def _flush(self, fade_ms: int) -> None:
        self._drop_from_engine()
        device = self.device
        if device is None or device.finished:
            self._flushed((device or self.outlets).delivered_samples - 1)
            return
        self.flushing = True
        device.flush(fade_ms * self.rate_hz // 1000)
        self._announcer.state(self.state)

    def pause(self, paused: bool) -> None:
        """Hold the position in every sink, or go on."""
        self.paused = paused
        self.outlets.pause(paused)
        self.settle()

    def gain(self, gain_db: float) -> None:
        """Volume on the device, now and for later generations."""
        self.gain_db = gain_db
        if self.device:
            self.device.set_gain(gain_db)

    def close(self) -> None:
        """Forget the stream; what was playing is faded out. Its client asked for it, or is gone: listeners are told."""
        if self.begun:
            heard = (self.device or self.outlets).delivered_samples
            self._announcer.flushed(self.generation.number, heard - 1, self.generation.samples_made, to_owner=False)
        self._wind_up()
        self.closed = True

    # ------------------------------------------------------------ from the engine

    def pcm(self, message: ipc.Pcm, now_ns: int) -> None:
        """Samples of the running generation."""
        if self.flushing:
            return
        first_sample = self.generation.samples_made
        try:
            audio = self.generation.made(message)
        except ValueError as error:
            self.fail(Code.INTERNAL, f"the engine broke the timeline: {error}")
            return
        self.meter.rendered(message, len(audio), now_ns)
        stamps = stamps_of(message, now_ns)
        for begin in range(0, max(1, len(audio)), MAX_PIECE_SAMPLES):
            part = audio[begin : begin + MAX_PIECE_SAMPLES]
            last = self.generation.complete and begin + len(part) == len(audio)
            if (len(part) or last) and not self._deliver(Piece(first_sample + begin, part, last, stamps)):
                return
        self.settle()

    def engine_failed(self, code: Code, text: str) -> None:
        """The engine has given the stream up, or is lost; no matter if it has done its part."""
        if self.begun and not self.flushing and not self.generation.complete:
            self.fail(code, text)

    def engine_back(self) -> None:
        """A new engine serves the voice: give it what it needs to go on exactly where the last one stopped."""
        generation = self.generation
        if not self.begun or self.flushing or generation.complete:
            return
        self._start(generation.replay_from)
        for chunk in generation.replay():
            self.outside.to_engine(chunk.message(self.generation.key))
        if generation.ended:
            self.outside.to_engine(ipc.Finish(key=generation.key))

    def move(self, to_engine: Callable[[Message], object]) -> None:
        """Another engine serves the stream from here on; the one before it may be dead, or only hang and come back."""
        self._drop_from_engine()
        self.outside = replace(self.outside, to_engine=to_engine)
        self.engine_back()

    # ----------------------------------------------------------- from the speaker

    def speaker_back(self) -> None:
        """A new speaker knows nothing of the stream: it goes on where the last one stopped; a flush is over."""
        device = self.device
        if device is not None and self.flushing:
            self._flushed(device.delivered_samples - 1)
        elif device is not None and not device.finished:
            device.attach()

    def device_lost(self, text: str) -> None:
        """The device will not come back; no matter if it has done its part. What was to fade has faded."""
        device = self.device
        if device is not None and self.flushing:
            self._flushed(device.delivered_samples - 1)
        elif device is not None and not device.finished:
            self.fail(Code.DEVICE_LOST, text)

    def position(self, message: ipc.Position) -> None:
        """The device has come this far."""
        if device := self.device:
            device.position(message.samples)
            self.meter.heard(message)
            self.settle()

    def underrun(self, message: ipc.Underrun) -> None:
        """The device found nothing: count it, by whose fault it was."""
        arrived_ns = self.generation.arrival_ns(message.sample)
        in_time = arrived_ns is not None and arrived_ns + ENGINE_SLACK_NS < message.t_ns
        self.meter.underrun("engine" if in_time else "client", message.missing_samples)
        self._underruns += 1

    def played(self, message: ipc.Played) -> None:
        """The device has played everything."""
        if device := self.device:
            device.played(message.samples)
            if self.flushing:  # it was at its end before it read of the flush
                self._flushed(message.samples - 1)
            else:
                self.settle()

    def flushed(self, message: ipc.Flushed) -> None:
        """The device has faded out."""
        if self.flushing:
            self._flushed(message.last_sample_played)

    # -------------------------------------------------------------------- state

    @property
    def device(self) -> DeviceSink | None:
        """The generation's device sink, if it has one."""
        return self.outlets.device

    @property
    def delivered_samples(self) -> int:
        """Samples that have left every sink."""
        return self.outlets.delivered_samples

    @property
    def state(self) -> str:
        """One of the words of PROTOCOL.md."""
        if self.closed or self.flushing or self.paused:
            return "closed" if self.closed else "flushing" if self.flushing else "paused"
        if not self.begun:
            return "idle"
        if self.generation.ended:
            return "ending"
        device, made = self.device, self.generation.samples_made
        if made == 0 or (device is not None and not device.playing):
            return "priming"
        return "starved" if device is not None and device.delivered_samples == made else "playing"

    def settle(self) -> None:
        """Draw the consequences of what was delivered: credit, forgotten frames, the ending."""
        self.outlets.pump()
        generation, delivered = self.generation, self.delivered_samples
        if self.begun and not self.flushing:
            if generation.complete and self.outlets.finished:
                self._announcer.played(generation.number, generation.samples_made, self._underruns)
                self._next_generation()
                return
            generation.forget(delivered)
            if (frames := generation.credit(delivered)) > 0:
                self._announcer.credit(generation.number, frames)
        self._announcer.state(self.state)

    def fail(self, code: Code, text: str) -> None:
        """End the generation with a fatal error."""
        self._announcer.failed(self.generation.number, WireError(code, text, self.name))
        self._next_generation()

    # ------------------------------------------------------------------ inside

    def _check_running(self, number: int) -> None:
        if number != self.generation.number:
            text = f"generation {number} is not the running one; that is {self.generation.number}"
            raise WireError(Code.WRONG_GENERATION, text, self.name)
        if self.flushing:
            raise WireError(Code.WRONG_STATE, f"generation {number} is being flushed", self.name)

    def _tell_unless_interrupted(self, fault: WireError) -> None:
        if not (self.interrupted and self.flushing):
            self._announcer.fault(self.generation.number, fault)

    def _pass(self, notices: list[Notice]) -> bool:
        """Tell what is suspicious of the frames; False if the stream is strict, and the generation has failed by it."""
        for notice in notices:
            if self.intake.strict:
                self.fail(Code.UNLIKELY_MEL, f"{notice.text} (the stream is strict)")
                return False
            self._announcer.warning(self.generation.number, notice)
        return True

    def _begin(self) -> bool:
        """Open sinks and engine state at a generation's first message; False if that failed (and was told)."""
        if self.begun:
            return True
        self.begun = True
        try:
            for name in dict.fromkeys(self.asked.sinks):
                self.outlets.add(self._sink(name), self.paused)
        except WireError as fault:
            self.fail(fault.code, fault.text)
            return False
        self._underruns = 0
        self.intake.begin()
        self._announcer.begin()
        self.meter.begin()
        self._start(0)
        return True

    def _start(self, first_frame: int) -> None:
        sigma = max(-1.0, self.asked.sigma)
        self.outside.to_engine(
            ipc.Start(key=self.generation.key, seed=self.asked.seed, first_frame=first_frame, sigma=sigma)
        )

    def _sink(self, name: str) -> Sink:
        kind, _, file = name.partition(":")
        if kind == "device":
            return DeviceSink(self.outside.to_speaker, self.generation.key, self.gain_db, self.prefill_samples)
        if kind == "socket":
            number = self.generation.number
            return OwnerSink(lambda piece: self._announcer.try_owner(number, piece))
        if kind == "file":
            number = self.generation.number
            return FileSink(self.outside.recordings, file if number == 0 else f"{file}-{number}", self.rate_hz)
        return NullSink()

    def _deliver(self, piece: Piece) -> bool:
        """Hand a piece to the sinks and the listeners; False if that ended the generation."""
        try:
            self.outlets.write(piece)
        except WireError as fault:
            self.fail(fault.code, fault.text)
            return False
        self._announcer.to_listeners(self.generation.number, piece)
        return True

    def _flushed(self, last_sample: int) -> None:
        self._announcer.flushed(self.generation.number, last_sample, self.generation.samples_made)
        self._next_generation()

    def _next_generation(self) -> None:
        """The running generation has got its ending: close what it had open, and grant the next one its credit."""
        self._wind_up()
        self.begun = self.flushing = self.interrupted = False
        self.generation = Generation(self.generation.number + 1, self.outside.new_key(self), self.terms)
        self._announcer.credit(self.generation.number, self.generation.granted_frames)
        self._announcer.state(self.state)

    def _drop_from_engine(self) -> None:
        if self.begun and not self.generation.complete:
            self.outside.to_engine(ipc.Drop(key=self.generation.key))

    def _wind_up(self) -> None:
        self._drop_from_engine()
        self.outlets.close()
