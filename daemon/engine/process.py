"""The engine role: the process that renders streams of one voice on one device, its socket and its loop.

    python -m glowd.daemon.engine --run-dir D --engine NAME [--config F]

Rules: one thread does everything (messages in, scheduler, network, messages out), so no state is shared. Messages that
arrive while the network runs wait in the socket. renderer.py decides what is rendered, and when.
"""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator

import zmq

from glowd.daemon import ipc
from glowd.daemon.config import Config, EngineSpec
from glowd.daemon.config_voices import VoiceSettings, WaveGlowSettings
from glowd.daemon.engine.capacity import device_of, is_single_threaded
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.engine.vocoders import build_vocoder, describe, digest, prepare
from glowd.daemon.runtime.caches import place_caches
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.sockets import connect_engine
from glowd.daemon.runtime.system import set_niceness
from glowd.daemon.wire.fields import Message
from glowd.flow.vocoder import AnyVocoder

STEP_MS = 500
"""Longest sleep of the loop: short enough to report `alive` in time."""


@contextlib.contextmanager
def heartbeat(role: Role) -> Iterator[None]:
    """Report `alive` from a thread, for voices whose single call takes as long as an utterance: they do not hang."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.5):
            role.alive()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def serve(role: Role, renderer: Renderer, socket: zmq.Socket[bytes], ready: ipc.Ready) -> None:
    """The loop: receive, make one call that is due, report. Returns when the role is to stop."""
    socket.send_multipart(ipc.encode(ready))
    while not role.stopping.is_set():
        role.alive()
        now_ns = time.monotonic_ns()
        wait_ns = renderer.scheduler.wait_ns(renderer.streams.values(), now_ns)
        timeout_ms = STEP_MS if wait_ns is None else min(STEP_MS, -(-wait_ns // 1_000_000))
        if socket.poll(timeout_ms):
            _receive(renderer, socket)
        with heartbeat(role) if renderer.vocoder.whole_utterance else contextlib.nullcontext():
            renderer.step()
        if report := renderer.load():
            socket.send_multipart(ipc.encode(report))
            socket.send_multipart(ipc.encode(ready))


def _receive(renderer: Renderer, socket: zmq.Socket[bytes]) -> None:
    with contextlib.suppress(zmq.Again):
        while True:
            renderer.handle(ipc.decode(socket.recv_multipart(zmq.NOBLOCK)))


def build_renderer(vocoder: AnyVocoder, settings: VoiceSettings, send: Callable[[Message], object]) -> Renderer:
    """The renderer of a voice, which sends by `send`."""
    scheduler = Scheduler(
        vocoder, settings.chunk_frames, settings.max_chunk_frames, settings.max_batch, settings.max_wait_ms
    )
    cpu_ns = time.thread_time_ns if is_single_threaded(vocoder, settings.threads) else None
    return Renderer(vocoder, scheduler, send, cpu_ns=cpu_ns)


def load_voice(config: Config, spec: EngineSpec, instance: int, started_s: float) -> tuple[AnyVocoder, ipc.Ready]:
    """The voice of an engine, warm, and its description. Raises CannotStart."""
    settings, max_streams = config.voices[spec.voice], config.server.max_streams
    vocoder = build_vocoder(spec, settings, max_streams)
    found = prepare(vocoder, settings, max_streams)
    ready = ipc.Ready(
        voice=spec.voice,
        info=describe(vocoder, spec.voice == config.default_voice, found),
        instance=instance,
        device=device_of(vocoder),
        threads=settings.threads if isinstance(settings, WaveGlowSettings) else 1,
        start_s=time.monotonic() - started_s,
        digest=digest(settings),
    )
    return vocoder, ready


def main() -> None:
    """Load the voice, warm up, connect, report ready, serve. A trial ends when it is ready."""
    with Role.start("engine") as role:
        place_caches(role.run_dir)
        vocoder, ready = load_voice(role.config, role.config.engines[role.engine], role.instance, role.started_s)
        if role.is_trial:
            role.ready(
                device=ready.device, streams=None if ready.info.capacity is None else ready.info.capacity.streams
            )
            return
        if vocoder.whole_utterance:
            set_niceness(10)  # it computes for seconds and is heard only at the end: live voices go first
        socket = connect_engine(addresses(role.config.server, role.run_dir).engine, role.engine)
        settings = role.config.voices[ready.voice]
        renderer = build_renderer(vocoder, settings, lambda message: socket.send_multipart(ipc.encode(message)))
        # Every object that exists now stays: the garbage collector need not scan them again while streams run.
        gc.collect()
        gc.freeze()
        role.ready(device=ready.device)
        serve(role, renderer, socket, ready)
        socket.close()
