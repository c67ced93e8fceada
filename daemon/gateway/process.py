"""The gateway process: the sockets between clients, engines and the speaker, and the loop that reads them.

    python -m glowd.daemon.gateway --run-dir D [--config F]

Rules: one thread, one poll loop, nothing blocks; no torch. What a message means is decided elsewhere: router.py for clients,
role_messages.py for processes. The options of the sockets are in runtime/sockets.py.
"""

import contextlib
import gc
import logging
from collections.abc import Callable
from functools import partial
from socket import gethostname

import zmq

from glowd.daemon import ipc
from glowd.daemon.config import RESTART_S, Config, EngineSpec
from glowd.daemon.gateway.clients.authentication import CLIENT_DOMAIN, ENGINE_DOMAIN, TELEMETRY_DOMAIN, Authentication
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.gateway.clients.watchers import Watchers
from glowd.daemon.gateway.clock import Excuse, GatewayClock
from glowd.daemon.gateway.containment import contained, give_up
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.joined_socket import JoinedSocket
from glowd.daemon.gateway.joining import Joining
from glowd.daemon.gateway.outgoing import Outgoing
from glowd.daemon.gateway.placement.draining import Draining
from glowd.daemon.gateway.placement.progress import Progress
from glowd.daemon.gateway.placement.registry import StreamRegistry
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.gateway.publishing import Publisher
from glowd.daemon.gateway.reloading import Reloading
from glowd.daemon.gateway.role_messages import RoleMessages
from glowd.daemon.gateway.router import ClientRouter
from glowd.daemon.gateway.snapshot import SnapshotTaker
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.runtime import sockets
from glowd.daemon.runtime.keys import KeyFileError, KeyFiles, keys_directory
from glowd.daemon.runtime.role import CannotStart, Role, RoleNews
from glowd.daemon.runtime.rundir import Addresses, addresses
from glowd.daemon.runtime.status import NewSettings, Nodes
from glowd.daemon.runtime.system import allow_open_files, host_name, usable_cores
from glowd.daemon.wire.fields import Message

TICK_MS = 20
LOOK_NS, RENEW_NS = 500_000_000, 1_000_000_000
SETTLE_NS = 600_000_000
"""After an absence it takes a moment until the messages that wait outside this process have come in."""
MAX_SUBSCRIBERS = 64
"""Connections to the telemetry."""
OPEN_FILES = 16_384
GARBAGE_AFTER = 20_000
"""New objects until Python looks for cycles among them: streams that were closed leave some, messages none."""
BURST = 16
"""Messages read from one socket before what they have caused is sent, and the next socket is read."""

log = logging.getLogger("glowd.gateway")


