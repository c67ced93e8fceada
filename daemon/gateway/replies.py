"""What a session can reach, and what it says to its client and to those who listen.

Rules: no decision is taken here. `Outside` is all of the world that a session knows, as functions; `Announcer` puts what
a session has decided into the words of wire/messages.py, and says the same thing to everybody whom it concerns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowd.daemon import wire
from glowd.daemon.gateway.mel_intake import Notice
from glowd.daemon.gateway.sinks import Piece
from glowd.daemon.wire import WireError
from glowd.daemon.wire.fields import Message


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything a session can reach. `try_owner` may refuse (False) when the client reads too slowly."""

    to_owner: Callable[[Message], object]
    try_owner: Callable[[Message], bool]
    to_engine: Callable[[Message], object]
    to_speaker: Callable[[Message], object]
    to_listeners: Callable[[Message], object]
    """The receiver numbers audio messages itself: it may have begun late, or lost some."""
    new_key: Callable[[Any], int]
    """A number for the session's next generation, under which engine and speaker answer; the last one is void."""
    recordings: Path


class Announcer:
    """The words about one stream. `generation` is the number of the one that is meant."""

    def __init__(self, stream: str, rate_hz: int, outside: Outside) -> None:
        self._stream, self._rate_hz, self._outside = stream, rate_hz, outside
        self._audio_seq, self._said_state = 0, "idle"

    def begin(self) -> None:
        """A generation begins: its audio is counted anew."""
        self._audio_seq = 0

    def credit(self, generation: int, frames: int) -> None:
        """The client may send so many more."""
        self._outside.to_owner(wire.Credit(stream=self._stream, generation=generation, frames=frames))

    def state(self, state: str) -> None:
        """Tell the client, if it does not know."""
        if state != self._said_state:
            self._said_state = state
            self._outside.to_owner(wire.State(stream=self._stream, state=state))

    def fault(self, generation: int, fault: WireError, expected_frame: int = -1) -> None:
        """Something the client did was refused; the generation goes on."""
        self._outside.to_owner(self._error(generation, fault, False, expected_frame))

    def warning(self, generation: int, notice: Notice) -> None:
        """Something that the client should know; everything goes on."""
        code, text, first_frame = notice
        self._outside.to_owner(wire.Warning(int(code), code.name, text[:1024], self._stream, generation, first_frame))

    def failed(self, generation: int, fault: WireError) -> None:
        """An ending: it cannot go on."""
        self._ending(self._error(generation, fault, True, -1))

    def played(self, generation: int, total_samples: int, underruns: int) -> None:
        """An ending: everything has left every sink."""
        self._ending(wire.Played(self._stream, generation, total_samples, underruns))

    def flushed(self, generation: int, last_sample: int, made_samples: int, to_owner: bool = True) -> None:
        """An ending: cut short after `last_sample` of the samples that were made."""
        dropped = max(0, made_samples - last_sample - 1)
        self._ending(wire.Flushed(self._stream, generation, last_sample, dropped), to_owner)

    def try_owner(self, generation: int, piece: Piece) -> bool:
        """Offer the client the next piece of its audio; False if it does not read."""
        sent = self._outside.try_owner(piece.message(self._stream, generation, self._rate_hz, self._audio_seq))
        self._audio_seq += sent
        return sent

    def to_listeners(self, generation: int, piece: Piece) -> None:
        """Let the others hear a piece."""
        self._outside.to_listeners(piece.message(self._stream, generation, self._rate_hz, 0))

    def _ending(self, ending: Message, to_owner: bool = True) -> None:
        if to_owner:
            self._outside.to_owner(ending)
        self._outside.to_listeners(ending)

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
