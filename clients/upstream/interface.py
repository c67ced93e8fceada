"""What an upstream must do: text in, mel frames out, as they are made.

Rules: no socket, no model. A front (glowctl say, Wyoming, speech-dispatcher) knows upstreams by these names only.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

from glowd.flow.mel import Floats, MelFormat

SLOWEST, FASTEST = 0.3, 3.0
LOWEST_SEMITONES, HIGHEST_SEMITONES = -12.0, 12.0


class UpstreamError(Exception):
    """This text cannot be spoken. The text names what is missing or wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a text is spoken: `rate` 1 is the upstream's own pace, 2 twice as fast; `semitones` 0 is its own pitch."""

    rate: float = 1.0
    semitones: float = 0.0

    def __post_init__(self) -> None:
        if not SLOWEST <= self.rate <= FASTEST:
            raise ValueError(f"rate is {self.rate:g}; allowed: {SLOWEST:g} to {FASTEST:g}")
        if not LOWEST_SEMITONES <= self.semitones <= HIGHEST_SEMITONES:
            raise ValueError(f"semitones is {self.semitones:g}; allowed: {LOWEST_SEMITONES:g} to {HIGHEST_SEMITONES:g}")


@dataclass(frozen=True, slots=True)
class Speech:
    """A text that is being spoken. Whoever stops early closes `frames`, which ends what makes them.

    `stated`: the map of `open.format` that says what the frames are; `frames`: chunks [n, bins] float32, n > 0.
    """

    stated: dict[str, Any]
    frames: Generator[Floats, None, None]


class Upstream(Protocol):
    """Speaks one text after the other; several threads may do so at once."""

    @property
    def name(self) -> str:
        """What errors and lists call it."""
        ...

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text, best one sentence or some, in the mel format `wanted` where the upstream has a choice.

        No frames, if there is nothing to say. Raises UpstreamError, here or from the frames.
        """
        ...
