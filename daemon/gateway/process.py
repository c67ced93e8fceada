"""The gateway role: the sockets between clients, engines and the speaker, and the loop that reads them.

    python -m glowd.daemon.gateway --run-dir D [--config F]

Rules: the only file of the daemon that binds a client socket. One thread, one poll loop, nothing blocks; no torch.
Whatever a message means is decided behind it: router.py for clients, session.py for streams, handles.py for roles.
"""

import contextlib
import gc
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import zmq

from glowd.daemon import ipc
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.metrics import combined, rss_bytes
from glowd.daemon.gateway.placement import Machine, Pool, usable_cores
from glowd.daemon.gateway.router import Desk
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses, is_busy
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message

TICK_MS = 20
TELEMETRY_NS = 500_000_000
CLIENT_QUEUE = 256
"""Messages the transport holds per client; beyond it they wait in the peer's outbox or in its session."""
BURST, CLIENT_BURST = 64, 16
"""Messages read from one socket before the others get a turn. Clients may flood; roles send what was asked of them."""

log = logging.getLogger("glowd.gateway")


class Gateway:
    """Sockets and the loop. Everything in it runs in one thread."""

    def __init__(self, role: Role) -> None:
        self.role, config = role, role.config
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        places = addresses(config.server, role.run_dir)
        self._engine_socket = self._role_socket(places.engine)
        self._speaker_socket = self._role_socket(places.speaker)
        self._client_socket = self._bind_clients(places.clients, config.server.max_message_bytes)
        self._telemetry = self._context.socket(zmq.XPUB)
        self._telemetry.setsockopt(zmq.LINGER, 0)
        self._telemetry.setsockopt(zmq.XPUB_VERBOSER, 1)  # every subscription, so that they can be counted
        self._watchers, wait_s = 0, config.server.role_wait_s
        _bind(self._telemetry, places.telemetry)
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
        self.desk.snapshot = self.snapshot
        self._started_ns = self._published_ns = time.monotonic_ns()
        self._longest_turn_ns = 0
        self._turn_ms: float | None = None

    # ------------------------------------------------------------------- sockets

    def _role_socket(self, endpoint: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        # A role that was restarted comes back under its old identity and takes it over.
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 200)
        _bind(socket, endpoint)
        return socket

    def _bind_clients(self, endpoint: str, max_message_bytes: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, max_message_bytes)
        socket.setsockopt(zmq.SNDHWM, CLIENT_QUEUE)
        socket.setsockopt(zmq.RCVHWM, CLIENT_QUEUE)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        # No HEARTBEAT_IVL: libzmq 4.3.5 aborts the process when it beats for a client that has gone while more than RCVHWM
        # of its messages waited to be read. Clients ping, and those that are silent for idle_timeout_s are closed.
        socket.setsockopt(zmq.LINGER, 500)
        _bind(socket, endpoint)
        return socket

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
        session = self.desk.by_key.get(getattr(message, "key", -1))
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
        session = self.desk.by_key.get(getattr(message, "key", -1))
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
                self.speaker.handle(message, list(self.desk.sessions.values()), now_ns)

    def _tick(self, now_ns: int) -> None:
        self.desk.tick(now_ns)
        for pool in self.pools.values():
            pool.tick(now_ns)
        self.speaker.tick(list(self.desk.sessions.values()), now_ns)
        if now_ns - self._published_ns >= TELEMETRY_NS:
            self._published_ns = now_ns
            self._turn_ms, self._longest_turn_ns = self._longest_turn_ns / 1e6, 0
            self._publish()

    def _publish(self) -> None:
        # Drawing a snapshot takes time that no stream should pay for when nobody is watching.
        with contextlib.suppress(zmq.Again):
            while True:
                self._watchers += 1 if self._telemetry.recv(zmq.NOBLOCK)[:1] == b"\x01" else -1
        if self._watchers > 0:
            with contextlib.suppress(zmq.Again):
                self._telemetry.send(msgpack.packb(self.snapshot()[1]), zmq.NOBLOCK)

    # ----------------------------------------------------------------- telemetry

    def snapshot(self) -> tuple[str, dict[str, Any]]:
        """The daemon's state and everything known; see metrics.py."""
        now_ns = time.monotonic_ns()
        fine = all(engine.there(now_ns) and not engine.load.get("degraded") for engine in self.engines.values())
        state = "ready" if fine else "degraded"
        state = "stopping" if self.role.stopping.is_set() else state
        return state, {
            "t_ns": now_ns,
            "state": state,
            "uptime_s": (now_ns - self._started_ns) / 1e9,
            "clients": len(self.desk.peers),
            "max_streams": self.role.config.server.max_streams,
            "roles": self._roles(now_ns),
            "voices": {name: self._voice(pool, now_ns) for name, pool in self.pools.items()},
            "streams": {name: self._stream(name) for name in self.desk.sessions},
        }

    def _roles(self, now_ns: int) -> dict[str, Any]:
        def role(backend: Engine | Speaker) -> dict[str, Any]:
            age_s = None if backend.heard_ns is None else (now_ns - backend.heard_ns) / 1e9
            rss = backend.load.get("rss_bytes")
            return {"alive": backend.there(now_ns), "age_s": age_s, "rss_bytes": rss}

        speaker = role(self.speaker)
        device = self.speaker.device
        speaker["device"] = None if device is None else device.name
        speaker["latency_ms"] = None if device is None else device.latency_ms
        speaker["why_not"] = self.speaker.why_not if device is None else None
        return {
            "gateway": {"alive": True, "age_s": 0.0, "rss_bytes": rss_bytes(), "turn_ms": self._turn_ms},
            **{f"engine:{name}": role(engine) for name, engine in self.engines.items()},
            "speaker": speaker,
        }

    def _voice(self, pool: Pool, now_ns: int) -> dict[str, Any]:
        living, capacity = pool.living(now_ns), pool.capacity(now_ns)
        return {
            "ready": bool(living),
            "default": pool.voice == self.desk.default_voice,
            "open": sum(len(engine.streams) for engine in pool.engines),
            "max_streams": capacity and capacity["streams"],
            "capacity": capacity,
            **combined([engine.load for engine in living]),
            "engines": {engine.name: self._engine(engine, now_ns) for engine in pool.engines},
        }

    def _engine(self, engine: Engine, now_ns: int) -> dict[str, Any]:
        there = engine.there(now_ns)  # else what it last said about its work is past
        return {
            "ready": there,
            "device": engine.device or None,
            "open": len(engine.streams),
            "max_streams": engine.max_streams,
            "capacity": engine.info.get("capacity"),
            **combined([engine.load] if there else []),
        }

    def _stream(self, name: str) -> dict[str, Any]:
        session = self.desk.sessions[name]
        engine = next(engine.name for engine in self.pools[session.voice].engines if name in engine.streams)
        about = {"client": self.desk.owners[name].name, "engine": engine}
        return {**about, **dict(session.describe()), **session.meter.snapshot()}

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


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind, privately for ipc. Raises OSError naming the endpoint if it is taken."""
    if is_busy(endpoint):  # ZeroMQ would take a local socket away from whoever listens there
        raise OSError(f"cannot listen on {endpoint}: another program does; is another glowd running?")
    try:
        with _private_umask():
            socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise OSError(f"cannot listen on {endpoint}: {error.strerror}; is another glowd running?") from error
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).chmod(stat.S_IRUSR | stat.S_IWUSR)


@contextlib.contextmanager
def _private_umask() -> Iterator[None]:
    old = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(old)


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
