"""A gateway of a simulation: the daemon's own admission, placement, registry and handles, with engines that only exist here.

Rules: no socket, no process; time is passed in. What an engine is sent goes where `deliver` says. Nothing is decided here that
the daemon decides.
"""

from collections.abc import Callable

from glowd.daemon import ipc, wire
from glowd.daemon.config import FileSettings
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.handles.engine import EngineHandle, Origin
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.admission import Admission
from glowd.daemon.gateway.placement.pool import Machine, Pool
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.wire import WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo
from tests.bench.simulation.inputs import CHUNK_FRAMES, HOP, MAX_CHUNK_FRAMES, RATE_HZ

VOICE = "glow"
MOST_STREAMS = 1024
"""The largest server.max_streams that the settings allow."""
Deliver = Callable[[str, Message], bool]
"""Called with (engine, message); returns whether the engine is reachable."""


def voice_info(capacity: Capacity | None) -> VoiceInfo:
    """What an engine of the included voice reports."""
    return VoiceInfo(
        name=VOICE, rate_hz=RATE_HZ, hop=HOP, format={"rate_hz": RATE_HZ, "hop": HOP, "n_mels": 80, "fmax_hz": 8000.0},
        look_ahead_frames=1, latency_ms=12.0, whole_utterance=False, default=True, history_frames=94, capacity=capacity,
    )  # fmt: skip


class Cell:
    """One gateway with engines of other machines, which have joined it."""

    def __init__(self, deliver: Deliver = lambda engine, message: True) -> None:
        self.machine, self._deliver = Machine([], cores=1, host="gateway"), deliver
        self.clients: dict[bytes, ClientConnection] = {}
        speaker = SpeakerHandle(lambda message: None, False, 30.0)
        self.streams = StreamRegistry(self.clients, speaker, Recordings(FileSettings(directory="/nowhere")))
        self.pool = Pool(VOICE, [], self.machine, self.streams, is_default=True)
        self.handles: dict[str, EngineHandle] = {}
        voice = (
            f'voices={{{VOICE}={{engine="waveglow",chunk_frames={CHUNK_FRAMES},max_chunk_frames={MAX_CHUNK_FRAMES}}}}}'
        )
        self.config = load(None, [voice, f"server.max_streams={MOST_STREAMS}", "server.max_clients=4096"])
        self.admission = Admission(self.config, {VOICE: self.pool}, speaker, self.streams)

    # ------------------------------------------------------------------- engines

    def ready(self, name: str, capacity: Capacity | None, instance: int, now_ns: int) -> EngineHandle:
        """An engine on a machine of its own has started, or was restarted."""
        handle = self.handles.get(name) or self._add(name)
        handle.connect(Origin(name, "", name, cores=1), lambda message: self._deliver(name, message))
        sessions = [stream.session for stream in self.streams.placed_in(handle)]
        handle.handle(ipc.Ready(VOICE, voice_info(capacity), instance, device="cpu", threads=1), sessions, now_ns)
        return handle

    def _add(self, name: str) -> EngineHandle:
        handle = EngineHandle(name, VOICE, lambda message: False, wait_s=30.0)
        self.handles[name] = handle
        self.machine.engines.append(handle)
        self.pool.add(handle)
        return handle

    def drain(self, name: str) -> None:
        """Give an engine no more streams; those that it has move in a tick of the pool, if they have no utterance."""
        self.handles[name].leave()

    def take_back(self, name: str) -> None:
        """Give it streams again."""
        self.handles[name].place("uncordon")

    def remove(self, name: str) -> None:
        """An engine has ended. Raises RuntimeError if it has streams."""
        handle = self.handles[name]
        if left := self.streams.placed_in(handle):
            raise RuntimeError(f"engine {name} ended with {len(left)} streams")
        self.pool.remove(handle)
        del self.handles[name]
        self.machine.engines.remove(handle)

    # ------------------------------------------------------------------- streams

    def open(self, name: str, client: ClientConnection, now_ns: int, sink: str = "null") -> Stream | None:
        """A stream, or None if it is refused. Only want of capacity may refuse it."""
        try:
            return self.admission.admit(client, wire.Open(name, sinks=[sink]), now_ns)
        except WireError as refused:
            if refused.code not in (wire.Code.AT_CAPACITY, wire.Code.ENGINE_LOST):
                raise
            return None

    def seen(self, names: list[str], now_ns: int) -> None:
        """These engines have just been heard."""
        for name in names:
            self.handles[name].seen(now_ns)
