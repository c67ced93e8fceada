"""The gateway role: the sockets between clients, engines and the speaker, and the loop that reads them.

    python -m glowd.daemon.gateway --run-dir D [--config F]

Rules: one thread, one poll loop, nothing blocks; no torch. Whatever a message means is decided behind it: router.py for
clients, session.py for streams, handles.py for roles. How the sockets are set up is in runtime/sockets.py.
"""

import contextlib
import gc
import logging
import time
from collections.abc import Callable

import msgpack
import zmq

from glowd.daemon import ipc
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.placement import Machine, Pool
from glowd.daemon.gateway.router import Desk
from glowd.daemon.gateway.snapshot import Snapshots
from glowd.daemon.runtime import sockets
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.system import usable_cores
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message

TICK_MS = 20
TELEMETRY_NS = 500_000_000
BURST, CLIENT_BURST = 64, 16
"""Messages read from one socket before the others get a turn. Clients may flood; roles send what was asked of them."""

log = logging.getLogger("glowd.gateway")


class Gateway:
    """Sockets and the loop. Everything in it runs in one thread."""

    def __init__(self, role: Role) -> None:
        self.role, config = role, role.config
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        places = addresses(config.server, role.run_dir)
        self._engine_socket = sockets.bind_role(self._context, places.engine)
        self._speaker_socket = sockets.bind_role(self._context, places.speaker)
        self._client_socket = sockets.bind_clients(self._context, places.clients, config.server.max_message_bytes)
        self._telemetry = sockets.bind_telemetry(self._context, places.telemetry)
        self._watchers, wait_s = 0, config.server.role_wait_s
        self.engines = {
            name: Engine(name, spec.voice, self._sender(self._engine_socket, f"engine:{name}"), wait_s)
            for name, spec in config.engines.items()
        }
        self.speaker = Speaker(self._sender(self._speaker_socket, "speaker"), config.speaker.enabled, wait_s)
        machine = Machine(list(self.engines.values()), usable_cores())
        self.pools = {
            voice: Pool(voice, [engine for engine in machine.engines if engine.voice == voice], machine)
            for voice in config.voices
        }
        self.desk = Desk(config, self.pools, self.speaker, self._try_client)
        self.snapshots = Snapshots(config, self.desk, self.engines, role.stopping)
        self.desk.snapshot = self.snapshots.take
        self._published_ns, self._longest_turn_ns = time.monotonic_ns(), 0

    # ------------------------------------------------------------------- sockets

    def _sender(self, socket: zmq.Socket[bytes], identity: str) -> Callable[[Message], bool]:
        name = identity.encode()

        def send(message: Message) -> bool:
            # A role that is not there is told everything when it is back: see handles.py.
            with contextlib.suppress(zmq.Again, zmq.ZMQError):
                socket.send_multipart([name, *ipc.encode(message)], zmq.NOBLOCK)
                return True
            return False

        return send

    def _try_client(self, identity: bytes, parts: list[bytes]) -> bool | None:
        try:
            self._client_socket.send_multipart([identity, *parts], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return None
        return True

    # ---------------------------------------------------------------------- loop

    def run(self) -> None:
        """Read, decide, tick, until the role is to stop."""
        poller = zmq.Poller()
        for socket in (self._client_socket, self._engine_socket, self._speaker_socket):
            poller.register(socket, zmq.POLLIN)
        next_tick_ns = 0
        while not self.role.stopping.is_set():
            self.role.alive()
            ready = dict(poller.poll(TICK_MS))
            began_ns = time.monotonic_ns()
            for socket, handle, burst in (
                (self._engine_socket, self._from_engine, BURST),
                (self._speaker_socket, self._from_speaker, BURST),
                (self._client_socket, self._from_client, CLIENT_BURST),
            ):
                if socket in ready:
                    _drain(socket, handle, burst)
            if (now_ns := time.monotonic_ns()) >= next_tick_ns:
                next_tick_ns = now_ns + TICK_MS * 1_000_000
                self._tick(now_ns)
            self._longest_turn_ns = max(self._longest_turn_ns, time.monotonic_ns() - began_ns)
        self.desk.stop()

    def _from_client(self, identity: bytes, parts: list[bytes]) -> None:
        self.desk.handle(identity, parts, time.monotonic_ns())

    def _from_engine(self, identity: bytes, parts: list[bytes]) -> None:
        message, now_ns = _of_role(identity, parts), time.monotonic_ns()
        engine = self.engines.get(identity.decode(errors="replace").removeprefix("engine:"))
        if engine is None or message is None:
            return
        engine.heard(now_ns)
        session = self.desk.streams.by_key.get(getattr(message, "key", -1))
        here = session is not None and engine.streams.get(session.name) is session  # it may have moved to another
        match message:
            case ipc.Pcm() if session and here:
                session.pcm(message, now_ns)
            case ipc.Failed() if session and here:
                session.engine_failed(Code.INTERNAL, f"the engine gave up the stream: {message.text}")
            case ipc.Ready() | ipc.Load():
                engine.handle(message, now_ns)

    def _from_speaker(self, identity: bytes, parts: list[bytes]) -> None:
        message, now_ns = _of_role(identity, parts), time.monotonic_ns()
        if message is None:
            return
        self.speaker.heard_ns = now_ns
        session = self.desk.streams.by_key.get(getattr(message, "key", -1))
        match message:
            case ipc.Position() if session:
                session.position(message)
            case ipc.Underrun() if session:
                session.underrun(message)
            case ipc.Played() if session:
                session.played(message)
            case ipc.Flushed() if session:
                session.flushed(message)
            case ipc.DeviceReady() | ipc.DeviceGone() | ipc.Load():
                self.speaker.handle(message, list(self.desk.streams.sessions.values()), now_ns)

    def _tick(self, now_ns: int) -> None:
        self.desk.tick(now_ns)
        for pool in self.pools.values():
            pool.tick(now_ns)
        self.speaker.tick(list(self.desk.streams.sessions.values()), now_ns)
        if now_ns - self._published_ns >= TELEMETRY_NS:
            self._published_ns = now_ns
            self.snapshots.turn_ms, self._longest_turn_ns = self._longest_turn_ns / 1e6, 0
            self._publish()

    def _publish(self) -> None:
        # Drawing a snapshot takes time that no stream should pay for when nobody is watching.
        with contextlib.suppress(zmq.Again):
            while True:
                self._watchers += 1 if self._telemetry.recv(zmq.NOBLOCK)[:1] == b"\x01" else -1
        if self._watchers > 0:
            with contextlib.suppress(zmq.Again):
                self._telemetry.send(msgpack.packb(self.snapshots.take().to_map()), zmq.NOBLOCK)

    def close(self) -> None:
        """Close the sockets; what was said last still goes out, within their linger."""
        for socket in (self._client_socket, self._telemetry, self._engine_socket, self._speaker_socket):
            socket.close()
        self._context.term()


def _drain(socket: zmq.Socket[bytes], handle: Callable[[bytes, list[bytes]], None], burst: int) -> None:
    with contextlib.suppress(zmq.Again):
        for _ in range(burst):
            identity, *parts = socket.recv_multipart(zmq.NOBLOCK)
            handle(identity, parts)


def _of_role(identity: bytes, parts: list[bytes]) -> Message | None:
    """A message of a role; None for what cannot be read: a fault of ours on either side, but no reason to end streams."""
    try:
        return ipc.decode(parts)
    except WireError as error:
        log.error("refused a message of %s: %s", identity.decode(errors="replace"), error)
        return None


def main() -> None:
    """Bind, say ready, serve until told to stop."""
    with Role.start("gateway") as role:
        gateway = Gateway(role)
        gc.collect()
        gc.freeze()
        role.ready(endpoint=addresses(role.config.server, role.run_dir).clients)
        try:
            gateway.run()
        finally:
            gateway.close()
