"""Addresses of daemons on other machines, which name the keys of both sides.

    glowd://NAME:SECRET@HOST:PORT#SERVERKEY

SECRET is the client's, SERVERKEY the daemon's public key; both in hexadecimal. `glowctl key new` prints such an address, and it
is all that a client needs. Whoever has it may do what its roles allow, so it is kept as a password is, and `shown` leaves the
secret out.

Rules: text only. Keys are those of CURVE (RFC 26/CurveZMQ), 32 bytes each.
"""

import re
from dataclasses import dataclass

__all__ = ["Address", "address_of", "addresses_of"]

PATTERN = re.compile(
    r"glowd://(?P<name>[A-Za-z0-9._-]{1,64}):(?P<secret>[0-9a-f]{64})@(?P<place>[^@#/]+:\d{1,5})#(?P<server>[0-9a-f]{64})"
)

BETWEEN = re.compile(r"\s*,\s*(?=[a-z]+://)")
"""Two addresses of a list. The path of a local socket may have commas, too."""
LISTED = re.compile(r"ipc://.+|tcp://[^,/]+:\d{1,5}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect. `url`: for ZeroMQ; `shown`: for people; the keys are empty where nothing is encrypted."""

    url: str
    shown: str
    secret: bytes = b""
    server_key: bytes = b""

    def text(self, name: str) -> str:
        """The whole address, secret included, for a client of this name."""
        place = self.url.removeprefix("tcp://")
        return f"glowd://{name}:{self.secret.hex()}@{place}#{self.server_key.hex()}"


def address_of(text: str) -> Address:
    """The address that a text names; ipc:// and tcp:// are what they are. Raises ValueError."""
    if not text.startswith("glowd://"):
        return Address(text, text)
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(
            "the address must be glowd://NAME:SECRET@HOST:PORT#SERVERKEY, whole, as `glowctl key new` printed it"
        )
    shown = f"glowd://{match['name']}@{match['place']}"
    return Address(f"tcp://{match['place']}", shown, bytes.fromhex(match["secret"]), bytes.fromhex(match["server"]))


def addresses_of(text: str) -> list[Address]:
    """The addresses of a list with commas, which may be one. Raises ValueError, which shows no secret."""
    found = [address_of(part) for part in BETWEEN.split(text.strip())]
    for number, one in enumerate(found, start=1):
        if len(found) > 1 and not LISTED.fullmatch(one.url):
            raise ValueError(
                f"address {number} of the list must be ipc://PATH, tcp://HOST:PORT, or a whole glowd:// address"
            )
    return found
