"""POST /v1/audio/speech: a text, spoken, as clients of OpenAI's API send it.

Source: https://platform.openai.com/docs/api-reference/audio/createSpeech. `pcm` is 16-bit mono at 24,000 Hz there, whatever
the voice's own rate is; the other formats have that rate, too. `voice` is one of the daemon's; names of OpenAI's own voices
mean its default voice. `model` may name what speaks the text; names of OpenAI's models mean the setting web.tts.

Rules: one stream of the daemon for each request. A client that hangs up stops it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from glowd.clients.upstream import Manner, in_thread, numbered, pieces_of_text, speak_text
from glowd.clients.voices import max_frames
from glowd.clients.web.api_error import ApiError
from glowd.clients.web.audio_response import AudioResponse, Events, Plain
from glowd.clients.web.encoders import FORMATS, AudioFormat, Samples
from glowd.clients.web.pool import Pool
from glowd.clients.web.rendering import rendered
from glowd.clients.web.shared import shared_of
from glowd.clients.web.voices import voice_named
from glowd.daemon.wire.json_text import read_json
from glowd.flow.mel import MelFormat

RATE_HZ = 24_000
MODELS = ("espeak-ng", "hibari")
"""What speaks a text, of those that a request may name: the others run programs, and are for the settings."""
MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """A checked request."""

    text: str
    voice: str
    model: str
    format: AudioFormat
    events: bool
    manner: Manner

    @classmethod
    def of(cls, body: Any) -> "SpeechRequest":
        """Raises ApiError."""
        if not isinstance(body, dict):
            raise ApiError(400, "the body must be a JSON object with `input`, `voice` and `model`")
        return cls(
            text=_text(body, "input", None),
            voice=_text(body, "voice", "default"),
            model=_text(body, "model", ""),
            format=FORMATS[_choice(body, "response_format", "mp3", tuple(FORMATS))],
            events=_choice(body, "stream_format", "audio", ("audio", "sse")) == "sse",
            manner=_manner(body.get("speed")),
        )

    @property
    def words(self) -> int:
        """Of the text."""
        return len(self.text.split())


def _text(body: dict[str, Any], key: str, default: str | None) -> str:
    value = body.get(key, default)
    if isinstance(value, dict) and isinstance(value.get("id"), str):  # a voice may be given so
        value = value["id"]
    if not isinstance(value, str):
        raise ApiError(400, f"`{key}` must be text; got {value!r:.80}", key)
    return value


def _choice(body: dict[str, Any], key: str, default: str, allowed: tuple[str, ...]) -> str:
    value = body.get(key) or default
    if value not in allowed:
        raise ApiError(400, f"`{key}` must be one of {', '.join(allowed)}; got {value!r:.80}", key)
    return str(value)


def _manner(speed: Any) -> Manner:
    if speed is None:
        return Manner()
    if isinstance(speed, bool) or not isinstance(speed, int | float):
        raise ApiError(400, f"`speed` must be a number; got {speed!r:.80}", "speed")
    try:
        return Manner(rate=speed)
    except ValueError as error:
        raise ApiError(400, f"`speed`: {error}", "speed") from None


async def speech(request: Request) -> ASGIApp:
    """POST /v1/audio/speech."""
    shared = shared_of(request)
    try:
        wanted = SpeechRequest.of(await json_body(request))
    except ApiError as refused:
        return refused.response()
    packing = Events(wanted.words) if wanted.events else Plain(wanted.format)
    tts = wanted.model if wanted.model in MODELS else shared.site.tts
    return AudioResponse(spoken(shared.pool, wanted, tts), wanted.format.encoder(RATE_HZ), packing)


async def json_body(request: Request) -> Any:
    """The request's JSON. Raises ApiError."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send the text in parts")
    try:
        return read_json(bytes(data))
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None


async def spoken(pool: Pool, wanted: SpeechRequest, tts: str) -> AsyncGenerator[Samples, None]:
    """The audio of a request. Raises ApiError, UpstreamError, GlowdError."""
    upstream = await pool.upstream(tts)
    async with pool.client() as client:
        voice = voice_named(client, wanted.voice)
        mel_format = MelFormat.from_dict(voice.format)
        text = await asyncio.to_thread(speak_text, upstream, pieces_of_text(wanted.text), mel_format, wanted.manner)
        utterances = numbered(text.parts, max_frames(client.welcome, mel_format))
        async with (
            contextlib.aclosing(in_thread(utterances)) as parts,
            contextlib.aclosing(
                rendered(client, parts, voice=voice.name, stated=text.stated, rate_hz=RATE_HZ)
            ) as audio,
        ):
            async for samples in audio:
                yield samples
