"""Who may open a stream, in which engine, and within which limits.

Rules: no socket, time is passed in. A refusal is a WireError that says what is full or wrong, and what to do.
"""

import math
from collections.abc import Mapping

from glowd.daemon import wire
from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.link import MAX_CUSHION_MS
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.pool import Pool
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.mel_intake import MelIntake
from glowd.daemon.gateway.streams.replies import SessionPorts
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.gateway.streams.utterance import CREDIT_STEP_FRAMES, StreamLimits
from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.wire import Code, WireError

DEVICE_SLACK_MS = 100
"""The device reports its position every 50 ms, and keeps a little audio in reserve for a fade."""


class Admission:
    """Opens streams, or refuses to. Owner: the gateway's only thread."""

    def __init__(
        self, config: Config, pools: Mapping[str, Pool], speaker: SpeakerHandle, streams: StreamRegistry
    ) -> None:
        self._pools, self._speaker, self._streams = pools, speaker, streams
        self.use(config)

    def use(self, config: Config) -> None:
        """Use other settings, for streams that come."""
        self._server, self._voices, self._default_voice = config.server, config.voices, config.default_voice
        self._quotas = Quotas.of(config.server, config.files)
        self._default_prefill_ms = config.speaker.prefill_ms

    def admit(self, client: ClientConnection, asked: wire.Open, now_ns: int) -> Stream:
        """Open a stream, placed in an engine. Raises WireError if it is refused."""
        if self._streams.find(asked.stream):
            raise WireError(
                Code.STREAM_EXISTS, f"a stream {asked.stream!r} is open already; close it or choose another name"
            )
        if len(self._streams) >= self._server.max_streams:
            raise WireError(
                Code.AT_CAPACITY,
                f"{len(self._streams)} of {self._server.max_streams} streams are open, the most allowed "
                "(server.max_streams); close one, or try again later",
            )
        self._require_share(client)
        voice = asked.voice or self._default_voice
        if voice not in self._pools:
            raise WireError(Code.UNKNOWN_VOICE, f"there is no voice {voice!r}; choose one of {', '.join(self._pools)}")
        engine = self._engine(voice, now_ns)
        intake = MelIntake(asked.format, engine.info.format, voice)
        if "device" in asked.sinks:
            self._speaker.require(now_ns)
        return self._streams.place(
            asked.stream, client, engine, lambda ports: self._session(asked, engine, ports, intake)
        )

    def _engine(self, voice: str, now_ns: int) -> EngineHandle:
        """The engine for one more stream of a voice. Raises WireError, and counts that, if none has room."""
        try:
            return self._pools[voice].require(now_ns)
        except WireError:
            self._streams.counts_of_all.voice(voice).refused += 1
            raise

    def _require_share(self, client: ClientConnection) -> None:
        """Raises WireError if the peer of this client has as many streams as one may have."""
        quotas = client.quotas or self._quotas
        most = quotas.streams
        if sum(stream.owner.peer.key == client.peer.key for stream in self._streams) >= most:
            text = f"{client.peer.name} has {most} streams open, the most for one peer ({quotas.source('streams')})"
            raise WireError(Code.AT_CAPACITY, f"{text}; close one, or try again later")

    def _session(self, asked: wire.Open, engine: EngineHandle, ports: SessionPorts, intake: MelIntake) -> Session:
        prefill_ms = asked.prefill_ms if asked.prefill_ms >= 0 else self._default_prefill_ms
        # The stream may move to an engine with a longer way.
        most_ms = prefill_ms + MAX_CUSHION_MS if "device" in asked.sinks else 0
        limits = self._limits(engine, intake.bins, most_ms)
        rate_hz = engine.info.rate_hz
        return Session(asked, engine.voice, rate_hz, int(prefill_ms * rate_hz / 1000), limits, ports, intake)

    def _limits(self, engine: EngineHandle, bins: int, prefill_ms: float) -> StreamLimits:
        info, chunk_frames = engine.info, self._voices[engine.voice].max_chunk_frames  # the largest under overload
        frames_per_ms = info.rate_hz / (1000 * info.hop)
        # With less credit than engine and device wait for, client, engine and device would wait for one another.
        cushion_frames = math.ceil((prefill_ms + DEVICE_SLACK_MS) * frames_per_ms)
        needed = info.look_ahead_frames + chunk_frames + cushion_frames + CREDIT_STEP_FRAMES
        return StreamLimits(
            hop=info.hop,
            bins=bins,
            window_frames=max(needed, int(self._server.credit_ms * frames_per_ms)),
            max_frames=self._server.max_utterance_s * info.rate_hz // info.hop,
            history_frames=info.history_frames,
            lead_frames=info.lead_frames,
            look_ahead_frames=info.look_ahead_frames,
            chunk_frames=self._voices[engine.voice].chunk_frames,
            whole_utterance=info.whole_utterance,
        )
