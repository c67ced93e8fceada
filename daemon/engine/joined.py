"""An engine on another machine: it joins the gateway of a daemon by TCP, serves its streams, and leaves in order.

    engine = JoinedEngine(config, "glow", "glowd://pool:SECRET@HOST:PORT#SERVERKEY")
    engine.load()
    engine.run()               # until stop(), or until leave() has been answered; both may be called from any thread

Rules: as in process.py: one thread does everything, and messages that arrive while the network runs wait in the socket. There is
no supervisor and no run directory. A gateway that is away is waited for. With a connection all streams end: the gateway gives
them again by the next one (engine_link.py).
"""

import contextlib
import gc
import logging
import secrets
import socket
import threading
import time
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.daemon import engine_link, ipc
from glowd.daemon.config import Config, EngineSpec
from glowd.daemon.engine.process import STEP_MS, build_renderer, load_voice
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.runtime.sockets import joining_socket
from glowd.daemon.runtime.system import host_name, usable_cores
from glowd.daemon.wire import WireError
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.flow.vocoder import AnyVocoder

JOIN_EVERY_S = 1.0
EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH

log = logging.getLogger("glowd.engine")


class TurnedAwayError(CannotStart):
    """The gateway does not want this engine. The text is the gateway's reason."""


@dataclass(frozen=True, slots=True)
class LoadedVoice:
    """A voice that is warm, and how it is announced."""

    vocoder: AnyVocoder
    ready: ipc.Ready


