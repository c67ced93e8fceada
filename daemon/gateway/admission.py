"""Who may open a stream, where it is placed, and on which terms.

Rules: no socket, time is passed in. A refusal is a WireError that says what is full or wrong and what to do about it.
"""

import math
from pathlib import Path

from glowd.daemon import wire
from glowd.daemon.config import Config
from glowd.daemon.gateway.connections import Peer
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.mel_intake import MelIntake
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.replies import Outside
from glowd.daemon.gateway.session import Session
from glowd.daemon.gateway.streams import Streams
from glowd.daemon.gateway.utterance import CREDIT_STEP_FRAMES, Terms
from glowd.daemon.wire import Code, WireError

DEVICE_SLACK_MS = 100
"""The device tells its position every 50 ms, and keeps a little audio in reserve for a fade."""


class Admission:
    """Admits streams. Owner: the gateway's only thread."""

    def __init__(self, config: Config, pools: dict[str, Pool], speaker: Speaker, streams: Streams) -> None:
        self._server, self._voices, self._default_voice = config.server, config.voices, config.default_voice
        self._default_prefill_ms, self._recordings = config.speaker.prefill_ms, Path(config.files.directory)
        self._pools, self._speaker, self._streams = pools, speaker, streams

    def admit(self, peer: Peer, asked: wire.Open, now_ns: int) -> Session:
        """The session of a new stream, placed in an engine. Raises WireError where there can be none."""
        if asked.stream in self._streams.sessions:
            raise WireError(
                Code.STREAM_EXISTS, f"a stream {asked.stream!r} is open already; close it or take another name"
            )
        if len(self._streams.sessions) >= self._server.max_streams:
            raise WireError(
                Code.AT_CAPACITY,
                f"{len(self._streams.sessions)} of {self._server.max_streams} streams are open, the most allowed "
                "(server.max_streams); close one, or try again later",
            )
        voice = asked.voice or self._default_voice
        if voice not in self._pools:
            raise WireError(Code.UNKNOWN_VOICE, f"there is no voice {voice!r}; known: {', '.join(self._pools)}")
        engine = self._pools[voice].require(now_ns)
        intake = MelIntake(asked.format, engine.info.format, voice)
        if "device" in asked.sinks:
            self._speaker.require(now_ns)
        session = engine.streams[asked.stream] = self._session(peer, asked, engine, intake)
        return session

    def _session(self, peer: Peer, asked: wire.Open, engine: Engine, intake: MelIntake) -> Session:
        prefill_ms = asked.prefill_ms if asked.prefill_ms >= 0 else self._default_prefill_ms
        terms = self._terms(engine, intake.bins, prefill_ms if "device" in asked.sinks else 0)
        outside = Outside(
            to_owner=peer.send,
            try_owner=peer.try_send,
            to_engine=engine.send,
            to_speaker=self._speaker.send,
            to_listeners=lambda message: self._streams.to_listeners(asked.stream, message),
            new_key=self._streams.new_key,
            recordings=self._recordings,
        )
        rate_hz = engine.info.rate_hz
        return Session(asked, engine.voice, rate_hz, int(prefill_ms * rate_hz / 1000), terms, outside, intake)

    def _terms(self, engine: Engine, bins: int, prefill_ms: float) -> Terms:
        info, chunk_frames = engine.info, self._voices[engine.voice].max_chunk_frames  # as large as overload makes it
        frames_per_ms = info.rate_hz / (1000 * info.hop)
        # With less credit than engine and device wait for, all three would wait for one another for ever.
        cushion_frames = math.ceil((prefill_ms + DEVICE_SLACK_MS) * frames_per_ms)
        needed = info.look_ahead_frames + chunk_frames + cushion_frames + CREDIT_STEP_FRAMES
        return Terms(
            hop=info.hop,
            bins=bins,
            window_frames=max(needed, int(self._server.credit_ms * frames_per_ms)),
            max_frames=self._server.max_utterance_s * info.rate_hz // info.hop,
            history_frames=info.history_frames,
            look_ahead_frames=info.look_ahead_frames,
            whole_utterance=info.whole_utterance,
        )
