"""A fake engine of another machine: FakeEngine, which joins a gateway by TCP, and may send anything."""

import contextlib
from collections import deque
from dataclasses import replace
from pathlib import Path

import zmq
from zmq.utils import z85

from glowd.daemon import engine_link, ipc
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import wants_ipv6
from glowd.daemon.wire.telemetry import Capacity
from tests.fakes.roles import FakeEngine

CAPACITY = Capacity(streams=8, measured=True)


class FakeJoined(FakeEngine):
    """Joins as `name`, until it is turned away or dismissed."""

    def __init__(
        self,
        address: Address,
        called: str,
        voice: str = "glow",
        versions: tuple[int, int] = (1, engine_link.VERSION),
        chunk_frames: int = 4,
        host: str = "elsewhere",
        capacity: Capacity = CAPACITY,
        digest: str = "",
        ahead_ns: int = 0,
        listen: str = "",
    ) -> None:
        """`ahead_ns`: by how much its clock is ahead of this machine's. `listen`: where the gateway dials; "": it is dialled."""
        self._listen = listen
        self.address, self.called, self.voice, self.versions = address, called, voice, versions
        self.chunk_frames, self.host, self.digest, self.ahead_ns = chunk_frames, host, digest, ahead_ns
        self.joined: engine_link.Joined | None = None
        self.turned_away = ""
        self.is_dismissed, self.fails, self.probes = False, "", 0
        """`fails`: what it says of every stream that frames come for."""
        self.outbox = deque[list[bytes]]()
        """What it sends next, whatever it is."""
        super().__init__(Path("/nowhere"), called, capacity=capacity)

    def connect(self) -> None:
        for option in (zmq.CURVE_SERVERKEY, zmq.CURVE_SECRETKEY, zmq.CURVE_PUBLICKEY):
            self._socket.setsockopt(option, self._keys[option])
        self._socket.setsockopt(zmq.IPV6, wants_ipv6(self._listen or self.address.url))
        self._socket.bind(self._listen) if self._listen else self._socket.connect(self.address.url)

    @property
    def _keys(self) -> dict[int, bytes]:
        public = z85.decode(zmq.curve_public(z85.encode(self.address.secret)))
        return {
            zmq.CURVE_SERVERKEY: self.address.server_key,
            zmq.CURVE_SECRETKEY: self.address.secret,
            zmq.CURVE_PUBLICKEY: public,
        }

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns

    def decode(self, parts: list[bytes]) -> Message:
        return engine_link.decode(parts)

    def _send(self, message: Message) -> None:
        with contextlib.suppress(zmq.Again):  # one that listens may have no gateway yet
            self._socket.send_multipart(engine_link.encode(message), zmq.NOBLOCK)

    def hello(self) -> Message:
        if self.joined:
            return self.ready()
        oldest, newest = self.versions
        return engine_link.Join(
            version=newest, oldest_version=oldest, voice=self.voice, engine=self.called, instance=self.instance,
            host=self.host, cores=4, chunk_frames=self.chunk_frames, max_chunk_frames=16,
        )  # fmt: skip

    def ready(self) -> Message:
        found = super().hello()
        assert isinstance(found, ipc.Ready)
        return replace(found, digest=self.digest)

    def take(self, message: Message) -> None:
        if self.fails and isinstance(message, ipc.Frames):
            self.fail_next(self.fails)
        match message:
            case engine_link.Joined():
                if self.joined is None:
                    self.joined = message
                    self._send(self.ready())
            case engine_link.JoinAgain():
                self.joined = None
                self.streams.clear()
            case engine_link.TurnedAway():
                self.turned_away = message.text
            case engine_link.Dismissed():
                self.is_dismissed = True
            case engine_link.Probe():
                self.probes += 1
                self._send(engine_link.Echo(message.t_sent_ns, self.now_ns(), self.now_ns()))
        super().take(message)

    def step(self) -> None:
        while self.outbox:
            self._socket.send_multipart(self.outbox.popleft())
        super().step()

    def leave(self) -> None:
        self.outbox.append(engine_link.encode(engine_link.Leaving()))
