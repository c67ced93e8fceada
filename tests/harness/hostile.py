"""A hostile peer, as a process of its own: mutated messages, half-open handshakes, idle connections, slow readers, unknown keys.

    with hostile(address, Plan(messages=20_000)) as peer:   # address: tcp://, ipc://, or glowd:// with a key
        ...                                                  # what must not be disturbed
    print(peer.outcome)

    python -m tests.harness.hostile ADDRESS --messages 20000 --seconds 60

Rules: whatever the daemon does to it, it goes on, and connects anew when it was disconnected.
"""

import argparse
import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.clients.transport import connect
from glowd.daemon import wire
from glowd.daemon.runtime.keys import keypair
from glowd.daemon.wire.address import Address, address_of
from glowd.daemon.wire.ip_version import wants_ipv6
from tests.harness.mutations import Parts, mutated
from tests.harness.waiting import WAIT_S

SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
NULL, CURVE = ((SIGNATURE + b"\x03\x00" + name.ljust(20, b"\0") + bytes(32)) for name in (b"NULL", b"CURVE"))
METADATA = {
    kind: b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind.encode() for kind in ("DEALER", "SUB")
}
READY, SUB_READY = (bytes((4, len(METADATA[kind]))) + METADATA[kind] for kind in ("DEALER", "SUB"))
HUGE, ENDLESS, ODD = b"\x02" + b"\x7f" + b"\xff" * 7 + bytes(1000), b"\x01\x08" + bytes(8), b"\x78\x10" + bytes(16)
"""Frames of ZMTP: one of 2^63 bytes, one that more belong to, one of an unknown kind."""
HALF_OPEN = (
    SIGNATURE,
    SIGNATURE + b"\x03",
    NULL,
    CURVE,
    CURVE + b"\x04\xc8\x05HELLO" + bytes(194),
    b"GET / HTTP/1.1\r\n\r\n",
)
"""Handshakes that stop in the middle."""
IDLE = (b"", NULL + READY, NULL + READY + b"\x00\x00", NULL + READY + HUGE, NULL + READY + ODD)
"""Connections that say nothing, or nothing sensible, or no more than a handshake."""
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
BYE_MS, SLOW_BYTES = 1000, 4096
STRANGERS_BATCH, CLIENTS_BATCH, MOST_TRIES = 10, 40, 3
"""Messages that wait for an answer at once; and how often as many are sent as are to be read."""
KNOCKS_BATCH = 50
"""Handshakes at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each; unknown keys where keys are asked for. `messages` are repeated, with other mutations, for `seconds`."""

    messages: int = 20_000
    handshakes: int = 200
    connections: int = 1000
    slow_readers: int = 16
    unknown_keys: int = 300
    endless_mb: int = 0
    seconds: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of it: messages that were sent, and of these read, answers by name, connections that were made, and of these
    that the daemon ended; and handshakes with an unknown key that it refused."""

    sent: int = 0
    read: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    connected: int = 0
    ended: int = 0
    refused: int = 0
    seconds: float = 0.0


class Crowd:
    """Plain connections that stay open, each with its first bytes."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._open = endpoint, list[socket.socket]()

    def add(self, first: bytes) -> None:
        """One more; less if the daemon is too busy to take it."""
        with contextlib.suppress(OSError):
            made = dial(self._endpoint)
            self._open.append(made)
            made.sendall(first)

    def flood(self, first: bytes, again: bytes, size: int) -> None:
        """One that goes on sending, until so many bytes are sent or nobody takes them."""
        with contextlib.suppress(OSError):
            made = shake_hands(self._endpoint, first)
            self._open.append(made)
            block = again * (65536 // len(again))
            for _ in range(size // len(block)):
                made.sendall(block)

    def leave(self) -> tuple[int, int]:
        """Close all; how many there were, and how many the daemon had ended."""
        ended = sum(is_ended(one) for one in self._open)
        for one in self._open:
            one.close()
        return len(self._open), ended


def dial(endpoint: str) -> socket.socket:
    """A connection without ZeroMQ."""
    if endpoint.startswith("ipc://"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(1.0)
        made.connect(endpoint.removeprefix("ipc://"))
        return made
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=1.0)


def shake_hands(endpoint: str, greeting: bytes) -> socket.socket:
    """A connection without ZeroMQ whose handshake is done: what comes before would be a fault of it."""
    made = dial(endpoint)
    made.sendall(greeting)
    heard = b""
    while b"READY" not in heard:
        part = made.recv(1 << 16)
        if not part:
            raise ConnectionError("the handshake has failed")
        heard += part
    return made


def is_ended(one: socket.socket) -> bool:
    """Whether the other side has closed it; reads what it has sent."""
    one.settimeout(0.0)
    try:
        while one.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


class Dealers:
    """ZeroMQ connections, with the keys of the address."""

    def __init__(self, address: Address, outcome: Outcome) -> None:
        self._address, self._outcome, self._context = address, outcome, zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._slow = list["zmq.Socket[bytes]"]()

    def add_slow(self, name: str) -> None:
        """One that listens to everything, asks for more, and reads nothing."""
        dealer = self._connected(queue=1, timeout_ms=1000, buffer_bytes=SLOW_BYTES)
        self._slow.append(dealer)
        questions = [wire.Hello(name, 1, wire.VERSION), wire.Listen("*"), *[wire.Status(), wire.Ping(1)] * 100]
        for question in questions:
            _try(dealer, wire.encode(question))

    def knock(self, count: int) -> None:
        """Come with keys that the daemon does not know, until it has refused so many: each handshake goes to its end."""
        tries, until_refused = MOST_TRIES * count, self._outcome.refused + count
        while self._address.server_key and self._outcome.refused < until_refused and tries > 0:
            batch = [self._stranger() for _ in range(min(KNOCKS_BATCH, count))]
            tries -= len(batch)
            for dealer in batch:
                self._outcome.refused += _is_refused(dealer)
                _close(dealer)

    def _stranger(self) -> "zmq.Socket[bytes]":
        """One that tries once, with a key of its own making."""
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED)
        connect(dealer, dataclasses.replace(self._address, secret=keypair()[1]), wants_ipv6(self._address.url))
        return dealer

    def send(self, parts: Iterator[Parts], count: int) -> None:
        """Messages without end, half of them before a hello, until the daemon has read so many.

        They are sent by batches. The answer to a ping behind each says that it was read; one that was cut off with its
        connection does not count.
        """
        greeted, until_read = self._connected(), self._outcome.read + count
        most = self._outcome.sent + MOST_TRIES * count
        while self._outcome.read < until_read and self._outcome.sent < most:
            stranger = self._connected()
            self._batch(stranger, parts, STRANGERS_BATCH)
            _try(stranger, wire.encode(wire.Bye()))  # else it would be a client until the daemon looks for it
            _close(stranger, BYE_MS)
            _try(greeted, _hello())
            if not self._batch(greeted, parts, CLIENTS_BATCH):
                _close(greeted)
                greeted = self._connected()
        greeted.close(0)

    def _batch(self, dealer: "zmq.Socket[bytes]", parts: Iterator[Parts], size: int) -> bool:
        """Send some messages; returns whether all were read."""
        sent = sum(_try(dealer, message) for message in islice(parts, size))
        self._outcome.sent += sent
        is_read = _try(dealer, _hello()) and _try(dealer, wire.encode(wire.Ping(self._outcome.sent)))
        is_read = is_read and self._reads_until(dealer, self._outcome.sent)
        self._outcome.read += sent if is_read else 0
        return is_read

    def _connected(self, queue: int = 1000, timeout_ms: int = 10_000, buffer_bytes: int = -1) -> "zmq.Socket[bytes]":
        """`buffer_bytes`: of the system, for what has come and was not read; -1: as it is."""
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, queue),
            (zmq.SNDTIMEO, timeout_ms),
            (zmq.RECONNECT_IVL, 10),
            (zmq.RCVBUF, buffer_bytes),
        ):
            dealer.setsockopt(option, value)
        dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        connect(dealer, self._address, wants_ipv6(self._address.url))
        return dealer

    def _reads_until(self, dealer: "zmq.Socket[bytes]", ping_ns: int) -> bool:
        """Take the answers up to that to a ping; False if the connection was cut off before."""
        poller = zmq.Poller()
        for source in (dealer, dealer.get_monitor_socket()):
            poller.register(source, zmq.POLLIN)
        while dealer in dict(poller.poll(WAIT_S * 1000)):
            answer = wire.decode(dealer.recv_multipart(), wire.CLIENT_LIMITS)
            name = answer.name if isinstance(answer, (wire.Error, wire.Warning)) else answer.TYPE
            self._outcome.answers[name] += 1
            if isinstance(answer, wire.Pong) and answer.t_client_ns == ping_ns:
                return True
            if isinstance(answer, wire.Error) and answer.code == wire.Code.TOO_MANY_CLIENTS:
                return False
        return False

    def leave(self) -> None:
        """Close all."""
        self._context.destroy(0)