class JoinedEngine:
    """One engine, in this process. Owner: the thread that calls `run`."""

    def __init__(self, config: Config, voice: str, address: Address, name: str = "", device: str = "") -> None:
        """`name`: what it is called at the gateway, after the voice; "": that of this machine."""
        settings = config.voices[voice]
        self._config, self._settings, self._address = config, settings, address
        self.name = name or socket.gethostname().split(".")[0]
        self._spec = EngineSpec(self.name, voice, device or next(iter(settings.devices), "auto"))
        self._instance, self._started_s = secrets.randbits(48), time.monotonic()
        self._voice: LoadedVoice | None = None
        self._ending, self._leaving = threading.Event(), threading.Event()
        self.joined_as = ""
        """Its name at the gateway, while it is connected; else ""."""

    def load(self) -> ipc.Ready:
        """Load the voice and measure what it can serve. Raises CannotStart."""
        self.use(LoadedVoice(*load_voice(self._config, self._spec, self._instance, self._started_s)))
        assert self._voice
        return self._voice.ready

    def use(self, voice: LoadedVoice) -> None:
        """Serve a voice that is loaded."""
        self._voice = voice

    def leave(self) -> None:
        """Take no more streams, and end once those that are here have moved to another engine; at once without a gateway."""
        self._leaving.set()

    def stop(self) -> None:
        """End now. Streams that are here go on in another engine, or wait for one."""
        self._ending.set()

    def run(self) -> None:
        """Serve until it is stopped, or dismissed. Raises TurnedAwayError if the gateway refuses this engine."""
        assert self._voice, "call load first"
        gc.collect()
        gc.freeze()  # as in process.py
        while not (self._ending.is_set() or self._leaving.is_set()):
            with zmq.Context() as context, Connection(context, self._address) as connection:
                self._serve(connection, self._voice)
            self.joined_as = ""

    def _serve(self, connection: "Connection", voice: LoadedVoice) -> None:
        """Join, and render what the gateway asks for, until the connection or this engine ends."""
        renderer = build_renderer(voice.vocoder, self._settings, connection.send)
        asked_s = told_s = 0.0
        try:
            while not (self._ending.is_set() or connection.is_lost or (self._leaving.is_set() and not self.joined_as)):
                now_s = time.monotonic()
                if not self.joined_as and connection.is_open and now_s - asked_s >= JOIN_EVERY_S:
                    asked_s = now_s
                    connection.send(self._join(voice.ready))
                if self.joined_as and self._leaving.is_set() and now_s - told_s >= JOIN_EVERY_S:
                    told_s = now_s
                    connection.send(engine_link.Leaving())
                connection.wait(self._wait_ms(renderer))
                for message in connection.received():
                    self._handle(message, renderer, connection, voice.ready)
                renderer.step()
                if (report := renderer.load()) and self.joined_as:
                    connection.send(report)
                    connection.send(voice.ready)
        finally:
            renderer.handle(ipc.DropAll())

    def _wait_ms(self, renderer: Renderer) -> int:
        wait_ns = renderer.scheduler.wait_ns(renderer.streams.values(), time.monotonic_ns())
        return STEP_MS if wait_ns is None else min(STEP_MS, -(-wait_ns // 1_000_000))

    def _join(self, ready: ipc.Ready) -> engine_link.Join:
        return engine_link.Join(
            version=engine_link.VERSION,
            oldest_version=engine_link.OLDEST_VERSION,
            voice=ready.voice,
            engine=self.name,
            instance=self._instance,
            host=host_name(),
            cores=usable_cores(),
            chunk_frames=self._settings.chunk_frames,
            max_chunk_frames=self._settings.max_chunk_frames,
        )

    def _handle(self, message: Message, renderer: Renderer, connection: "Connection", ready: ipc.Ready) -> None:
        match message:
            case engine_link.Joined():
                if not self.joined_as:
                    log.info("joined %s as engine %s", self._address.shown, message.name)
                    connection.send(ready)
                self.joined_as = message.name
            case engine_link.TurnedAway():
                raise TurnedAwayError(f"the gateway at {self._address.shown} turned this engine away: {message.text}")
            case engine_link.Dismissed():
                log.info("no stream needs this engine any more")
                self._ending.set()
            case _:
                renderer.handle(message)


class Connection:
    """One connection to a gateway. `is_open` once it is made and both keys are right; `is_lost` when it has ended."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: Address) -> None:
        self._address, self.is_open, self.is_lost = address, False, False
        self._looked_ns, self._unread_ns = time.monotonic_ns(), 0
        self._socket = joining_socket(context, address)
        self._monitor = self._socket.get_monitor_socket(EVENTS)
        self._poller = zmq.Poller()
        for one in (self._socket, self._monitor):
            self._poller.register(one, zmq.POLLIN)
        self._socket.connect(address.url)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()

    def wait(self, timeout_ms: int) -> None:
        """Wait for a message, or for news of the connection."""
        waits = self._socket in dict(self._poller.poll(0))
        self._unread_ns = time.monotonic_ns() - self._looked_ns if waits else 0
        ready = dict(self._poller.poll(timeout_ms))
        if self._monitor in ready:
            self._take_event(parse_monitor_message(self._monitor.recv_multipart())["event"])

    def _take_event(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.is_open = True
        elif event == zmq.EVENT_DISCONNECTED:
            self.is_lost = self.is_open
        else:
            raise TurnedAwayError(
                f"{self._address.shown} does not let this key in: it was revoked, is unknown, or has not the role engine; "
                "ask for a new address (glowctl key new NAME --role engine)"
            )

    def received(self) -> list[Message]:
        """The messages that have arrived. Probes are answered; one that cannot be read, of a later version, is left out."""
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                read_ns = time.monotonic_ns()
                try:
                    message = engine_link.decode(parts)
                except WireError as error:
                    log.warning("ignored a message of the gateway: %s", error)
                    continue
                if isinstance(message, engine_link.Probe):
                    self._answer(message, read_ns)
                else:
                    found.append(message)
        self._looked_ns = time.monotonic_ns()
        return found

    def _answer(self, probe: engine_link.Probe, read_ns: int) -> None:
        self.send(engine_link.Echo(probe.t_sent_ns, read_ns, time.monotonic_ns(), self._unread_ns))

    def send(self, message: Message) -> None:
        """Send; nothing, once the connection is lost."""
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart(engine_link.encode(message), zmq.NOBLOCK)
