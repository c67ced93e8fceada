"""The engine role: the process that renders streams of one voice on one device, its socket and its loop.

    python -m glowd.daemon.engine --run-dir D --engine NAME [--config F]

Rules: one thread does everything (messages in, scheduler, network, messages out), so no state is ever shared. Messages
that arrive while the network runs wait in the socket. What is rendered, and when, is decided in renderer.py.
"""

import contextlib
import gc
import secrets
import threading
import time
from collections.abc import Iterator

import zmq

from glowd.daemon import ipc
from glowd.daemon.config import WaveGlowVoice
from glowd.daemon.engine import capacity
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.engine.vocoders import build_vocoder, describe, prepare
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.sockets import connect_engine
from glowd.daemon.runtime.system import set_niceness

TURN_MS = 500
"""Longest sleep of the loop: often enough to be seen alive."""


@contextlib.contextmanager
def heartbeat(role: Role) -> Iterator[None]:
    """Say `alive` from a thread: for voices whose one call takes as long as an utterance, where a pause is no hang."""
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
    """The loop: take what has arrived, make one due call, report. Returns when the role is to stop."""
    socket.send_multipart(ipc.encode(ready))
    while not role.stopping.is_set():
        role.alive()
        now_ns = time.monotonic_ns()
        wait_ns = renderer.scheduler.wait_ns(renderer.entries.values(), now_ns)
        timeout_ms = TURN_MS if wait_ns is None else min(TURN_MS, -(-wait_ns // 1_000_000))
        if socket.poll(timeout_ms):
            _receive(renderer, socket)
        with heartbeat(role) if renderer.vocoder.whole_utterance else contextlib.nullcontext():
            renderer.turn()
        if report := renderer.load():
            socket.send_multipart(ipc.encode(report))
            socket.send_multipart(ipc.encode(ready))


def _receive(renderer: Renderer, socket: zmq.Socket[bytes]) -> None:
    with contextlib.suppress(zmq.Again):
        while True:
            renderer.handle(ipc.decode(socket.recv_multipart(zmq.NOBLOCK)))


def main() -> None:
    """Load the voice, warm up, say Ready, serve."""
    with Role.start("engine") as role:
        spec = role.config.engines[role.engine]
        settings = role.config.voices[spec.voice]
        vocoder = build_vocoder(spec, settings, role.config.server.max_streams)
        found = prepare(vocoder, settings, role.config.server.max_streams)
        if vocoder.whole_utterance:
            set_niceness(10)  # it computes for seconds and nobody hears it before the end: live voices go first
        scheduler = Scheduler(
            vocoder, settings.chunk_frames, settings.max_chunk_frames, settings.max_batch, settings.max_wait_ms
        )
        socket = connect_engine(addresses(role.config.server, role.run_dir).engine, role.engine)
        work_ns = time.thread_time_ns if capacity.works_alone(vocoder, settings.threads) else None
        renderer = Renderer(
            vocoder, scheduler, lambda message: socket.send_multipart(ipc.encode(message)), work_ns=work_ns
        )
        ready = ipc.Ready(
            voice=spec.voice,
            info=describe(vocoder, spec.voice == role.config.default_voice, found),
            instance=secrets.randbits(48),
            device=capacity.device_of(vocoder),
            threads=settings.threads if isinstance(settings, WaveGlowVoice) else 1,
        )
        # Everything alive now stays alive: the collector need not look at it again while streams run.
        gc.collect()
        gc.freeze()
        role.ready(voice=spec.voice, device=ready.device)
        serve(role, renderer, socket, ready)
        socket.close()
