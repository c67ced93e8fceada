"""Where the audio of an utterance goes: socket, device, nowhere; file_sink.py has files. Every sink counts the samples
that it has delivered.

Rules: a sink takes audio in order and belongs to one utterance of one session. Credit follows what the slowest sink has
delivered, so no sink queues without limit.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.utterance import NOTHING_ARRIVED, Arrived
from glowd.daemon.wire.fields import Array, Message


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Samples [n] from `first_sample` on; `last` ends the utterance. `stamps`: when they passed each stage so far.

    `arrived`: the newest frames that the daemon had then.
    """

    first_sample: int
    audio: Array
    last: bool
    stamps: dict[str, int] = field(default_factory=dict)
    arrived: Arrived = NOTHING_ARRIVED

    @property
    def end_sample(self) -> int:
        """The sample after its last one."""
        return self.first_sample + len(self.audio)

    def after(self, sample: int) -> "AudioChunk":
        """What is left of it from `sample` on, which may be nothing."""
        begin = max(0, sample - self.first_sample)
        return self if begin == 0 else replace(self, first_sample=self.first_sample + begin, audio=self.audio[begin:])

    def message(self, stream: str, generation: int, rate_hz: int, seq: int) -> wire.Audio:
        """The message for a client."""
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
    """What every sink can do."""

    delivered_samples: int
    """Samples that were played, sent or written."""
    finished: bool
    """Whether the last chunk was delivered."""

    def write(self, chunk: AudioChunk) -> None:
        """Take the next chunk."""

    def pause(self, paused: bool) -> None:
        """Hold the position, or continue."""

    def close(self) -> None:
        """The utterance is over, delivered or not; deliver nothing more."""


class NullSink:
    """Drops the audio, and counts it as delivered at once."""

    def __init__(self, delivered_samples: int = 0) -> None:
        self.delivered_samples, self.finished = delivered_samples, False

    def write(self, chunk: AudioChunk) -> None:
        """See Sink."""
        self.delivered_samples, self.finished = max(self.delivered_samples, chunk.end_sample), chunk.last

    def pause(self, paused: bool) -> None:
        """Does nothing: there is no playback to hold."""

    def close(self) -> None:
        """Nothing to close."""


class SocketSink:
    """The stream's own client. Audio that its socket cannot take yet waits here, and no credit is granted meanwhile.

    `message_of` makes the message for a chunk, in the format of the client, with the number of the next one that is sent: one
    without samples is not.
    """

    def __init__(
        self,
        message_of: Callable[[AudioChunk, int], wire.Audio],
        try_send: Callable[[wire.Audio], bool],
        delivered_samples: int = 0,
    ) -> None:
        self.delivered_samples, self.finished = delivered_samples, False
        self._message_of, self._try_send, self._paused = message_of, try_send, False
        self._next_seq = 0
        self._waiting: deque[tuple[wire.Audio, int]] = deque()  # with the voice's sample after its last one

    @property
    def waits(self) -> bool:
        """Whether audio waits for the client to read."""
        return bool(self._waiting)

    def write(self, chunk: AudioChunk) -> None:
        """See Sink."""
        audio = self._message_of(chunk, self._next_seq)
        self._next_seq += _is_sent(audio)
        if not self._waiting and not self._paused and _is_sent(audio) and self._try_send(audio):  # nearly always
            self.delivered_samples, self.finished = max(self.delivered_samples, chunk.end_sample), audio.last
            return
        self._waiting.append((audio, chunk.end_sample))
        self.pump()

    def pump(self) -> None:
        """Send what can be sent."""
        while self._waiting and not self._paused:
            audio, end_sample = self._waiting[0]
            if _is_sent(audio) and not self._try_send(audio):
                return
            self._waiting.popleft()
            self.delivered_samples, self.finished = max(self.delivered_samples, end_sample), audio.last

    def pause(self, paused: bool) -> None:
        """See Sink."""
        self._paused = paused
        self.pump()

    def close(self) -> None:
        """See Sink."""
        self._waiting.clear()


def _is_sent(audio: wire.Audio) -> bool:
    """A resampler may hold all samples of a chunk back."""
    return audio.samples > 0 or audio.last


