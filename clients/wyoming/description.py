"""What this service is, as Wyoming's `info` says it.

Rules: values only. Wyoming's voices are the daemon's: what renders; the upstream, which speaks, is the same for all.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from wyoming.info import Attribution, Info, TtsProgram, TtsVoice

NAME = "glowd"
ATTRIBUTION = Attribution("The glowd authors", "")


def described(voices: Iterable[dict[str, Any]], upstream: str, languages: Sequence[str], version: str) -> Info:
    """The service with the voices that are ready, the default one first."""
    known = sorted(voices, key=lambda voice: not voice.get("default"))
    program = TtsProgram(
        name=NAME,
        description=f"glowd, texts by {upstream}",
        attribution=ATTRIBUTION,
        installed=True,
        version=version,
        voices=[
            TtsVoice(
                name=str(voice.get("name")),
                description=f"{voice.get('name')} by {upstream}",
                attribution=ATTRIBUTION,
                installed=True,
                version=version,
                languages=list(languages),
            )
            for voice in known
        ],
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])
