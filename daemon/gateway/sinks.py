"""Where the audio of a generation goes. Every sink counts the samples that have left it, without gaps.

Rules: a sink is fed pieces in order and belongs to one generation of one session. What it has delivered is what the
client gets credit for, so the slowest sink of a stream sets its pace, and nothing is queued without bound.
"""

import contextlib
import wave
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.wire import WireError
from glowd.daemon.wire.fields import Array, Code, Message


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples [n] from `first_sample` on; `last` closes the generation. Stamps name the stages passed so far."""

    first_sample: int
    audio: Array
    last: bool
    stamps: dict[str, int] = field(default_factory=dict)

    @property
    def end_sample(self) -> int:
        """The sample after its last."""
        return self.first_sample + len(self.audio)

    def message(self, stream: str, generation: int, rate_hz: int, seq: int) -> wire.Audio:
        """For clients."""
        return wire.Audio(
            stream=stream,
            generation=generation,
            seq=seq,
            first_sample=self.first_sample,
            samples=len(self.audio),
            rate_hz=rate_hz,
            last=self.last,
            stamps=self.stamps,
            payload=self.audio,
        )


class Sink(Protocol):
    """What a session needs of a sink."""

    delivered_samples: int
    """Samples that have left: heard, sent or written."""
    finished: bool
    """Whether the last piece has left too."""

    def write(self, piece: Piece) -> None:
        """Take the next piece."""

    def pause(self, paused: bool) -> None:
        """Hold the position, or go on."""

    def close(self) -> None:
        """The generation is over, finished or not; nothing more is heard of it."""


class NullSink:
    """Delivers to nobody, at once."""

    def __init__(self) -> None:
        self.delivered_samples, self.finished = 0, False

    def write(self, piece: Piece) -> None:
        """See Sink."""
        self.delivered_samples, self.finished = piece.end_sample, piece.last

    def pause(self, paused: bool) -> None:
        """Nobody listens: there is nothing to hold."""

    def close(self) -> None:
        """Nothing to close."""


class FileSink:
    """A 16-bit WAV file. It has its name when it is whole; until then, and after a flush, it ends in `.part`."""

    def __init__(self, directory: Path, name: str, rate_hz: int) -> None:
        self.delivered_samples, self.finished = 0, False
        self.path = directory / f"{name}.wav"
        self._part = self.path.with_suffix(".wav.part")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                raise FileExistsError(self.path)
            self._file = self._part.open("xb")  # nobody's file is written over, and two streams never share one
        except FileExistsError as error:
            text = f"file sink: {name}.wav exists already, or a recording of that name was not finished"
            raise WireError(Code.SINK_UNAVAILABLE, f"{text}; choose another name") from error
        except OSError as error:
            raise WireError(Code.SINK_UNAVAILABLE, f"file sink: cannot write {directory}: {error.strerror}") from error
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115  (closed by `close`)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(rate_hz)

    def write(self, piece: Piece) -> None:
        """See Sink. Raises WireError if the disk refuses."""
        try:
            self._wave.writeframes((np.clip(piece.audio, -1, 1) * 32767).round().astype("<i2").tobytes())
            if piece.last:
                self._wave.close()
                self._file.close()
                self._part.rename(self.path)
        except OSError as error:
            raise WireError(Code.SINK_UNAVAILABLE, f"file sink: {self.path.name}: {error.strerror}") from error
        self.delivered_samples, self.finished = piece.end_sample, piece.last

    def pause(self, paused: bool) -> None:
        """A file has no time: there is nothing to hold."""

    def close(self) -> None:
        """See Sink."""
        for file in (self._wave, self._file):
            with contextlib.suppress(OSError):  # the disk is full: what could be written stands in the .part file
                file.close()


class OwnerSink:
    """The stream's own client. Loses nothing: what its socket cannot take yet waits here, and credit stops."""

    def __init__(self, try_send: Callable[[Piece], bool]) -> None:
        self.delivered_samples, self.finished = 0, False
        self._try_send, self._paused = try_send, False
        self._waiting: deque[Piece] = deque()

    def write(self, piece: Piece) -> None:
        """See Sink."""
        self._waiting.append(piece)
        self.pump()

    def pump(self) -> None:
        """Send what can be sent."""
        while self._waiting and not self._paused and self._try_send(self._waiting[0]):
            piece = self._waiting.popleft()
            self.delivered_samples, self.finished = piece.end_sample, piece.last

    def pause(self, paused: bool) -> None:
        """See Sink."""
        self._paused = paused
        self.pump()

    def close(self) -> None:
        """See Sink."""
        self._waiting.clear()


