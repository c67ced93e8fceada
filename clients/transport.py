"""The ZeroMQ details that both clients share: options of the socket, its monitor, and the program's name."""

import asyncio
import contextlib
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from glowd.clients import errors
from glowd.clients.connection import Connection
from glowd.clients.gateways import REFUSED, Gateways
from glowd.daemon import wire
from glowd.daemon.wire.address import Address, address_of, addresses_of
from glowd.daemon.wire.ip_version import no_address, read_ipv6, wants_ipv6

LINGER_MS = 500
MONITORED_EVENTS = (
    zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)  # fmt: skip


def client_endpoint(given: str) -> str:
    """The address to connect to: the one given, else the default. Raises ForeignSocket as `check_owner` does."""
    if not given:
        check_owner(wire.default_endpoint())
    return given or wire.default_endpoint()


def address_to(given: str) -> Address:
    """Where to connect, and with which keys, for a named address or the default. Raises NotRunning, ForeignSocket."""
    try:
        return address_of(client_endpoint(given))
    except ValueError as fault:
        raise errors.NotRunning(f"cannot connect: {fault}") from None


def gateways_at(given: str) -> Gateways:
    """Where to connect: the named address, or addresses with commas between them, or the default. Raises as `address_to`."""
    try:
        return Gateways(addresses_of(client_endpoint(given)))
    except ValueError as fault:
        raise errors.NotRunning(f"cannot connect: {fault}") from None


def is_own_only(endpoint: str) -> bool:
    """Whether nobody has named this default address, so that only the user's own daemon is expected there.

    An address, or a run directory, that is named in the environment was chosen.
    """
    chosen = os.environ.get("GLOWD_ENDPOINT") or os.environ.get("GLOWD_RUN_DIR")
    return not chosen and endpoint.startswith("ipc:///")


WANTS_KEY = "; if it serves keys, use the address that `glowctl key new` prints there, glowd://..."
OTHER_KEY = (
    " before its own key was shown to be right: unless it was stopping, the address is another daemon's; ask for a new one "
    "(glowctl key new)"
)


def check_owner(endpoint: str) -> None:
    """Raises ForeignSocket if a socket that nobody has named is another user's, or could be replaced by one.

    Its folder too must be the user's own, not a link of another user, and nobody else may write there.
    """
    if not is_own_only(endpoint):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    for place in (path.parent, path):
        for owner in _owners(place):
            if owner != os.getuid():
                raise _foreign(str(place), owner, endpoint)
    if path.parent.exists() and (mode := path.parent.stat().st_mode) & 0o022:
        raise errors.ForeignSocket(
            f"other users may replace the socket in {path.parent}, whose mode is {stat.filemode(mode)}; "
            f"close it (chmod 700 {path.parent}), or name the address: --endpoint {endpoint}, or GLOWD_ENDPOINT"
        )


def _owners(place: Path) -> Iterator[int]:
    """The owner of a file; of a link also that of what it refers to. None if there is nothing."""
    with contextlib.suppress(FileNotFoundError):
        yield place.lstat().st_uid
        yield place.stat().st_uid


def _foreign(what: str, owner: int, endpoint: str) -> errors.ForeignSocket:
    return errors.ForeignSocket(
        f"{what} belongs to user {owner}, and this program runs as user {os.getuid()}; if you trust it, name it: "
        f"--endpoint {endpoint}, or GLOWD_ENDPOINT"
    )


def configure(dealer: "zmq.Socket[Any]") -> None:
    """Set the options of a client's DEALER. It never drops a message; the daemon's credit bounds both queues."""
    dealer.setsockopt(zmq.SNDHWM, 0)
    dealer.setsockopt(zmq.RCVHWM, 0)
    dealer.setsockopt(zmq.LINGER, LINGER_MS)
    dealer.setsockopt(zmq.RECONNECT_IVL, 50)


def connect(connecting: "zmq.Socket[Any]", address: Address, ipv6: bool) -> None:
    """Connect a socket; encrypted, if the address has keys. `ipv6`: see wire/ip_version.py. Raises ZMQError."""
    connecting.setsockopt(zmq.IPV6, ipv6)
    if address.server_key:
        connecting.setsockopt(zmq.CURVE_SERVERKEY, address.server_key)
        connecting.setsockopt(zmq.CURVE_SECRETKEY, address.secret)
        connecting.setsockopt(zmq.CURVE_PUBLICKEY, z85.decode(zmq.curve_public(z85.encode(address.secret))))
    connecting.connect(address.url)


async def look_up(connection: Connection) -> bool:
    """Whether the daemon is reached by IPv6; a name is looked up beside the event loop."""
    url = connection.gateways.current.url
    if (read := read_ipv6(url)) is not None:
        return read
    if fault := await asyncio.to_thread(no_address, url):
        connection.not_reached(fault, REFUSED)
    return await asyncio.to_thread(wants_ipv6, url)


def try_send(dealer: "zmq.Socket[Any]", parts: list[bytes]) -> bool:
    """Send a message; False while there is nobody to send it to: after a handshake that was refused, ZeroMQ would wait."""
    try:
        dealer.send_multipart(parts, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def take_event(event: list[bytes], connection: Connection, own_only: bool) -> None:
    """Tell the connection what a monitor event means: the daemon is lost, or it is another user's.

    `own_only`: the daemon must be the user's own. The socket may have appeared, or been replaced, since `check_owner`.
    """
    found, endpoint = parse_monitor_message(event), connection.endpoint
    wants_key = endpoint.startswith("tcp://") and not connection.usable
    other_key = connection.gateways.current.server_key and not connection.usable
    if found["event"] == zmq.EVENT_CONNECT_RETRIED:
        connection.not_reached("nobody listens there")
    elif found["event"] == zmq.EVENT_DISCONNECTED:
        connection.transport_lost("closed the connection" + WANTS_KEY * wants_key + OTHER_KEY * bool(other_key))
    elif found["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        connection.transport_lost(
            "does not let this key in: it was revoked, or is unknown; ask for a new address (glowctl key new)",
            REFUSED,
        )
    elif found["event"] != zmq.EVENT_CONNECTED:
        connection.transport_lost(
            "does not speak this protocol, or rejects this client" + WANTS_KEY * wants_key, REFUSED
        )
    elif own_only and (owner := _peer_user(found["value"])) not in (None, os.getuid()):
        connection.reject(_foreign(f"the program that listens at {endpoint}", int(owner or 0), endpoint))


def _peer_user(descriptor: int) -> int | None:
    """The user who listens at the other end of a Unix socket; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        with socket.socket(fileno=os.dup(descriptor)) as peer:
            packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:  # it was closed meanwhile
        return None
    return int(struct.unpack("3i", packed)[1])


def program_name() -> str:
    """A client name for a program that did not choose one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(sys.argv[0]).stem).strip("-.")[:40] or "python"