class DeviceSink:
    """The speaker. Keeps what was not played yet, so that a speaker that was restarted can continue."""

    def __init__(self, send: Callable[[Message], object], attach: ipc.Attach, delivered_samples: int = 0) -> None:
        """`attach` is the message that starts the stream in the speaker."""
        self.delivered_samples, self.finished, self.playing = delivered_samples, False, False
        self._send, self._attach, self._paused = send, attach, False
        self.sounds_ns = attach.t_dac_ns
        """When the sample after those that were delivered sounds; 0: not known, or nothing is to sound."""
        self.sounded_samples, self.sounded_ns = delivered_samples, attach.t_dac_ns
        """The samples that had sounded at a time; `delivered_samples` are more by what is inside the device."""
        self._kept: deque[AudioChunk] = deque()
        self.attach()

    @property
    def key(self) -> int:
        """By which speaker and gateway name the utterance."""
        return self._attach.key

    def attach(self) -> None:
        """Start playback; after the speaker was lost, start it again with everything that was not played."""
        self._send(replace(self._attach, first_sample=self.delivered_samples, t_dac_ns=self.sounds_ns))
        if self._paused:
            self._send(ipc.Pause(key=self.key))
        for chunk in self._kept:
            self._forward(chunk.after(self.delivered_samples))

    def write(self, chunk: AudioChunk) -> None:
        """See Sink."""
        chunk = chunk.after(self.delivered_samples)
        self._kept.append(chunk)
        self._forward(chunk)

    def _forward(self, chunk: AudioChunk) -> None:
        self._send(
            ipc.Pcm(
                key=self.key,
                first_sample=chunk.first_sample,
                samples=len(chunk.audio),
                last=chunk.last,
                t_gateway_ns=chunk.stamps.get("gateway_in", 0),
                audio=chunk.audio,
                arrived_ns=chunk.arrived.ns,
                arrived_first=chunk.arrived.first_sample,
                arrived_end=chunk.arrived.end_sample,
                arrived_freely=chunk.arrived.freely,
            )
        )

    def position(self, position: ipc.Position) -> None:
        """The speaker has played up to a sample."""
        self.playing, self.sounds_ns = True, position.t_dac_ns
        unheard_samples = -(-position.unheard_ns * self._attach.rate_hz // 1_000_000_000)
        self.sounded_samples = max(self.sounded_samples, position.samples - unheard_samples)
        self.sounded_ns = (
            position.t_dac_ns - (position.samples - self.sounded_samples) * 1_000_000_000 // self._attach.rate_hz
        )
        self.delivered_samples = max(self.delivered_samples, position.samples)
        while self._kept and self._kept[0].end_sample <= self.delivered_samples and not self._kept[0].last:
            self._kept.popleft()

    def played(self, samples: int) -> None:
        """The speaker has played everything."""
        self.delivered_samples = self.sounded_samples = samples
        self.finished = True
        self._kept.clear()

    def pause(self, paused: bool) -> None:
        """See Sink."""
        self._paused = paused
        if paused:
            self.sounds_ns = self.sounded_ns = 0  # what is silent now is no gap
        if not self.finished:
            self._send(ipc.Pause(key=self.key) if paused else ipc.Resume(key=self.key))

    def set_gain(self, gain_db: float) -> None:
        """Set the volume."""
        self._attach = replace(self._attach, gain_db=gain_db)
        if not self.finished:
            self._send(ipc.Gain(key=self.key, gain_db=gain_db))

    def flush(self, fade_samples: int) -> None:
        """Fade out; the speaker answers with the last sample it played."""
        self._send(ipc.Flush(key=self.key, fade_samples=fade_samples))

    def close(self) -> None:
        """See Sink."""
        if not self.finished:
            self._send(ipc.Detach(key=self.key))


class SinkGroup:
    """The sinks of one utterance. Empty before it starts and after its ending."""

    def __init__(self) -> None:
        self._sinks: list[Sink] = []
        self.device: DeviceSink | None = None
        """The device sink, if there is one."""
        self.socket: SocketSink | None = None
        """The socket sink, if there is one."""

    def add(self, sink: Sink, paused: bool) -> None:
        """Add a sink; it is paused if the others are."""
        if paused:
            sink.pause(True)
        self._sinks.append(sink)
        if isinstance(sink, DeviceSink):
            self.device = sink
        elif isinstance(sink, SocketSink):
            self.socket = sink

    def write(self, chunk: AudioChunk) -> None:
        """Give the next chunk to every sink. Raises WireError if one cannot take it."""
        for sink in self._sinks:
            sink.write(chunk)

    def pause(self, paused: bool) -> None:
        """Hold the position, or continue."""
        for sink in self._sinks:
            sink.pause(paused)

    def pump(self) -> None:
        """Send what waits for a slow client."""
        if self.socket is not None and self.socket.waits:
            self.socket.pump()

    @property
    def waits(self) -> bool:
        """Whether audio waits for a slow client."""
        return self.socket is not None and self.socket.waits

    def close(self) -> None:
        """The utterance is over: close and remove all sinks."""
        for sink in self._sinks:
            sink.close()
        self._sinks.clear()
        self.device = self.socket = None

    @property
    def delivered_samples(self) -> int:
        """Samples that every sink has delivered."""
        if len(self._sinks) == 1:  # nearly always
            return self._sinks[0].delivered_samples
        return min([sink.delivered_samples for sink in self._sinks], default=0)

    @property
    def sounded_samples(self) -> int:
        """The same, but of the device those that have left it."""
        delivered = self.delivered_samples
        return delivered if self.device is None else min(delivered, self.device.sounded_samples)

    @property
    def heard_samples(self) -> int:
        """Samples that a listener has heard: those of the device if there is one, else those that were delivered."""
        return self.delivered_samples if self.device is None else self.device.delivered_samples

    @property
    def finished(self) -> bool:
        """Whether every sink has delivered the last chunk."""
        return all(sink.finished for sink in self._sinks)
