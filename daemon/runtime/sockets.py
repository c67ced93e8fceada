"""The ZeroMQ sockets between the daemon's processes, and those that clients connect to: how each is set up.

Rules: options, binding and connecting, and how a message of several parts is sent and read. Every option of the daemon's sockets
is here, with its reason. The gateway binds, because clients and roles come and go; engines and the speaker connect.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.backend import Socket as BackendSocket

from glowd.daemon.runtime.keys import public_of
from glowd.daemon.runtime.rundir import is_busy
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.ip_version import wants_ipv6

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

NOW, NOW_AND_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
"""As numbers: enumerations are joined in Python."""
_send = BackendSocket.send
"""Without what zmq.Socket puts around it for types of sockets that are not used here, which takes as long as sending itself."""
UNBOUNDED = 0
MAX_JOINED_BYTES = 64 << 20
"""In one message part of an engine: a voice that renders whole utterances sends one at once."""
CLIENT_QUEUE = 256
"""Messages that ZeroMQ queues for each client; further ones wait in the gateway."""
MAX_SUBSCRIPTION_BYTES = 4096
"""A handshake has some hundreds; ZeroMQ keeps subscriptions, in many times their size."""
HANDSHAKE_MS, BACKLOG = 2000, 512
OWN_PLACE = "inproc://own"
CURVE_FRAME_BYTES = 33
"""What encryption adds to a part: the name of the command, a nonce, a tag, and flags."""


def bind_role(context: Context, endpoint: str) -> Socket:
    """The gateway's ROUTER for engines, or for the speaker. Raises OSError naming the endpoint if it is taken."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted role replaces its predecessor
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    _queues(socket, UNBOUNDED, linger_ms=200)
    return _bind(socket, endpoint)


@dataclass(frozen=True, slots=True)
class Remote:
    """A tcp:// endpoint besides the local one. `secret`: the daemon's secret key, None: nothing is encrypted.

    Who may connect is asked of the process's ZAP handler, under the name `domain`.
    """

    endpoint: str
    secret: bytes | None
    domain: str


Watch = Callable[[Socket], object]
"""Begins to watch who connects to a socket, before that is bound."""


def bind_clients(
    context: Context, endpoint: str, max_message_bytes: int, remote: Remote | None = None, watch: Watch | None = None
) -> Socket:
    """The gateway's ROUTER for clients. Raises OSError naming the endpoint if it is taken."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, max_message_bytes)
    _doors(socket, watch)
    # No HEARTBEAT_IVL: libzmq 4.3.5 aborts the process when a heartbeat is due for a client that has disconnected while
    # more than RCVHWM of its messages were unread. Clients ping; those that send nothing for idle_timeout_s are closed.
    _queues(socket, CLIENT_QUEUE, linger_ms=500)
    return _bind_remote(_bind(socket, endpoint), remote)


def joined_socket(context: Context, remote: Remote) -> Socket:
    """The gateway's ROUTER for engines of other machines. Raises OSError naming the endpoint if it is taken.

    Those that dial come to `remote.endpoint`, "": none do; those that listen are yet to be dialled. ZeroMQ names each connection:
    one that is lost and made anew has another name, and nobody can take the place of another.
    """
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_JOINED_BYTES)
    _doors(socket)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # of those that are dialled: no connection, no name
    socket.setsockopt(zmq.RECONNECT_IVL, 1000)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 3000)
    _notice_dead_machines(socket)
    _queues(socket, UNBOUNDED, linger_ms=200)
    _protect(socket, remote)
    return _bind(socket, remote.endpoint) if remote.endpoint else socket


def joining_socket(context: Context, address: Address) -> Socket:
    """The DEALER of an engine that dials a gateway, not connected yet, so that its monitor misses nothing."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # what waits for a gateway that is away would be out of date
    return _of_engine(socket, address)


def listening_socket(context: Context, address: Address) -> tuple[Socket, int]:
    """The ROUTER of an engine that gateways dial, not bound yet; and the number of the first connection to it.

    ZeroMQ numbers the connections to a ROUTER whose peers have no name one after the other. An engine speaks first, and so has to
    know the number of a gateway that has said nothing yet; one more connection, from here, tells where they begin.
    """
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    with context.socket(zmq.DEALER) as first:
        socket.bind(OWN_PLACE)
        first.connect(OWN_PLACE)
        first.send(b"")
        route, _ = socket.recv_multipart()
        socket.unbind(OWN_PLACE)
    return _of_engine(socket, address), int.from_bytes(route[1:], "big") + 1


