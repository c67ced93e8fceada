"""Whether clients can be told of a voice: what `welcome` and `opened` would refuse to carry is refused before it is served.

Rules: as in messages.py; the ranges are those of the messages' own fields.
"""

from glowd.daemon.wire.fields import is_plain
from glowd.daemon.wire.messages import Mel, Opened
from glowd.daemon.wire.telemetry import VoiceInfo


def check_voice(info: VoiceInfo) -> None:
    """Raises ValueError, with the key, the value and what is allowed, if a stream with this voice could not be described."""
    facts = {
        "rate_hz": (info.rate_hz, Opened.FIELDS["rate_hz"]),
        "hop": (info.hop, Opened.FIELDS["hop"]),
        "format.n_mels": (info.format.get("n_mels"), Mel.FIELDS["bins"]),
        "look_ahead_frames": (info.look_ahead_frames, Opened.FIELDS["credit_frames"]),
        "history_frames": (info.history_frames, Opened.FIELDS["credit_frames"]),
    }
    for key, (value, spec) in facts.items():
        if not spec.accepts(value):
            raise ValueError(
                f"{key} of voice {info.name} is {value!r}; allowed: {spec.allowed}; use another checkpoint"
            )
    if not is_plain(info.to_map(), 4):
        raise ValueError(f"voice {info.name} has a number that is not finite: {info.to_map()}; use another checkpoint")
