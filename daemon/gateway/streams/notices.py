"""What the sender of a stream is told of it while everything goes on: the words of each warning.

Rules: no socket, no clock, no state; times and counts are passed in. Each says what happened, from where on, and what to do.
Those about mels are made where mels are judged (mel_intake.py). That each is told once is seen to in replies.py.
"""

from typing import NamedTuple

from glowd.daemon.wire import WarningCode


class Notice(NamedTuple):
    """Something that the sender should know. `first_frame` -1: it concerns no frame."""

    code: WarningCode
    text: str
    first_frame: int = -1


CAUSES = {
    "client": (
        WarningCode.LATE_FRAMES,
        "whose frames had not arrived in time: send them earlier, or open the stream with a larger prefill_ms",
    ),
    "engine": (
        WarningCode.LATE_ENGINE,
        "which the daemon had not rendered in time: the machine is too busy; `glowctl top` shows with what",
    ),
    "device": (
        WarningCode.DEVICE_GAP,
        "because the sound device or the speaker was gone, or the machine too busy for it",
    ),
}


def gap(cause: str, missing_ms: float, frame: int) -> Notice:
    """The listener heard a gap of so many ms before the sound of a frame. `cause`: client, engine or device."""
    code, why = CAUSES[cause]
    return Notice(code, f"the listener heard a gap of {missing_ms:.0f} ms before frame {frame}, {why}", frame)


def silenced(frame: int) -> Notice:
    """The voice diverged on a block, which was replaced by silence."""
    text = (
        f"from frame {frame} on the voice diverged far beyond full scale and is silent meanwhile: the mel is unlike those of "
        "its training; check its format, or use the voice rtisi"
    )
    return Notice(WarningCode.AUDIO_SILENCED, text, frame)


def loud_voice(peak: float, frame: int) -> Notice:
    """The voice itself is louder than full scale."""
    text = (
        f"from frame {frame} on the voice reaches {peak:.2f} times full scale: the device limits it, files and s16 clip it. "
        "Send a quieter mel"
    )
    return Notice(WarningCode.AUDIO_LIMITED, text, frame)


def loud_mix(peak: float, streams: int, gain_db: float, frame: int) -> Notice:
    """What the device was to play was louder than full scale."""
    what = "with its gain" if streams == 1 else f"together with {streams - 1} other streams"
    text = (
        f"from frame {frame} on the stream, {what}, reaches {peak:.2f} times full scale on the device and is limited: lower "
        f"its gain_db, which is {gain_db:g}"
    )
    return Notice(WarningCode.AUDIO_LIMITED, text, frame)


def slow_reader(waiting_s: float) -> Notice:
    """The stream's own client does not read its audio."""
    text = f"{waiting_s:.1f} s of audio wait for this client, which reads too slowly: it gets no credit until it reads"
    return Notice(WarningCode.SLOW_LISTENER, text)


def held_back(peer: str, a_second: int, source: str) -> Notice:
    """The stream gets less credit than its sinks would allow."""
    text = (
        f"{peer} sends {a_second} frames a second, the most for one peer ({source}): credit is held back to that pace, and no "
        "frame is lost. Send to fewer streams at once, or raise it"
    )
    return Notice(WarningCode.QUOTA_REACHED, text)


def slow_listener(client: str) -> Notice:
    """Another client that listens to the stream has lost some of its audio."""
    text = f"the client {client}, which listens to this stream, reads too slowly and has lost audio of it"
    return Notice(WarningCode.SLOW_LISTENER, text)


def lost_audio(stream: str) -> Notice:
    """A listener is told that it has lost audio."""
    text = f"this client reads too slowly: audio of stream {stream} was lost, oldest first; `gap` says where"
    return Notice(WarningCode.SLOW_LISTENER, text)
