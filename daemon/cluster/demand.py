"""How many engines a voice needs: the rules among which a cluster chooses.

Rules of this file: no clock, no process; time is passed in. A rule reads what was seen until now and says a number of streams
for which there should be capacity; policy.py makes engines of it.

The demand is the number of open streams, and of those that were refused for want of capacity since the last look: open streams
alone never exceed the capacity, so a full cluster would look satisfied.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Seen(NamedTuple):
    """One look at the cluster: how many streams were open or refused, and how many engines would have been enough."""

    time_s: float
    open: int
    refused: int
    needed: int = 0

    @property
    def demand(self) -> int:
        """The streams that wanted to be open."""
        return self.open + self.refused


class Rule(Protocol):
    """How much capacity there should be."""

    @property
    def window_s(self) -> float:
        """How far back it looks."""

    def streams(self, seen: Sequence[Seen], capacity: int, start_s: float) -> float:
        """The streams for which there should be capacity.

        `seen`: the looks of the last `window_s`, oldest first, at least one; `capacity`: the streams that the engines which
        are ready or loading serve together; `start_s`: how long an engine takes until it is ready.
        """


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same."""

    size: float
    window_s: float = 0.0

    def streams(self, seen: Sequence[Seen], capacity: int, start_s: float) -> float:
        """See Rule."""
        return self.size


@dataclass(frozen=True, slots=True)
class Committed:
    """So much that open streams take `target` of it."""

    target: float = 0.7
    window_s: float = 0.0

    def streams(self, seen: Sequence[Seen], capacity: int, start_s: float) -> float:
        """See Rule."""
        return seen[-1].demand / self.target


@dataclass(frozen=True, slots=True)
class Refusals:
    """More by the factor `growth` whenever streams were refused, and less when fewer than `low` of it is taken.

    It reacts when it is too late for those who were refused: the rule to compare others with.
    """

    growth: float = 1.25
    low: float = 0.6
    window_s: float = 0.0

    def streams(self, seen: Sequence[Seen], capacity: int, start_s: float) -> float:
        """See Rule."""
        now = seen[-1]
        if now.refused:
            return max(self.growth * capacity, now.demand)
        return min(capacity, now.demand / self.low)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What there will be when an engine that is started now is ready, and a reserve.

    The prediction is the line through the looks of the last `window_s`, if it rises. Streams come independently of one
    another, so their number varies around it by its square root: the reserve is `deviations` of that, and `spare` of all
    for what no line foresees.
    """

    window_s: float = 600.0
    deviations: float = 2.0
    spare: float = 0.05

    def streams(self, seen: Sequence[Seen], capacity: int, start_s: float) -> float:
        """See Rule."""
        expected = seen[-1].demand + max(0.0, slope(seen)) * start_s
        return (1 + self.spare) * expected + self.deviations * math.sqrt(expected)


def slope(seen: Sequence[Seen]) -> float:
    """Streams per second by which the demand grows: the line with the least squares. 0 for looks at one time only."""
    middle_s = sum(look.time_s for look in seen) / len(seen)
    spread = sum((look.time_s - middle_s) ** 2 for look in seen)
    rise = sum((look.time_s - middle_s) * look.demand for look in seen)
    return rise / spread if spread else 0.0
