"""The engines of other machines that are dialled: whether each is reached, and if not, why; each reason is logged once.

ZeroMQ dials again, except where somebody breaks its protocol, as an engine with another server key does, or a program that is
none. Such a place is to be dialled anew: `take_given_up`.

Rules: no socket; what ZeroMQ's monitor tells is passed in. It says "connecting" of an address, "connected" with the descriptor of
the connection, "handshake" failed or succeeded, and "retried" before it dials again, of a name without an address as well.
"""

import logging
from dataclasses import dataclass

import zmq

EVENTS = (
    zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)  # fmt: skip
NEW_KEY = "start it with a new address of this daemon (glowctl key new NAME --role engine)"
NO_NAME = "the name has no address"
NOBODY = "nobody listens there: start it (glowd engine --listen), or open the way to it"
NO_KEY = f"its key is unknown here, was revoked, or has not the role engine: {NEW_KEY}"
FOREIGN = f"it has the address of another daemon, or is no engine: {NEW_KEY}"

log = logging.getLogger("glowd.gateway")


@dataclass(slots=True)
class Dialled:
    """One place that is dialled. `descriptor`: of the connection to it; -1: there is none.

    `has_address`, `was_reached`: since it was dialled last.
    """

    why_not: str = ""
    descriptor: int = -1
    has_address: bool = False
    was_reached: bool = False


class Dialling:
    """Owner: the gateway's only thread."""

    def __init__(self) -> None:
        self._places: dict[str, Dialled] = {}
        self._ended, self._given_up = set[str](), set[str]()
        """Places whose connection has ended, and that ZeroMQ has not dialled again yet: lately, and some time ago."""

    @property
    def why_not(self) -> dict[str, str]:
        """By place: why its engine is not used; "" if it is, or nothing is known yet."""
        return {place: dialled.why_not for place, dialled in self._places.items()}

    def begin(self, place: str) -> None:
        """It is dialled from now on."""
        self._places[place] = Dialled()

    def end(self, place: str) -> None:
        """It is dialled no more."""
        del self._places[place]
        self._dials_again(place)

    def take(self, event: int, value: int, place: str) -> None:
        """What ZeroMQ tells of a place. Of others, where engines dial us, nothing is kept."""
        if (dialled := self._places.get(place)) is None:
            return
        match event:
            case zmq.EVENT_CONNECT_DELAYED:
                dialled.has_address = True
            case zmq.EVENT_CONNECTED:
                dialled.descriptor, dialled.was_reached = value, True
            case zmq.EVENT_DISCONNECTED:
                dialled.descriptor = -1
                self._ended.add(place)
            case zmq.EVENT_CONNECT_RETRIED:
                if not dialled.was_reached:
                    self._say(place, NOBODY if dialled.has_address else NO_NAME)
                dialled.was_reached = dialled.has_address = False
                self._dials_again(place)
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._say(place, NO_KEY)
            case _:
                self._say(place, FOREIGN)

    def take_given_up(self) -> list[str]:
        """The places whose connection had ended at the last call, and that ZeroMQ has not dialled again since."""
        found, self._given_up, self._ended = sorted(self._given_up), self._ended, set()
        for place in found:
            self._say(place, FOREIGN)
        return found

    def _dials_again(self, place: str) -> None:
        self._ended.discard(place)
        self._given_up.discard(place)

    def heard(self, descriptor: int, taken_by: str = "") -> None:
        """By this connection an engine has said that another gateway has it, or "" that it joins."""
        for place, dialled in self._places.items():
            if dialled.descriptor == descriptor >= 0:
                self._say(place, f"{taken_by} has it; this one waits until that is gone" if taken_by else "")

    def _say(self, place: str, why_not: str) -> None:
        before, self._places[place].why_not = self._places[place].why_not, why_not
        if why_not not in ("", before):
            log.warning("the engine at %s is not used: %s", place, why_not)
        elif before and not why_not:
            log.info("the engine at %s is used", place)
