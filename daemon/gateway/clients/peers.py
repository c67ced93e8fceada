"""Who is at the other end of a client's connection, as far as the transport knows. What it may take: runtime/quotas.py.

Rules: no socket; the address is passed in. Of a local socket the kernel names the process; of TCP the key
is known, or else only the machine. A machine has many addresses of IPv6, and so counts as its network.
Two keys are two peers, even if one was made in the place of the other, under its name: who holds the old one, which may have
leaked, cannot use up what the new one may take.
A peer that is not known is its connection. Without a share for each peer, one program with a mistake could take every place.
"""

import ipaddress
import re
from typing import NamedTuple

from glowd.daemon.runtime.sockets import Sender

LOCAL_NAME = "localhost:"
LOCAL = re.compile(r"[^:]*:(?P<user>\d+):\d+:(?P<process>[1-9]\d*)")
PREFIX_BITS = 64


class Peer(NamedTuple):
    """A peer: what tells it apart from others, and its name for people."""

    key: str
    name: str
    public_key: bytes = b""
    """Of a client of another machine that was let in by its key."""


def peer_of(sender: Sender, identity: bytes) -> Peer:
    """The peer of a connection."""
    address = sender.address
    if sender.key:
        return Peer(f"key {sender.key.hex()}", f"the key {sender.key_name}", sender.key)
    if match := LOCAL.fullmatch(address):
        return Peer(address, f"process {match['process']} of user {match['user']}")
    if address and not address.startswith(LOCAL_NAME):
        place = machine_of(address)
        return Peer(place, f"the {'network' if '/' in place else 'machine'} {place}")
    return Peer(identity.hex(), "this client")


def machine_of(address: str) -> str:
    """The machine of an IP address: of IPv6 its network of 64 bits, in which it may choose any address (RFC 4291)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.is_loopback:
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, PREFIX_BITS), strict=False))
