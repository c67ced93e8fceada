"""The phases of a stream, and the events that lead from one to the next.

Rules: no socket, no clock, no message. Everything about which phase follows which is in TRANSITIONS. A stream speaks one
utterance after the other: CONCLUDE, the ending of an utterance, leads back to IDLE and so to the next one.

    IDLE -> SENDING -> ENDING -> RENDERED -> IDLE          `played`
    any of these -> FLUSHING or SILENCED -> IDLE           `flushed`
    any but CLOSED -> IDLE                                 fatal `error`
    any but CLOSED -> CLOSED
"""

from enum import Enum, auto
from functools import cached_property


class Phase(Enum):
    """Where the running utterance of a stream is."""

    IDLE = auto()
    """The client has sent nothing. No sink is open, and no engine works for the stream."""
    SENDING = auto()
    """The client sends frames."""
    ENDING = auto()
    """The client has sent all frames; the engine renders the rest."""
    RENDERED = auto()
    """The engine has rendered all samples; the sinks deliver the rest."""
    FLUSHING = auto()
    """The client of the stream has flushed it; the device fades out."""
    SILENCED = auto()
    """Another client has flushed the stream; its own client may send on until it learns of it."""
    CLOSED = auto()
    """The stream is closed."""

    __hash__ = object.__hash__  # an enumeration's own hashes its name, in Python; these are looked up for each chunk

    @cached_property
    def has_begun(self) -> bool:
        """Whether there is an utterance that needs an ending."""
        return self not in (Phase.IDLE, Phase.CLOSED)

    @cached_property
    def takes_frames(self) -> bool:
        """Whether its client may send frames."""
        return self in (Phase.IDLE, Phase.SENDING)

    @cached_property
    def needs_engine(self) -> bool:
        """Whether the engine still has work to do for the utterance."""
        return self in (Phase.SENDING, Phase.ENDING)

    @cached_property
    def is_flushing(self) -> bool:
        """Whether the device fades out."""
        return self in (Phase.FLUSHING, Phase.SILENCED)


class Event(Enum):
    """What leads from one phase to the next."""

    FRAMES = auto()
    """The client sent frames that can be used."""
    END = auto()
    """The client has no more frames."""
    RENDER_LAST = auto()
    """The engine has rendered the last sample."""
    FLUSH = auto()
    """The client of the stream flushes it."""
    FLUSH_BY_OTHER = auto()
    """Another client flushes it."""
    CONCLUDE = auto()
    """The ending of the utterance was sent: `played`, `flushed` or a fatal `error`."""
    CLOSE = auto()
    """The stream is closed."""

    __hash__ = object.__hash__


_ALWAYS = {Event.CONCLUDE: Phase.IDLE, Event.CLOSE: Phase.CLOSED}
_FLUSH = {Event.FLUSH: Phase.FLUSHING, Event.FLUSH_BY_OTHER: Phase.SILENCED}

TRANSITIONS: dict[Phase, dict[Event, Phase]] = {
    Phase.IDLE: {Event.FRAMES: Phase.SENDING, Event.END: Phase.ENDING, **_FLUSH, **_ALWAYS},
    Phase.SENDING: {Event.FRAMES: Phase.SENDING, Event.END: Phase.ENDING, **_FLUSH, **_ALWAYS},
    Phase.ENDING: {Event.RENDER_LAST: Phase.RENDERED, **_FLUSH, **_ALWAYS},
    Phase.RENDERED: {**_FLUSH, **_ALWAYS},
    Phase.FLUSHING: _ALWAYS,
    Phase.SILENCED: _ALWAYS,
    Phase.CLOSED: {},
}


class WrongPhaseError(ValueError):
    """An event that cannot happen in this phase."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """The phase that follows. Raises WrongPhaseError if `event` cannot happen in `phase`."""
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        possible = ", ".join(one.name for one in TRANSITIONS[phase]) or "nothing"
        raise WrongPhaseError(f"{event.name} cannot happen while {phase.name}; possible: {possible}") from None