class Gateway:
    """The sockets, the loop, and the objects behind them. Everything in it runs in one thread."""

    def __init__(self, role: Role, clock: Callable[[Excuse], GatewayClock] = GatewayClock) -> None:
        self.role, self._clock = role, clock(self._excuse)
        self._late_since_ns: int | None = None  # since when what is read now may have waited for this process
        self._absent_until_ns = 0
        self._open_sockets(role.config, addresses(role.config.server, role.run_dir))
        self._build(role.config)
        allow_open_files(OPEN_FILES)
        self._looked_ns, self._longest_pass_ns = self._clock.now_ns(), 0
        self._next_tick_ns = self._renewed_ns = 0

    def _open_sockets(self, config: Config, endpoints: Addresses) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._engine_socket = sockets.bind_role(self._context, endpoints.engine)
        self._speaker_socket = sockets.bind_role(self._context, endpoints.speaker)
        self._authentication = self._let_in(config, endpoints)
        remote = partial(self._remote, config)
        self.visitors, self.subscribers = Visitors(), Visitors(MAX_SUBSCRIBERS, None)
        self._client_socket = sockets.bind_clients(
            self._context,
            endpoints.clients,
            config.server.max_message_bytes,
            remote(endpoints.remote_clients, CLIENT_DOMAIN),
            self.visitors.watch,
        )
        self._telemetry = sockets.bind_telemetry(
            self._context,
            endpoints.telemetry,
            remote(endpoints.remote_telemetry, TELEMETRY_DOMAIN),
            self.subscribers.watch,
        )
        self._joined_socket = self._open_joined(config)
        self._poller = zmq.Poller()
        if self._authentication:
            self._poller.register(self._authentication.zap_socket, zmq.POLLIN)
        for visitors in (self.visitors, self.subscribers):
            self._poller.register(visitors.monitor, zmq.POLLIN)
        for socket in (self._client_socket, self._engine_socket, self._speaker_socket):
            self._poller.register(socket, zmq.POLLIN)
        self._files = [
            sockets.SocketFile(self._engine_socket, endpoints.engine),
            sockets.SocketFile(self._speaker_socket, endpoints.speaker),
            sockets.SocketFile(self._client_socket, endpoints.clients),
            sockets.SocketFile(self._telemetry, endpoints.telemetry),
        ]

    def _let_in(self, config: Config, endpoints: Addresses) -> Authentication | None:
        """Who is let in from other machines; None if nobody can come, or everybody may."""
        remote = endpoints.remote_clients or endpoints.remote_telemetry
        if not config.server.has_engines_elsewhere and (config.server.plain_tcp or not remote):
            return None
        return Authentication(self._context, KeyFiles(keys_directory(config.server)))

    def _remote(self, config: Config, endpoint: str, domain: str) -> sockets.Remote | None:
        if not endpoint:
            return None
        if config.server.plain_tcp or self._authentication is None:
            log.warning("%s is neither encrypted nor protected by keys (server.plain_tcp)", endpoint)
            return sockets.Remote(endpoint, None, domain)
        return sockets.Remote(endpoint, self._authentication.keys.server()[1], domain)

    def _open_joined(self, config: Config) -> JoinedSocket | None:
        """The socket of the engines of other machines; None if there may be none."""
        if not config.server.has_engines_elsewhere or self._authentication is None:
            return None
        secret = self._authentication.keys.server()[1]
        return JoinedSocket(self._context, sockets.Remote(config.server.engines, secret, ENGINE_DOMAIN))

    def _build(self, config: Config) -> None:
        self._clients = dict[bytes, ClientConnection]()
        self.to_clients = Outgoing(
            self._client_socket, lambda identity: self.router.gone(identity), sockets.CLIENT_QUEUE
        )
        self.to_speaker = Outgoing(self._speaker_socket, lambda _: None)  # it is told everything when it is back
        self.to_engines = Outgoing(self._engine_socket, self._engine_gone)
        self.speaker = SpeakerHandle(
            self._sender(self.to_speaker, "speaker"), config.speaker.enabled, config.server.role_wait_s,
            self._voice_rates_hz,
        )  # fmt: skip
        self.streams = StreamRegistry(self._clients, self.speaker, Recordings(config.files))
        self.progress, draining = Progress(self.streams), Draining(self.streams)
        self.roster = Roster(config, self._engine, self.streams, usable_cores(), host_name())
        self.engines, self.pools = self.roster.engines, self.roster.pools
        self.snapshots = SnapshotTaker(
            config, self._clients, self.streams, draining, self.progress, self.pools, self.engines, self.speaker,
            self.role.stopping, self._clock.now_ns,
        )  # fmt: skip
        keys = self._authentication.keys.current if self._authentication else dict
        watchers = Watchers(self._telemetry, self.subscribers, keys)
        self.publisher = Publisher(self._telemetry, watchers, self.snapshots)
        self.router = ClientRouter(
            config, self._clients, self.streams, self.pools, self.speaker, self.to_clients.put, self.snapshots.take,
            self.visitors, draining, keys,
        )  # fmt: skip
        self._inbox = RoleMessages(self.engines, self.speaker, self.streams, self.progress, self._clock.now_ns)
        self.joining = self._joining()
        self._use_waits(config)
        self.visitors.use(config)
        users = [self.router.use, self.snapshots.use, self.streams.use, self._use_waits, self.visitors.use]
        if self._joined_socket:
            self._joined_socket.use(config)
            users.append(self._joined_socket.use)
        self.reloading = Reloading(self.roster, users, self.role.applied)

    def _joining(self) -> Joining | None:
        if self._joined_socket is None or self._authentication is None:
            return None
        self._poller.register(self._joined_socket.socket, zmq.POLLIN)
        dialling, name = self._joined_socket.dialling, f"{gethostname()}:{self.role.run_dir}"
        self.snapshots.dialled = lambda: dialling.why_not
        send, keys = self._joined_socket.send, self._authentication.keys.current
        return Joining(self.roster, send, keys, self._inbox.take, self._joined_socket.heard, name)

    def _engine(self, spec: EngineSpec) -> EngineHandle:
        return EngineHandle(spec.name, spec.voice, self._sender(self.to_engines, f"engine:{spec.name}"))

    def _engine_gone(self, identity: bytes) -> None:
        """What it missed it is told when it is back: see handles/engine.py."""
        if engine := self.engines.get(identity.decode().removeprefix("engine:")):
            engine.gone()

    def _use_waits(self, config: Config) -> None:
        wait_s = config.server.role_wait_s
        self.speaker.use_waits(wait_s)
        for engine in self.engines.values():
            engine.use_waits(wait_s, config.supervisor.watchdog_s + RESTART_S)

    def _voice_rates_hz(self) -> set[int]:
        return {engine.rate_hz for engine in self.engines.values() if engine.rate_hz}

    # ------------------------------------------------------------------- sockets

    def _sender(self, outgoing: Outgoing, identity: str) -> Callable[[Message], bool]:
        name = identity.encode()
        return lambda message: outgoing.put(name, ipc.encode(message))

    def _flush(self) -> None:
        """Send what the messages that were read have caused."""
        for outgoing in (self.to_engines, self.to_clients, self.to_speaker):
            outgoing.flush()

    # ---------------------------------------------------------------------- loop

    def run(self) -> None:
        """Read messages and tick until the process is to stop."""
        while not self.role.stopping.is_set():
            self.role.alive(self.progress.stall)
            self.step()
        self.to_clients.retry()  # who reads again is told, too
        self.router.stop()
        self._flush()

    def step(self) -> None:
        """One pass: wait for messages, at most TICK_MS, read some of each socket, and tick if it is time."""
        ready = dict(self._poller.poll(TICK_MS))
        began_ns = self._clock.now_ns()
        if self._authentication and self._authentication.zap_socket in ready:
            self._authentication.answer()
        for visitors in (self.visitors, self.subscribers):
            if visitors.monitor in ready:
                visitors.take(began_ns)
        for socket, handle in (
            (self._engine_socket, self._inbox.from_engine),
            (self._speaker_socket, self._inbox.from_speaker),
        ):
            if socket in ready:
                _drain(socket, handle)
                self._flush()
        if self.joining and self._joined_socket and self._joined_socket.socket in ready:
            self._joined_socket.read(self.joining, self._clock.now_ns)
            self._flush()
        is_read = self._client_socket not in ready or self._read_clients()
        self._flush()
        if is_read and began_ns - self._absent_until_ns > SETTLE_NS:
            self._late_since_ns = None
        if (now_ns := self._clock.now_ns()) >= self._next_tick_ns:
            self._next_tick_ns = now_ns + TICK_MS * 1_000_000
            self._tick(now_ns)
            self._flush()
        self._longest_pass_ns = max(self._longest_pass_ns, self._clock.now_ns() - began_ns)

    def _excuse(self, began_ns: int, absent_ns: int) -> None:
        """Hold against nobody that nothing was heard while this process did not run, or its loop was held up.

        What clients have sent meanwhile is not late: it counts as received when the absence began.
        """
        self._late_since_ns, self._absent_until_ns = self._late_since_ns or began_ns, began_ns + absent_ns
        log.warning("the gateway did not run for %.1f s", absent_ns / 1e9)
        self.progress.excuse()
        for engine in self.engines.values():
            engine.excuse(absent_ns)
        for client in self._clients.values():
            client.excuse(absent_ns)
        for visitors in (
            self.visitors,
            self.subscribers,
            *([self._joined_socket.visitors] if self._joined_socket else []),
        ):
            visitors.excuse(absent_ns)
        self.speaker.excuse(absent_ns)

    def _read_clients(self) -> bool:
        """Handle what clients have sent, at most a burst; returns whether nothing is left."""
        with contextlib.suppress(zmq.Again):
            for _ in range(BURST):
                frame, parts = sockets.receive_of_client(self._client_socket)
                identity, sender = frame.bytes, partial(sockets.sender_of, frame)
                try:
                    self.router.handle(identity, parts, self._clock.now_ns(), self._late_since_ns, sender)
                except Exception as error:  # the edge between peers
                    give_up(error, "a message of a client", partial(self.router.expel, identity))
            return False
        return True

    def _tick(self, now_ns: int) -> None:
        self.to_clients.retry()
        for news in self.role.news():
            self._hear(news)
        with contained("reloading", lambda _: None):
            self.reloading.tick(now_ns)
        if self._authentication:
            with contained("reading the files of keys", lambda _: None):
                self._authentication.tick(now_ns)
        self.router.tick(now_ns)
        self.visitors.tick(now_ns)
        self.subscribers.tick(now_ns)
        if self.joining and self._joined_socket:
            with contained("looking after engines of other machines", lambda _: None):
                self._joined_socket.tick(now_ns)
                self.joining.tick(self._clock.now_ns())  # as exactly as links are measured
        for released in self.roster.tick(now_ns):
            if not (self.joining and self.joining.dismiss(released)):
                self.role.released(f"engine:{released}")
        with contained("looking after the streams of the speaker", lambda _: None):
            self.speaker.tick(self._inbox.sessions(), now_ns)
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            own = [engine for engine in self.engines.values() if engine.origin is None]
            # Only of our own engines: a restart of this daemon would not mend the others.
            self.progress.look(own, now_ns)
            self.snapshots.turn_ms, self._longest_pass_ns = self._longest_pass_ns / 1e6, 0
        self._flush()  # telemetry takes its time
        with contained("telemetry", lambda _: None):
            self.publisher.tick(now_ns)
        if now_ns - self._renewed_ns >= RENEW_NS:
            self._renewed_ns = now_ns
            for text in sockets.renew_files(self._files):
                log.warning("%s", text)

    def _hear(self, news: RoleNews) -> None:
        """The supervisor says how a process is, has new settings, or knows nodes."""
        if isinstance(news, NewSettings):
            self.reloading.take(news)
        elif isinstance(news, Nodes) or news.role == "cluster":
            self.snapshots.hear_of_cluster(news)
        elif news.role == self.speaker.news.role:
            self.speaker.hear(news)
        elif engine := self.engines.get(news.role.removeprefix("engine:")):
            engine.hear(news)

    def close(self) -> None:
        """Close the sockets. The last messages are still sent, within their linger."""
        for visitors in (self.visitors, self.subscribers):
            visitors.close()
        for socket in (self._client_socket, self._telemetry, self._engine_socket, self._speaker_socket):
            socket.close()
        if self._joined_socket:
            self._joined_socket.close()
        if self._authentication:
            self._authentication.stop()
        self._context.term()


def _drain(socket: zmq.Socket[bytes], handle: Callable[[bytes, list[bytes]], None]) -> None:
    """Handle what a role has sent, at most a burst."""
    with contextlib.suppress(zmq.Again):
        for _ in range(BURST):
            handle(*sockets.receive_of_role(socket))


def main() -> None:
    """Bind the sockets, report ready, and serve until the process is to stop."""
    with Role.start("gateway") as role:
        try:
            gateway = Gateway(role)
        except KeyFileError as error:
            raise CannotStart(str(error)) from None
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_AFTER)
        role.ready(endpoint=addresses(role.config.server, role.run_dir).clients)
        try:
            gateway.run()
        finally:
            gateway.close()
