"""The vocoder of an engine: built from its [voices.NAME] table, measured, warmed up, and described for the gateway.

Rules: no socket. Heavy libraries are imported when a voice needs them: only waveglow imports torch. `glowd doctor` tries a
voice with the same code. What keeps a voice from starting, and is no bug, is a CannotStart with words for the user.
"""

import hashlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING

from glowd.daemon.config import EngineSpec
from glowd.daemon.config_voices import GriffinLimSettings, RtisiSettings, VoiceSettings, WaveGlowSettings, rendered
from glowd.daemon.engine.capacity import find_capacity, is_single_threaded
from glowd.daemon.engine.overhead import seconds_per_chunk
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo
from glowd.daemon.wire.voices import check_voice
from glowd.flow.mel import MelFormat
from glowd.flow.vocoder import AnyVocoder

if TYPE_CHECKING:  # it imports torch
    from glowd.flow.network.waveglow import WaveGlow

SPARE_SLOTS = 8
"""Slots beyond server.max_streams: a flushed utterance may still be closing while the next one opens."""

log = logging.getLogger("glowd.engine")


def build_vocoder(spec: EngineSpec, settings: VoiceSettings, max_streams: int) -> AnyVocoder:
    """The vocoder of a [voices.NAME] table for one of its engines. Raises CannotStart."""
    try:
        return _build(spec, settings, max_streams)
    except ValueError as error:  # this machine lacks what the settings ask for
        raise CannotStart(str(error)) from error


def _build(spec: EngineSpec, settings: VoiceSettings, max_streams: int) -> AnyVocoder:
    name = spec.voice
    match settings:
        case WaveGlowSettings():
            return _build_waveglow(spec, settings, max_streams)
        case RtisiSettings():
            from glowd.flow.phase_recovery.rtisi import RtisiVocoder

            return RtisiVocoder(_format(name, settings), name, settings.look_ahead_frames, settings.iterations)
        case GriffinLimSettings():
            from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder

            return GriffinLimVocoder(_format(name, settings), name, settings.iterations)
    raise ValueError(f"voice {name}: there is no kind of voice {settings.engine!r}")


def _format(name: str, settings: RtisiSettings | GriffinLimSettings) -> MelFormat:
    """The mel format of a voice without a network. Raises CannotStart for a name that is not known."""
    from glowd.flow.mel_formats.voice import voice_format

    try:
        return voice_format(settings.mel)
    except ValueError as error:
        raise CannotStart(f"voices.{name}.mel: {error}", settings=True) from error


def find_device(spec: EngineSpec) -> str:
    """The device that the engine uses: cpu or cuda:N. Raises ValueError for a CUDA device that does not exist."""
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if spec.device == "auto":
        return "cuda:0" if found else "cpu"
    if spec.cuda is not None and spec.cuda >= found:
        known = ", ".join(f"cuda:{number}" for number in range(found)) or "none"
        raise ValueError(
            f"voices.{spec.voice}.devices has {spec.device}; the CUDA devices that torch finds: {known}; use one of these, "
            "auto or cpu"
        )
    return spec.device


def _build_waveglow(spec: EngineSpec, settings: WaveGlowSettings, max_streams: int) -> AnyVocoder:
    import torch

    from glowd.flow.streaming import ChunkPlan, VocoderOptions, stream_vocoder

    torch.set_num_threads(settings.threads)
    name, device = spec.voice, find_device(spec)
    plan = ChunkPlan(
        settings.chunk_frames, settings.context_frames, settings.look_ahead_frames, settings.crossfade_samples
    )
    options = VocoderOptions(
        device, settings.max_batch, max_streams + SPARE_SLOTS, settings.backend, settings.precision
    )
    vocoder = stream_vocoder(_load(settings.checkpoint), plan, options, name)
    if vocoder.inverter.backend == "compiled":
        torch.set_num_threads(1)  # the flows have their own threads; torch's would waste time on the small rest
    log.info("voice %s on %s: %s", name, device, vocoder.inverter.describe())
    if settings.sigma >= 0:
        vocoder.sigma = settings.sigma
    return vocoder


def _load(checkpoint: str) -> "WaveGlow":
    """The network of a checkpoint. Raises CannotStart: a file that can be read and is refused is a wrong setting."""
    from glowd.flow.checkpoint import CheckpointError, load, resolve

    try:
        return load(checkpoint)
    except CheckpointError as error:
        raise CannotStart(str(error), settings=os.access(resolve(checkpoint), os.R_OK)) from error


NOT_HEARD = ("default", "devices", "threads", "max_streams", "chunk_frames", "max_chunk_frames", "max_batch",
             "max_wait_ms", "backend", "precision")  # fmt: skip
"""Settings that change how samples are made, and not what they are, beyond the last bits."""


def digest(settings: VoiceSettings) -> str:
    """A text that is the same for two voices with the same weights and settings, as far as these are heard."""
    heard = {key: value for key, value in rendered(settings).items() if key not in NOT_HEARD}
    weights = b""
    if isinstance(settings, WaveGlowSettings):
        from glowd.flow.checkpoint import resolve

        heard.pop("checkpoint")
        weights = resolve(settings.checkpoint).read_bytes()
    return hashlib.sha256(json.dumps(heard, sort_keys=True).encode() + weights).hexdigest()[:32]


def prepare(vocoder: AnyVocoder, settings: VoiceSettings, max_streams: int) -> Capacity | None:
    """Find the capacity (find_capacity), then warm the vocoder up for the batches that can come within it."""
    batch = min(settings.max_batch, max_streams)
    clock_s = time.thread_time if is_single_threaded(vocoder, settings.threads) else time.perf_counter
    overhead_s = seconds_per_chunk(vocoder, settings.chunk_frames)
    found = find_capacity(vocoder, settings.max_streams, settings.chunk_frames, batch, clock_s, overhead_s)
    if found:
        log.info("capacity: %d streams (%s)", found.streams, "measured" if found.measured else "configured")
        batch = min(batch, found.streams)
    for streams, frames in vocoder.shapes(batch, settings.max_chunk_frames):
        vocoder.warm_up(streams, frames)
    return found


def describe(vocoder: AnyVocoder, default: bool, found: Capacity | None) -> VoiceInfo:
    """The voice, for the gateway and for `welcome`. Raises CannotStart if clients could not be told of it."""
    latency_samples = vocoder.look_ahead_frames * vocoder.hop + vocoder.latency_samples
    info = VoiceInfo(
        name=vocoder.name,
        rate_hz=vocoder.rate_hz,
        hop=vocoder.hop,
        format=vocoder.format.to_dict(),
        look_ahead_frames=vocoder.look_ahead_frames,
        latency_ms=round(1000 * latency_samples / vocoder.rate_hz, 2),
        whole_utterance=vocoder.whole_utterance,
        default=default,
        history_frames=vocoder.history_frames,
        lead_frames=vocoder.lead_frames,
        capacity=found,
    )
    try:
        check_voice(info)
    except ValueError as error:
        raise CannotStart(str(error), settings=True) from error
    return info
