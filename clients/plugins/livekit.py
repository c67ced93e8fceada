"""Text to speech for LiveKit Agents (https://docs.livekit.io/agents): `pip install livekit-agents glowd`.

    from glowd.clients.plugins.livekit import TTS

    session = AgentSession(tts=TTS(tts="hibari"), ...)

The framework cuts an agent's text into sentences; each is a request here. Closing a request stops the daemon.
"""

import contextlib

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

from glowd.clients.errors import DaemonGone, GlowdError, NotRunning, WaitTimeout
from glowd.clients.plugins.text_to_pcm import TextToPcm
from glowd.clients.upstream import UpstreamError

RATE_HZ = 24_000


class TTS(tts.TTS):
    """Speaks through a running glowd.

    endpoint: of the daemon, "" for $GLOWD_ENDPOINT or this user's; voice: of the daemon; tts, tts_voice: what makes mels of texts
    (`glowctl say --tts`); speed: 0.3 to 3.
    """

    def __init__(
        self, *, endpoint: str = "", voice: str = "", tts: str = "", tts_voice: str = "", speed: float = 1.0,
        sample_rate: int = RATE_HZ,
    ) -> None:  # fmt: skip
        super().__init__(capabilities=_capabilities(), sample_rate=sample_rate, num_channels=1)
        self.speech = TextToPcm(
            name="livekit",
            endpoint=endpoint,
            voice=voice,
            tts=tts,
            tts_voice=tts_voice,
            speed=speed,
            rate_hz=sample_rate,
        )

    @property
    def model(self) -> str:
        """The daemon's voice."""
        return self.speech.voice or "default"

    @property
    def provider(self) -> str:
        """Who speaks."""
        return "glowd"

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> "ChunkedStream":
        """The audio of a text, as it is made."""
        return ChunkedStream(tts=self, input_text=text, conn_options=conn_options)

    async def aclose(self) -> None:
        """End the connection."""
        await self.speech.close()


def _capabilities() -> tts.TTSCapabilities:
    return tts.TTSCapabilities(streaming=False)


class ChunkedStream(tts.ChunkedStream):
    """One text."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        owner = self._tts
        assert isinstance(owner, TTS), "it was made by synthesize"
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=owner.sample_rate, num_channels=1, mime_type="audio/pcm"
        )
        try:
            async with contextlib.aclosing(owner.speech.pcm(self.input_text)) as pcm:
                async for samples in pcm:
                    output_emitter.push(samples)
        except (NotRunning, DaemonGone, WaitTimeout) as error:
            raise APIConnectionError(f"glowd: {error}") from error  # may be tried again
        except (GlowdError, UpstreamError) as error:
            raise APIStatusError(f"glowd: {error}", status_code=400, retryable=False) from error
        output_emitter.flush()
