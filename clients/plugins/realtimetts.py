"""An engine for RealtimeTTS (https://github.com/KoljaB/RealtimeTTS): `pip install realtimetts glowd`.

    from RealtimeTTS import TextToAudioStream
    from glowd.clients.plugins.realtimetts import GlowEngine

    TextToAudioStream(GlowEngine(tts="hibari")).feed("Hello there.").play()

RealtimeTTS plays the audio. A text that is stopped in the middle stops the daemon, too.
"""

import contextlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyaudio
from RealtimeTTS.engines.base_engine import BaseEngine

from glowd.clients.client import Client, Stream
from glowd.clients.errors import GlowdError, Interrupted
from glowd.clients.upstream import (
    Manner,
    SpokenText,
    Upstream,
    UpstreamError,
    open_upstream,
    pieces_of_text,
    speak_text,
)
from glowd.clients.voices import not_ready, ready_format, voice_state
from glowd.daemon.wire.codec import to_s16

RATE_HZ = 24_000
SEED = 0

log = logging.getLogger("glowd.client")


class GlowEngine(BaseEngine):
    """Speaks through a running glowd. endpoint, voice, tts, tts_voice, speed: as of the other plug-ins."""

    def __init__(
        self, *, endpoint: str = "", voice: str = "", tts: str = "", tts_voice: str = "", speed: float = 1.0
    ) -> None:
        self._client = Client(endpoint, name="realtimetts")
        self._upstream: Upstream = open_upstream(tts, tts_voice)
        self._voice, self._manner = voice, Manner(rate=speed)

    def post_init(self) -> None:
        """What the base class has set to something else. A text that still arrives is cut into sentences here."""
        self.engine_name, self.can_consume_generators = "glowd", True

    def get_stream_info(self) -> tuple[int, int, int]:
        """Format, channels and rate of what `queue` gets."""
        return pyaudio.paInt16, 1, RATE_HZ

    def synthesize(self, text: str | Iterable[str], sentence_count: int = 0) -> bool:
        """Speak a text, whole or as it arrives, into `queue`. False if it cannot be spoken, or was stopped."""
        self.stop_synthesis_event.clear()
        try:
            return self._speak(text)
        except (GlowdError, UpstreamError) as error:
            log.warning("cannot speak: %s", error)
            return False

    def _speak(self, text: str | Iterable[str]) -> bool:
        wanted = ready_format(self._client.refresh(), self._voice)
        if wanted is None:
            raise not_ready(self._client.welcome, *voice_state(self._client.status(), self._voice))
        spoken = speak_text(self._upstream, pieces_of_text(text), wanted, self._manner)
        with (
            self._client.open(
                voice=self._voice, sinks=["socket"], format=spoken.stated, seed=SEED, audio_rate_hz=RATE_HZ,
                audio_dtype="s16",
            ) as stream,
            ThreadPoolExecutor(1) as pool,
        ):  # fmt: skip
            sending = pool.submit(self._send, stream, spoken)
            for chunk in stream.audio():
                if self.stop_synthesis_event.is_set():
                    break
                self.queue.put(to_s16(chunk.payload).tobytes())
            stream.flush()  # does nothing at the end
            sending.result()
        return not self.stop_synthesis_event.is_set()

    def _send(self, stream: Stream, spoken: SpokenText) -> None:
        """Send the frames of a text to its end, or until it is stopped."""
        with contextlib.closing(spoken.parts), contextlib.suppress(Interrupted):
            for _, frames in spoken.parts:
                if self.stop_synthesis_event.is_set():
                    return
                stream.send(frames)
            stream.end()

    def get_voices(self) -> list[Any]:
        """The daemon's voices that are ready."""
        return [str(voice.get("name")) for voice in self._client.refresh().voices]

    def set_voice(self, voice: str | object) -> None:
        """A voice of the daemon, by its name."""
        self._voice = str(voice)

    def set_voice_parameters(self, **voice_parameters: Any) -> None:
        """`speed`, 0.3 to 3."""
        self._manner = Manner(rate=voice_parameters.get("speed", self._manner.rate))

    def shutdown(self) -> None:
        """End the connection."""
        self._client.close()