def _close(dealer: "zmq.Socket[bytes]", linger_ms: int = 0) -> None:
    """Without waiting for ZeroMQ: a monitor that nobody reads must be there until there is none to tell it anything."""
    monitor = dealer.get_monitor_socket()
    dealer.disable_monitor()  # its address is made of a descriptor, which the next one may have
    dealer.close(linger_ms)
    monitor.close(0)


def _is_refused(dealer: "zmq.Socket[bytes]") -> bool:
    """Whether its key was refused, and not its connection ended before."""
    monitor = dealer.get_monitor_socket()
    return bool(monitor.poll(WAIT_S * 1000)) and parse_monitor_message(monitor.recv_multipart())["event"] == REFUSED


def _hello() -> Parts:
    return wire.encode(wire.Hello("hostile", 1, wire.VERSION))


def _try(dealer: "zmq.Socket[bytes]", parts: Parts) -> bool:
    with contextlib.suppress(zmq.Again):
        dealer.send_multipart(parts)
        return True
    return False


def attack(text: str, plan: Plan) -> Outcome:
    """Do it in this process. `text`: the address, with a key if the daemon asks for one."""
    address, outcome, began_s = address_of(text), Outcome(), time.monotonic()
    crowd, dealers, parts = Crowd(address.url), Dealers(address, outcome), mutated(plan.seed)
    for number in range(plan.handshakes):
        crowd.add(HALF_OPEN[number % len(HALF_OPEN)])
    for number in range(plan.connections):
        crowd.add(IDLE[number % len(IDLE)])
    for number in range(plan.slow_readers):
        dealers.add_slow(f"slow-{number}")
    dealers.knock(plan.unknown_keys)
    if plan.endless_mb:
        crowd.flood(NULL + READY, ENDLESS, plan.endless_mb << 20)
    while True:
        dealers.send(parts, plan.messages)
        if time.monotonic() - began_s >= plan.seconds:
            break
    outcome.connected, outcome.ended = crowd.leave()
    dealers.leave()
    outcome.seconds = time.monotonic() - began_s
    return outcome