def numbered_route(number: int) -> bytes:
    """The name that ZeroMQ gives the connection of this number to a ROUTER."""
    return b"\0" + (number % (1 << 32)).to_bytes(4, "big")


def _of_engine(socket: Socket, address: Address) -> Socket:
    """Options of an engine's socket for other machines, whoever dials."""
    _doors(socket)
    _notice_dead_machines(socket)
    _queues(socket, UNBOUNDED, linger_ms=200)
    if address.server_key:
        socket.setsockopt(zmq.CURVE_SERVERKEY, address.server_key)
        socket.setsockopt(zmq.CURVE_SECRETKEY, address.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public_of(address.secret))
    return socket


def _notice_dead_machines(socket: Socket) -> None:
    """Let the system end a TCP connection whose other machine has not answered for some seconds."""
    for option, value in (
        (zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 1), (zmq.TCP_KEEPALIVE_INTVL, 1), (zmq.TCP_KEEPALIVE_CNT, 4),
        (zmq.TCP_MAXRT, 5000),
    ):  # fmt: skip
        socket.setsockopt(option, value)


def bind_telemetry(context: Context, endpoint: str, remote: Remote | None = None, watch: Watch | None = None) -> Socket:
    """The gateway's XPUB for telemetry. Raises OSError naming the endpoint if it is taken."""
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
    _doors(socket, watch)
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # every subscription, so that they can be counted
    return _bind_remote(_bind(socket, endpoint), remote)


def connect_engine(endpoint: str, name: str) -> Socket:
    """An engine's DEALER to the gateway. Messages wait for a gateway that is away."""
    socket: Socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, f"engine:{name}".encode())
    _queues(socket, UNBOUNDED, linger_ms=200)
    socket.connect(endpoint)
    return socket


def connect_speaker(endpoint: str) -> Socket:
    """The speaker's DEALER to the gateway. Messages do not wait for a gateway that is away: they would be out of date."""
    socket: Socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, b"speaker")
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    _queues(socket, UNBOUNDED, linger_ms=0)
    socket.connect(endpoint)
    return socket


class Sender(NamedTuple):
    """What ZeroMQ says of who sent a message.

    The address is "localhost:USER:GROUP:PROCESS" for a local socket, an IP address for TCP, "" if it is not known; the key is
    the public key with which it was let in, b"" without one, and `key_name` the name that it had then, for people;
    `descriptor` is that of the connection, -1 if not known.
    """

    address: str = ""
    key: bytes = b""
    descriptor: int = -1
    key_name: str = ""


def receive_of_client(socket: Socket) -> tuple[zmq.Frame, list[bytes]]:
    """The next message of a ROUTER for clients: the identity of the connection, and the parts.

    Raises zmq.Again if no message has arrived.
    """
    identity = frame = socket.recv(NOW, copy=False)
    parts = []
    while frame.more:
        frame = socket.recv(NOW, copy=False)
        parts.append(frame.bytes)
    return identity, parts


def receive_of_role(socket: Socket) -> tuple[bytes, list[bytes]]:
    """The next message of a ROUTER for roles: the identity, and the parts. Raises zmq.Again if no message has arrived."""
    frame = socket.recv(NOW, copy=False)
    identity, parts = frame.bytes, []
    while frame.more:  # the frame knows it; recv_multipart asks the socket, which takes longer
        frame = socket.recv(NOW, copy=False)
        parts.append(frame.bytes)
    return identity, parts


def send(socket: Socket, identity: bytes, parts: Sequence[bytes]) -> None:
    """Send to the peer of a ROUTER with this identity, without waiting.

    Raises zmq.ZMQError, and has sent nothing, if there is no such peer or its queue is full.
    """
    _send(socket, identity, NOW_AND_MORE)
    for part in parts[:-1]:
        _send(socket, part, NOW_AND_MORE)
    _send(socket, parts[-1], NOW)


def sender_of(identity: zmq.Frame) -> Sender:
    """Who has the connection by which an identity came. This takes longer than reading the message: ask once."""
    key, _, name = _property(identity, "User-Id").partition(" ")
    descriptor = int(_property(identity, "__fd") or -1)
    return Sender(_property(identity, "Peer-Address"), bytes.fromhex(key), descriptor, name)


