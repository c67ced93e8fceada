"""A text-to-speech service for Pipecat (https://docs.pipecat.ai): `pip install pipecat-ai glowd`.

    from glowd.clients.plugins.pipecat import GlowTTSService

    pipeline = Pipeline([..., llm, GlowTTSService(tts="hibari"), transport.output()])

An interruption cancels `run_tts`, and the daemon stops within the chunk that it renders.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from pipecat.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, StartFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from glowd.clients.errors import GlowdError
from glowd.clients.plugins.text_to_pcm import TextToPcm
from glowd.clients.upstream import UpstreamError


class GlowTTSService(TTSService):
    """Speaks each sentence through a running glowd. Pipecat's sample rate is that of the audio.

    endpoint: of the daemon, "" for $GLOWD_ENDPOINT or this user's; voice: of the daemon; tts, tts_voice: what makes mels of texts
    (`glowctl say --tts`); speed: 0.3 to 3.
    """

    def __init__(
        self,
        *,
        endpoint: str = "",
        voice: str = "",
        tts: str = "",
        tts_voice: str = "",
        speed: float = 1.0,
        **more: Any,
    ) -> None:
        settings = TTSSettings(model=tts or None, voice=voice or None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings, **more)
        self._wanted = dict(endpoint=endpoint, voice=voice, tts=tts, tts_voice=tts_voice, speed=speed)
        self._speech: TextToPcm | None = None

    def can_generate_metrics(self) -> bool:
        """Yes: time to the first byte, and characters."""
        return True

    async def start(self, frame: StartFrame) -> None:
        """Load what speaks, before the first text comes."""
        await super().start(frame)
        self._speech = TextToPcm(name="pipecat", rate_hz=self.sample_rate, **self._wanted)  # type: ignore[arg-type]
        try:
            await self._speech.ready()
        except UpstreamError as error:
            await self.push_error(str(error))

    async def stop(self, frame: EndFrame) -> None:
        """End the connection."""
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """End the connection."""
        await super().cancel(frame)
        await self._close()

    async def _close(self) -> None:
        if self._speech is not None:
            await self._speech.close()

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """The audio frames of a text; an ErrorFrame says why it cannot be spoken."""
        assert self._speech is not None, "a pipeline starts its services first"
        await self.start_tts_usage_metrics(text)
        try:
            async with contextlib.aclosing(self._speech.pcm(text)) as pcm:
                frames = self._stream_audio_frames_from_iterator(
                    pcm, in_sample_rate=self.sample_rate, context_id=context_id
                )
                async for frame in frames:
                    await self.stop_ttfb_metrics()
                    yield frame
        except (GlowdError, UpstreamError) as error:
            yield ErrorFrame(error=f"glowd: {error}")
