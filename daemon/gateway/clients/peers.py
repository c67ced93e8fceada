"""Who is at the other end of a client's connection, as far as the transport knows. What it may take: runtime/quotas.py.

Rules: no socket; the address is passed in. Of a local socket the kernel names the process; of TCP the key
is known, or else only the machine.
A peer that is not known is its connection. Without a share for each peer, one program with a mistake could take every place.
"""

import re
from typing import NamedTuple

from glowd.daemon.runtime.sockets import Sender

LOCAL = re.compile(r"[^:]*:(?P<user>\d+):\d+:(?P<process>[1-9]\d*)")


class Peer(NamedTuple):
    """A peer: what tells it apart from others, and its name for people."""

    key: str
    name: str
    key_name: str = ""
    """Of a client of another machine that was let in by its key."""


def peer_of(sender: Sender, identity: bytes) -> Peer:
    """The peer of a connection."""
    address = sender.address
    if sender.key:
        return Peer(f"key {sender.key}", f"the key {sender.key}", sender.key)
    if match := LOCAL.fullmatch(address):
        return Peer(address, f"process {match['process']} of user {match['user']}")
    if address and ":0" not in address:
        return Peer(address, f"the machine {address}")
    return Peer(identity.hex(), "this client")