def user_id(key: bytes, name: str) -> str:
    """What ZeroMQ marks messages with of a peer that was let in by a public key: `sender_of` reads it."""
    return f"{key.hex()} {name}"


def wire_bytes(parts: Sequence[bytes], has_key: bool) -> int:
    """What a message takes on a connection: each part has a byte of flags, and a length of one byte or eight."""
    more = CURVE_FRAME_BYTES if has_key else 0
    count = 0
    for part in parts:
        size = len(part) + more
        count += size + (2 if size < 256 else 9)
    return count


def _property(frame: zmq.Frame, name: str) -> str:
    """What ZeroMQ knows of the connection of a frame; "" if it knows nothing."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


class SocketFile:
    """The file of a bound local socket. Without it the connected peers stay, and nobody else can connect."""

    def __init__(self, socket: Socket, endpoint: str) -> None:
        """`socket` is bound to `endpoint`; a TCP address has no file and is never gone."""
        self.endpoint, self._socket = endpoint, socket
        self._path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        self._found, self._owner = self._stat(), self._folder_owner()
        self.fault = ""
        """Why the file could not be made anew; "" if it is there."""

    def renew(self) -> bool:
        """Make the file anew if it is gone; returns whether that was done. `fault` says why it could not be.

        ZeroMQ lets a socket be bound to a path again: its connections stay. To unbind it first would end them.
        """
        if self._path is None or ((now := self._stat()) is not None and now == self._found):
            self.fault = ""
            return False
        try:
            if self._folder_owner() != self._owner:
                raise OSError(f"{self._path.parent} is not there, or belongs to another user")
            _bind(self._socket, self.endpoint)
        except OSError as error:
            self.fault = str(error)
            return False
        self._found, self.fault = self._stat(), ""
        return True

    def _stat(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            if self._path is not None:
                found = self._path.lstat()
                return found.st_dev, found.st_ino
        return None

    def _folder_owner(self) -> int | None:
        with contextlib.suppress(OSError):
            return None if self._path is None else self._path.parent.stat().st_uid
        return None


def renew_files(files: Sequence[SocketFile]) -> Iterator[str]:
    """Make anew what is gone of the sockets' files. Yields what there is to log, each fault once."""
    for file in files:
        before = file.fault
        if file.renew():
            yield f"{file.endpoint} was deleted: it is made anew"
        elif file.fault not in ("", before):
            yield f"{file.endpoint} was deleted, so no client can connect: {file.fault}"


def _doors(socket: Socket, watch: Watch | None = None) -> None:
    """Bound handshakes, and how many may wait for one."""
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    if watch:
        watch(socket)


def _queues(socket: Socket, messages: int, linger_ms: int) -> None:
    """Limit both queues (UNBOUNDED where credit limits what is sent); closing waits `linger_ms` for unsent messages."""
    socket.setsockopt(zmq.SNDHWM, messages)
    socket.setsockopt(zmq.RCVHWM, messages)
    socket.setsockopt(zmq.LINGER, linger_ms)


def _bind(socket: Socket, endpoint: str) -> Socket:
    """Bind, privately for ipc. Raises OSError naming the endpoint if it is taken."""
    if is_busy(endpoint):  # ZeroMQ would take over a local socket that is in use
        raise OSError(f"cannot listen on {endpoint}: another program does; stop it, or use another endpoint")
    try:
        socket.setsockopt(zmq.IPV6, wants_ipv6(endpoint))
        with _private_umask():
            socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise OSError(f"cannot listen on {endpoint}: {error.strerror}; use another endpoint") from error
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).chmod(stat.S_IRUSR | stat.S_IWUSR)
    return socket


def _bind_remote(socket: Socket, remote: Remote | None) -> Socket:
    """Bind to a tcp:// endpoint (too). A listener has the options that its socket had when it was bound."""
    if remote is None:
        return socket
    _protect(socket, remote)
    return _bind(socket, remote.endpoint)


def _protect(socket: Socket, remote: Remote) -> None:
    """Encrypt what comes from other machines, and ask who may connect."""
    if remote.secret is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, remote.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, remote.domain)


@contextlib.contextmanager
def _private_umask() -> Iterator[None]:
    old = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(old)
