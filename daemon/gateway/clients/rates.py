"""How many messages a peer sends: who sends too many is told once, and when it goes on, its client that sends most is ended.

A peer has a vessel for each kind, which loses so many messages a second as its quota says, and holds those of BURST_S. When it
is full the peer is told; when as many as a second allows have come on top, it has gone on.

Rules: no socket; the time is passed in. Messages are counted before they are read, requests when they are.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

BURST_S = 10
Connection = tuple[bytes, int]
"""Its identity and its descriptor."""


class Verdict(Enum):
    """What is to be done about a message."""

    FINE = 0
    TELL = 1
    END = 2


@dataclass(slots=True)
class Vessel:
    """Of one peer and one kind. `senders`: how many each of its clients has sent since the peer was told."""

    at_ns: int
    level: float = 0.0
    told: bool = False
    senders: Counter[Connection] = field(default_factory=Counter)

    def sink(self, a_second: int, now_ns: int) -> None:
        """Lose what the time since the last call takes. One that is empty begins anew."""
        self.level, self.at_ns = max(0.0, self.level - a_second * (now_ns - self.at_ns) / 1e9), now_ns
        if not self.level:
            self.told = False
            self.senders.clear()

    def add(self, a_second: int, sender: Connection) -> Verdict:
        """One message more."""
        self.level += 1
        if self.level <= a_second * BURST_S:
            return Verdict.FINE
        self.senders[sender] += 1
        if not self.told:
            self.told = True
            return Verdict.TELL
        if self.level <= a_second * (BURST_S + 1):
            return Verdict.FINE
        self.level = a_second * BURST_S
        return Verdict.END


class Rates:
    """The vessels of all peers. Owner: the gateway's only thread."""

    def __init__(self) -> None:
        self._vessels: dict[tuple[str, str], Vessel] = {}
        self._rates: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._vessels)

    def count(self, peer: str, kind: str, a_second: int, sender: Connection, now_ns: int) -> Verdict:
        """A message of a peer, by one of its clients."""
        place = peer, kind
        if (vessel := self._vessels.get(place)) is None:
            vessel = self._vessels[place] = Vessel(now_ns)
        self._rates[place] = a_second
        vessel.sink(a_second, now_ns)
        return vessel.add(a_second, sender)

    def worst(self, peer: str, kind: str, newest: Connection) -> Connection:
        """The client of a peer that has sent most since that was told, of several the newest; it is counted anew."""
        senders = self._vessels[peer, kind].senders
        (sender, most), *_ = senders.most_common(1)
        sender = newest if senders[newest] == most else sender
        del senders[sender]
        return sender

    def tick(self, now_ns: int) -> None:
        """Forget the peers that have sent nothing for long enough."""
        for place, vessel in list(self._vessels.items()):
            vessel.sink(self._rates[place], now_ns)
            if not vessel.level:
                del self._vessels[place], self._rates[place]
