"""The daemon's voices, as HTTP requests name them.

Rules: no request is handled here.
"""

from glowd.clients.aio import AsyncClient
from glowd.clients.web.api_error import ApiError
from glowd.daemon import wire

THEIR_VOICES = frozenset({
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
    "default",
})  # fmt: skip
"""Those of OpenAI's API, and none: each means the default voice."""


def voice_named(client: AsyncClient, name: str) -> wire.VoiceInfo:
    """A voice of the daemon that is ready; its default for a name of OpenAI's. Raises ApiError."""
    known = {str(voice.get("name")): wire.VoiceInfo.from_map(voice) for voice in client.welcome.voices}
    default = next((voice for voice in known.values() if voice.default), None)
    if (voice := known.get(name, default if name in THEIR_VOICES else None)) is not None:
        return voice
    ready = ", ".join(known) or "none; the voices are still loading, see glowctl status"
    if name in THEIR_VOICES:
        raise ApiError(503, f"no voice is the default and ready; ready voices: {ready}", "voice")
    raise ApiError(
        404, f"`voice` {name!r:.80} is none that is ready; ready voices: {ready}", "voice", "voice_not_found"
    )
