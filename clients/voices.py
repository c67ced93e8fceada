"""The voices of a daemon, as its answers name them.

Rules: no I/O.
"""

import sys
from collections.abc import Iterable

from glowd.clients import errors
from glowd.clients.stream_state import StreamState
from glowd.daemon import wire
from glowd.flow.mel import MelFormat


def ready_format(welcome: wire.Welcome, voice: str) -> MelFormat | None:
    """The mel format of a voice that is ready, "" for the default one; None if it is not."""
    for known in welcome.voices:
        if known.get("name") == voice or (not voice and known.get("default")):
            return MelFormat.from_dict(known.get("format", {}))
    return None


def voice_state(state: wire.State, voice: str) -> tuple[str, str | None]:
    """The name of a voice, and how it is and why, in words that follow "is"; None if the daemon has no such voice."""
    voices = wire.Snapshot.from_map(state.info).voices
    found = next((entry for entry in voices.items() if entry[0] == voice or (not voice and entry[1].default)), None)
    if found is None:
        return voice, None
    name, one = found
    return name, (one.state or "not ready yet") + (f": {one.reason}" if one.reason else "")


def not_ready(welcome: wire.Welcome, name: str, state: str | None) -> errors.Refused:
    """The exception for a voice that cannot be used; `state` as voice_state says it."""
    names = ", ".join(str(known.get("name")) for known in welcome.voices)
    fault = f"voice {name} is {state}" if state else f"there is no voice {name or 'that is the default'}"
    return errors.Refused(f"{fault}; ready voices: {names or 'none'}")


def max_frames(welcome: wire.Welcome, mel_format: MelFormat) -> int:
    """The most frames of an utterance (server.max_utterance_s of the daemon)."""
    most_s = welcome.limits.get("max_utterance_s")
    return int(most_s * mel_format.rate_hz) // mel_format.hop if isinstance(most_s, int | float) else sys.maxsize


def other_voices(before: wire.Welcome | None, now: wire.Welcome, streams: Iterable[StreamState]) -> list[str]:
    """Voices of streams that another daemon serves with other weights or settings, as far as both have said which."""
    digests = [{one.get("name"): one.get("digest") for one in welcome.voices} for welcome in (before, now) if welcome]
    used = {stream.opened.voice for stream in streams if stream.opened}
    return [name for name in sorted(used) if len({one[name] for one in digests if one.get(name)}) > 1]
