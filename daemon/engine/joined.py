"""An engine on another machine: it joins the gateway of a daemon, serves its streams, and leaves in order.

    engine = JoinedEngine(config, "glow", "glowd://pool:SECRET@HOST:PORT#SERVERKEY")
    engine.load()
    engine.run()               # until stop(), or until leave() has been answered; both may be called from any thread

Rules: as in process.py: one thread does everything, and messages that arrive while the network runs wait in the socket. There is
no supervisor and no run directory. A gateway that is away is waited for. With a connection all streams end: the gateway gives
them again by the next one (engine_link.py).
"""

import gc
import logging
import secrets
import socket
import threading
import time
from dataclasses import dataclass

import zmq

from glowd.daemon import engine_link, ipc
from glowd.daemon.config import Config, EngineSpec
from glowd.daemon.engine.connection import Connection, DiallingConnection, TurnedAwayError
from glowd.daemon.engine.listening import ListeningConnection
from glowd.daemon.engine.process import STEP_MS, build_renderer, load_voice
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.runtime.sockets import Context
from glowd.daemon.runtime.system import host_name, usable_cores
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.flow.vocoder import AnyVocoder

JOIN_EVERY_S = 1.0

log = logging.getLogger("glowd.engine")


@dataclass(frozen=True, slots=True)
class LoadedVoice:
    """A voice that is warm, and how it is announced."""

    vocoder: AnyVocoder
    ready: ipc.Ready


class JoinedEngine:
    """One engine, in this process. Owner: the thread that calls `run`."""

    def __init__(
        self, config: Config, voice: str, address: Address, name: str = "", device: str = "", listen: str = ""
    ) -> None:
        """`name`: what it is called at the gateway, after the voice; "": that of this machine. `listen`: see listening.py."""
        settings = config.voices[voice]
        self._config, self._settings, self._address, self._listen = config, settings, address, listen
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
            with zmq.Context() as context, self._connection(context) as connection:
                self._serve(connection, self._voice)
            self.joined_as = ""

    def _connection(self, context: Context) -> Connection:
        if self._listen:
            return ListeningConnection(context, self._address, self._listen)
        return DiallingConnection(context, self._address)

    def _serve(self, connection: Connection, voice: LoadedVoice) -> None:
        """Join, and render what the gateway asks for, until the connection or this engine ends."""
        renderer = build_renderer(voice.vocoder, self._settings, connection.send)
        asked_s = told_s = 0.0
        try:
            while not (self._ending.is_set() or connection.is_lost or (self._leaving.is_set() and not self.joined_as)):
                now_s = time.monotonic()
                if not self.joined_as and connection.is_open and now_s - asked_s >= JOIN_EVERY_S:
                    asked_s = now_s if connection.send(self._join(voice.ready)) else asked_s
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

    def _handle(self, message: Message, renderer: Renderer, connection: Connection, ready: ipc.Ready) -> None:
        match message:
            case engine_link.Joined():
                if not self.joined_as:
                    log.info("joined %s as engine %s", connection.gateway, message.name)
                    connection.send(ready)
                self.joined_as = message.name
            case engine_link.JoinAgain() if self.joined_as:  # else Join is on its way
                log.warning("%s does not know this engine any more; joining again", self._address.shown)
                self.joined_as = ""
                renderer.handle(ipc.DropAll())
            case engine_link.JoinAgain():
                pass
            case engine_link.TurnedAway():
                raise TurnedAwayError(f"{connection.gateway} turned this engine away: {message.text}")
            case engine_link.Dismissed():
                log.info("no stream needs this engine any more")
                self._ending.set()
            case _:
                renderer.handle(message)