class DeviceSink:
    """The speaker. Holds what was not played yet, so that a speaker that starts anew can go on."""

    def __init__(self, send: Callable[[Message], object], key: int, gain_db: float, prefill_samples: int) -> None:
        self.delivered_samples, self.finished = 0, False
        self.key, self.gain_db, self.prefill_samples = key, gain_db, prefill_samples
        self.playing = False
        self._send, self._paused = send, False
        self._held: deque[Piece] = deque()
        self.attach()

    def attach(self) -> None:
        """Begin, or begin again after the speaker was lost, with everything that was not played."""
        self._send(
            ipc.Attach(
                key=self.key,
                gain_db=self.gain_db,
                prefill_samples=self.prefill_samples,
                first_sample=self.delivered_samples,
            )
        )
        if self._paused:
            self._send(ipc.Pause(key=self.key))
        for piece in self._held:
            begin = max(0, self.delivered_samples - piece.first_sample)
            self._forward(Piece(piece.first_sample + begin, piece.audio[begin:], piece.last, piece.stamps))

    def write(self, piece: Piece) -> None:
        """See Sink."""
        self._held.append(piece)
        self._forward(piece)

    def _forward(self, piece: Piece) -> None:
        self._send(
            ipc.Pcm(
                key=self.key,
                first_sample=piece.first_sample,
                samples=len(piece.audio),
                last=piece.last,
                audio=piece.audio,
            )
        )

    def position(self, samples: int) -> None:
        """The speaker has played up to (not including) sample `samples`."""
        self.playing = True
        self.delivered_samples = max(self.delivered_samples, samples)
        while self._held and self._held[0].end_sample <= self.delivered_samples and not self._held[0].last:
            self._held.popleft()

    def played(self, samples: int) -> None:
        """The speaker has played everything."""
        self.delivered_samples, self.finished = samples, True
        self._held.clear()

    def pause(self, paused: bool) -> None:
        """See Sink."""
        self._paused = paused
        if not self.finished:
            self._send(ipc.Pause(key=self.key) if paused else ipc.Resume(key=self.key))

    def set_gain(self, gain_db: float) -> None:
        """Ramp to a new volume."""
        self.gain_db = gain_db
        if not self.finished:
            self._send(ipc.Gain(key=self.key, gain_db=gain_db))

    def flush(self, fade_samples: int) -> None:
        """Fade out; the speaker answers with the last sample it played."""
        self._send(ipc.Flush(key=self.key, fade_samples=fade_samples))

    def close(self) -> None:
        """See Sink."""
        if not self.finished:
            self._send(ipc.Detach(key=self.key))


class Outlets:
    """The sinks of one generation; empty before it begins and after its ending."""

    def __init__(self) -> None:
        self._sinks: list[Sink] = []

    def add(self, sink: Sink, paused: bool) -> None:
        """One more, in the state the others are in."""
        if paused:
            sink.pause(True)
        self._sinks.append(sink)

    def write(self, piece: Piece) -> None:
        """Feed the next piece. Raises WireError if a sink cannot take it."""
        for sink in self._sinks:
            sink.write(piece)

    def pause(self, paused: bool) -> None:
        """Hold the position, or go on."""
        for sink in self._sinks:
            sink.pause(paused)

    def pump(self) -> None:
        """Send what waits for a client that reads slowly."""
        for sink in self._sinks:
            if isinstance(sink, OwnerSink):
                sink.pump()

    def close(self) -> None:
        """The generation is over: close and forget all sinks."""
        for sink in self._sinks:
            sink.close()
        self._sinks.clear()

    @property
    def device(self) -> DeviceSink | None:
        """The one that is the speaker, if there is one."""
        return next((sink for sink in self._sinks if isinstance(sink, DeviceSink)), None)

    @property
    def delivered_samples(self) -> int:
        """Samples that have left every sink."""
        return min((sink.delivered_samples for sink in self._sinks), default=0)

    @property
    def finished(self) -> bool:
        """Whether the last piece has left every sink."""
        return all(sink.finished for sink in self._sinks)