@dataclass(slots=True)
class Peer:
    """A hostile process; `outcome` is there at the end of the block."""

    process: "subprocess.Popen[str]"
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def is_over(self) -> bool:
        """Whether it has done all."""
        return self.process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Until it has done all, or so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)


@contextlib.contextmanager
def hostile(address: str, plan: Plan = Plan()) -> Iterator[Peer]:
    """Do it in another process while the block runs, and wait for its end."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(plan).items()]
    command = [sys.executable, "-m", "tests.harness.hostile", "-", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin, "it is a pipe"
            process.stdin.write(address + "\n")  # a key is in it, and commands can be read by everyone
            process.stdin.close()
            process.stdin = None
            peer = Peer(process)
            yield peer
            said, _ = process.communicate(timeout=plan.seconds + 5 * WAIT_S)
            found = json.loads(said)
            peer.outcome = Outcome(**{**found, "answers": Counter(found["answers"])})
        finally:
            process.kill()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="tcp://HOST:PORT, ipc://PATH, glowd://...; - : the first line of the input")
    for option in dataclasses.fields(Plan):
        kind: Any = type(option.default)
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=kind, default=option.default)
    given = vars(parser.parse_args())
    address = given.pop("address")
    outcome = attack(sys.stdin.readline().strip() if address == "-" else address, Plan(**given))
    print(json.dumps({name.name: getattr(outcome, name.name) for name in dataclasses.fields(outcome)}))


if __name__ == "__main__":
    main()
