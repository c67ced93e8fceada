"""What a session can reach, and the messages that it sends to its client and to listeners.

Rules: no decision is made here. `SessionPorts` is everything outside that a session knows. `ReplySender` turns what a
session has decided into messages of wire/messages.py, and sends each to everybody whom it concerns.
"""

from typing import Protocol

from glowd.daemon import wire
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.notices import Notice
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.gateway.streams.totals import Counts
from glowd.daemon.gateway.streams.utterance import Utterance
from glowd.daemon.wire import WarningCode, WireError
from glowd.daemon.wire.fields import Message


class SessionPorts(Protocol):
    """Everything that a session can reach. All parts of a session share one object, so they all see it change.

    The record of the stream (placement/registry.py) is that object: when the stream moves, `to_engine` is another engine.
    """

    @property
    def recordings(self) -> Recordings:
        """The directory of file sinks."""

    def key_of(self, stream: str) -> int:
        """The key of the running utterance of another stream of the same client; 0 if there is none."""

    @property
    def counts(self) -> Counts:
        """What is counted over all streams."""

    def to_owner(self, message: Message) -> None:
        """Send to the stream's own client, now or later."""

    def try_owner(self, message: Message) -> bool:
        """Send to the stream's own client now. Returns False if the client reads too slowly."""

    def took(self, frames: int) -> None:
        """Frames were accepted: they count for the peer of the client."""

    def held_back(self) -> Notice | None:
        """Why the stream gets no credit now, if its peer has sent as many frames as it may; it is asked again later."""

    def to_engine(self, message: Message) -> None:
        """Send to the engine in which the stream is placed."""

    @property
    def cushion_ms(self) -> float:
        """How much more audio the device has to collect, because of the way to that engine."""

    def blame_engine(self, text: str) -> bool:
        """The engine has sent what it must not. Returns whether it is used no more, and the stream goes on in another one."""

    def to_speaker(self, message: Message) -> None:
        """Send to the speaker."""

    @property
    def has_listeners(self) -> bool:
        """Whether there may be any."""

    def to_listeners(self, message: Message) -> None:
        """Offer to other clients. They number audio themselves: each may have started late, or lost some."""

    def new_key(self, known: int = 0) -> int:
        """A number for the next utterance, which engine and speaker put on their messages. The last one becomes invalid.

        `known`: the one that it had in a gateway that is lost, by which the speaker still knows it.
        """


class ReplySender:
    """Sends the messages about one stream. `generation` is the number of the utterance that is meant."""

    def __init__(self, stream: str, rate_hz: int, ports: SessionPorts) -> None:
        self._stream, self._rate_hz, self._ports = stream, rate_hz, ports
        self._sent_state, self._warned = "idle", set[WarningCode]()

    def credit(self, generation: int, frames: int) -> None:
        """Grant frames, if there are any."""
        if frames > 0:
            self._ports.to_owner(wire.Credit(stream=self._stream, generation=generation, frames=frames))

    def position(self, utterance: Utterance, samples: int, t_ns: int, underruns: int) -> None:
        """Tell how far the listener is, and how the utterance can go on from there in another gateway."""
        mark = utterance.go_on_at(samples)
        first_frame = max(0, mark.frame - utterance.limits.lead_frames)
        phase = -1.0 if mark.phase is None else mark.phase
        self._ports.to_owner(
            wire.Position(
                self._stream, utterance.number, utterance.key, samples, first_frame, mark.frame, phase, t_ns, underruns
            )
        )

    def state(self, state: str) -> None:
        """Send the state, if it has changed."""
        if state != self._sent_state:
            self._sent_state = state
            self._ports.to_owner(wire.State(stream=self._stream, state=state))

    def fault(self, generation: int, fault: WireError, expected_frame: int = -1) -> None:
        """Refuse something that the client sent; the utterance continues."""
        self._ports.to_owner(self._error(generation, fault, False, expected_frame))

    def warning(self, generation: int, notice: Notice) -> None:
        """Tell the client something that it should know, once of each kind; everything goes on."""
        code, text, first_frame = notice
        if code in self._warned:
            return
        self._warned.add(code)
        self._ports.to_owner(wire.Warning(int(code), code.name, text[:1024], self._stream, generation, first_frame))

    def failed(self, generation: int, fault: WireError) -> None:
        """Ending: the utterance cannot continue."""
        self._ending(self._error(generation, fault, True, -1))

    def played(self, generation: int, total_samples: int, underruns: int) -> None:
        """Ending: every sink has delivered everything."""
        self._ending(wire.Played(self._stream, generation, total_samples, underruns))

    def flushed(self, generation: int, last_sample: int, made_samples: int, to_owner: bool = True) -> None:
        """Ending: flushed after `last_sample` of the samples that were made."""
        dropped = max(0, made_samples - last_sample - 1)
        self._ending(wire.Flushed(self._stream, generation, last_sample, dropped), to_owner)

    def audio(self, generation: int, chunk: AudioChunk, seq: int = 0) -> wire.Audio:
        """The message for a chunk of audio."""
        return chunk.message(self._stream, generation, self._rate_hz, seq)

    def to_listeners(self, generation: int, chunk: AudioChunk) -> None:
        """Send audio to the listeners."""
        if self._ports.has_listeners:  # else the message need not be made
            self._ports.to_listeners(self.audio(generation, chunk))

    def _ending(self, ending: Message, to_owner: bool = True) -> None:
        if to_owner:
            self._ports.to_owner(ending)
        self._ports.to_listeners(ending)

    def _error(self, generation: int, fault: WireError, fatal: bool, expected_frame: int) -> wire.Error:
        return wire.Error(
            code=int(fault.code),
            name=fault.code.name,
            text=fault.text[:1024],
            stream=self._stream,
            generation=generation,
            fatal=fatal,
            expected_frame=expected_frame,
        )
