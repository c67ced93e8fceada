"""POST /v1/mel: mel frames in, audio out, for programs that cannot speak ZeroMQ.

    curl -H "Authorization: Bearer $TOKEN" --data-binary @mel.npy "http://127.0.0.1:7767/v1/mel?voice=glow" > speech.wav

The body is what numpy.save writes, one array or several; or a first line of JSON that says what follows (a preset, such as
"matcha", keys of open.format, or {} for the voice's own format) and then float32 frames, little-endian, which are spoken while
they arrive. In the address: `voice`, `response_format` (wav), `rate` (the voice's own, in Hz), `seed`.

Rules: the body is read in a thread by what reads a program's output (upstream/program.py), through a pipe, so a client that
sends faster than the daemon speaks has to wait.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import Message, Receive, Scope, Send

from glowd.clients.errors import GlowdError
from glowd.clients.upstream import in_thread, numbered
from glowd.clients.upstream.processes import Output
from glowd.clients.upstream.program import NUMPY, first_line, raw_frames, saved_arrays
from glowd.clients.upstream.stated import bins_of
from glowd.clients.voices import max_frames
from glowd.clients.web.api_error import ApiError
from glowd.clients.web.audio_response import AudioResponse, Plain, as_api_error, hung_up
from glowd.clients.web.encoders import FORMATS, AudioFormat, Samples
from glowd.clients.web.pool import Pool
from glowd.clients.web.rendering import rendered
from glowd.clients.web.shared import Shared
from glowd.clients.web.voices import voice_named
from glowd.daemon import wire
from glowd.flow.mel import Floats, MelFormat

RATES_HZ = (8000, 12_000, 16_000, 22_050, 24_000, 44_100, 48_000)
OPUS_RATE_HZ = 24_000
"""Of the rates that Opus has, the one that OpenAI's API uses."""

PIPE_BYTES = 1 << 16


class Body:
    """The body of a request while it arrives, and whether its client is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._read = receive, asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. Ends early if the client hangs up; then `gone` returns, too."""
        try:
            while True:
                message: Message = await self._receive()
                if message["type"] != "http.request":
                    return
                yield message.get("body", b"")
                if not message.get("more_body"):
                    break
        finally:
            self._read.set()

    async def gone(self) -> None:
        """Returns when the client has hung up."""
        await self._read.wait()
        await hung_up(self._receive)


@dataclass(frozen=True, slots=True)
class MelRequest:
    """A checked request, apart from its frames."""

    voice: wire.VoiceInfo
    max_frames: int
    format: AudioFormat
    rate_hz: int
    seed: int

    @classmethod
    async def of(cls, pool: Pool, query: QueryParams) -> "MelRequest":
        """From the address. Raises ApiError, GlowdError."""
        format = FORMATS[one_of(query, "response_format", "wav", tuple(FORMATS))]
        rate_hz = int(one_of(query, "rate", "0", ("0", *map(str, RATES_HZ))))
        if not (seed := query.get("seed", "0")).isdecimal() or len(seed) > 9:
            raise ApiError(400, f"`seed` must be 0 to 999999999; got {seed!r:.80}", "seed")
        async with pool.client() as client:
            voice = voice_named(client, query.get("voice", "default"))
            most = max_frames(client.welcome, MelFormat.from_dict(voice.format))
        own_hz = OPUS_RATE_HZ if format.name == "opus" else voice.rate_hz
        return cls(voice, most, format, rate_hz or own_hz, int(seed))


def one_of(query: QueryParams, key: str, default: str, allowed: tuple[str, ...]) -> str:
    """A parameter of the address. Raises ApiError."""
    if (value := query.get(key, default)) not in allowed:
        raise ApiError(400, f"`{key}` must be one of {', '.join(allowed)}; got {value!r:.80}", key)
    return value


class MelEndpoint:
    """POST /v1/mel: an ASGI application of its own, because the body is read while the answer is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shared = scope["app"].state.shared
        assert isinstance(shared, Shared)
        try:
            request = await MelRequest.of(shared.pool, QueryParams(scope["query_string"]))
        except (ApiError, GlowdError) as fault:
            await as_api_error(fault).response()(scope, receive, send)
            return
        body = Body(receive)
        audio, encoder = spoken_frames(shared.pool, request, body), request.format.encoder(request.rate_hz)
        await AudioResponse(audio, encoder, Plain(request.format), body.gone())(scope, receive, send)


async def spoken_frames(pool: Pool, request: MelRequest, body: Body) -> AsyncGenerator[Samples, None]:
    """The audio of the frames in a body. Raises ValueError for one that cannot be read, GlowdError."""
    wanted = MelFormat.from_dict(request.voice.format)
    async with piped(body) as file, pool.client() as client:
        stated = await asyncio.to_thread(stated_in, file)
        frames = frames_in(file, stated, wanted)
        utterances = numbered(((0, chunk) for chunk in frames), request.max_frames)
        async with (
            contextlib.aclosing(in_thread(utterances)) as parts,
            contextlib.aclosing(
                rendered(
                    client, parts, voice=request.voice.name, stated=stated or {}, rate_hz=request.rate_hz,
                    seed=request.seed,
                )
            ) as audio,
        ):  # fmt: skip
            async for samples in audio:
                yield samples


def stated_in(file: Output) -> dict[str, Any] | None:
    """What the first line states; None where numpy.save wrote the body. Raises ValueError."""
    return None if file.peek(1)[:1] == NUMPY[:1] else first_line(file)


def frames_in(file: Output, stated: dict[str, Any] | None, wanted: MelFormat) -> Iterator[Floats]:
    """The frames [n, bins] as they arrive. Raises ValueError, UpstreamError."""
    if stated is None:
        yield from saved_arrays(file, wanted.n_mels)
    else:
        yield from raw_frames(file, bins_of(stated, wanted))


class PipeEnd(io.RawIOBase):
    """The reading end of a pipe. numpy would look for the position in a file of the operating system."""

    def __init__(self, number: int) -> None:
        self._file = os.fdopen(number, "rb", buffering=0)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What is there; waits for it. 0 at the end."""
        return self._file.readinto(buffer) or 0

    def close(self) -> None:
        """Close the pipe."""
        self._file.close()
        super().close()


@contextlib.asynccontextmanager
async def piped(body: Body) -> AsyncIterator[Output]:
    """The body as a file that a thread may read; its end is the body's."""
    reading, writing = os.pipe()
    with BufferedReader(PipeEnd(reading)) as file:
        copying = asyncio.create_task(_copy(body, writing))
        try:
            yield file
        finally:
            copying.cancel()
            file.close()  # ends a write that waits for room
            await asyncio.gather(copying, return_exceptions=True)


async def _copy(body: Body, writing: int) -> None:
    with os.fdopen(writing, "wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
        async for chunk in body.chunks():
            view = memoryview(chunk)
            while view:
                view = view[await asyncio.shield(asyncio.to_thread(file.write, view[:PIPE_BYTES])) :]
