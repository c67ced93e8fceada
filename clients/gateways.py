"""The gateways of a client: where it connects, which one is tried next, and what each has said.

Rules: no I/O and no clock. The connection says when another one is tried; the driver connects to `current`.
"""

from collections.abc import Sequence

from glowd.daemon.wire.address import Address

FIRST_PATIENCE_S, LONGEST_PATIENCE_S = 1.0, 8.0
"""How long one of several gateways may take to answer, in the first round and at most; each round has twice as much."""
START = "start one with: glowd"
LOOK_THERE = "see on that machine whether glowd runs, and that its server.endpoint is this address"
UNREACHED, CLOSED, REFUSED = range(3)
"""How much a reason says: nobody was reached, who was has closed the connection, or has said why."""
NO_ANSWER = "it does not answer"


class Gateways:
    """One address, or several in the order of preference. Owner: the connection of a client."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        assert addresses, "a client has somewhere to connect"
        self._addresses, self._at, self._tries = list(addresses), 0, 1
        self._reasons: dict[Address, str] = {}
        self._weight = 0

    @property
    def current(self) -> Address:
        """The one to connect to."""
        return self._addresses[self._at]

    @property
    def advice(self) -> str:
        """What a user may do when none has answered; "" where the reason of a refusal says it."""
        if self._weight == REFUSED:
            return ""
        return START if any(one.url.startswith("ipc://") for one in self._addresses) else LOOK_THERE

    @property
    def shown(self) -> str:
        """All of them, for people."""
        return ", ".join(address.shown for address in self._addresses)

    @property
    def has_others(self) -> bool:
        """Whether there is more than one."""
        return len(self._addresses) > 1

    @property
    def patience_s(self) -> float:
        """How long the current one may take to answer before another one is tried."""
        rounds = (self._tries - 1) // len(self._addresses)
        return float(min(LONGEST_PATIENCE_S, FIRST_PATIENCE_S * 2 ** min(rounds, 10)))

    def note(self, reason: str, weight: int) -> None:
        """Why the current one is not used. Of equal reasons of one try the newest counts; a lighter one only follows from it."""
        if weight >= self._weight:
            self._reasons[self.current], self._weight = reason, weight

    def note_silence(self) -> None:
        """The current one has not said why it is not used."""
        self._reasons.setdefault(self.current, NO_ANSWER)

    def go_on(self) -> None:
        """Try the next one; the last is followed by the first."""
        self.note_silence()
        self._at, self._tries = (self._at + 1) % len(self._addresses), self._tries + 1
        self._weight = 0

    def settle(self) -> None:
        """The current one serves this client: what was said before is past."""
        self._tries = 1
        self._reasons.clear()
        self._weight = 0

    @property
    def reasons(self) -> str:
        """Every address that was tried in vain, with the reason; of a single one the reason alone; "" if none was."""
        if not self.has_others:
            return self._reasons.get(self.current, "")
        return "; ".join(f"{one.shown}: {self._reasons[one]}" for one in self._addresses if one in self._reasons)

    @property
    def aside(self) -> str:
        """The same in parentheses, behind another text, if there are several addresses."""
        return f" ({self.reasons})" if self.has_others and self._reasons else ""
