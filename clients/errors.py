"""What can go wrong for a client, as exceptions. A number from the daemon becomes the class of its hundred."""

from glowd.daemon.wire import Code, Error


class GlowdError(Exception):
    """Base of all. `code` is the daemon's number, None where the trouble is on this side."""

    def __init__(self, text: str, code: int | None = None, stream: str = "", expected_frame: int = -1) -> None:
        super().__init__(text)
        self.code, self.stream, self.expected_frame = code, stream, expected_frame


class NotRunning(GlowdError):
    """Nothing answers at the endpoint."""


class DaemonGone(GlowdError):
    """The daemon answered before, and is gone."""


class WaitTimeout(GlowdError):
    """What was waited for did not happen in time. The stream is as it was."""


class Interrupted(GlowdError):
    """Another thread or task flushed or closed the stream during this call."""


class ProtocolError(GlowdError):
    """1xx: daemon and client do not understand each other."""


class StreamError(GlowdError):
    """2xx: the stream cannot do this now."""


class MelError(GlowdError):
    """3xx: these frames are refused. `expected_frame`, if not -1, is the frame to go on with."""


class Refused(GlowdError):
    """4xx: the daemon does not take this stream or client."""


class DaemonError(GlowdError):
    """5xx: the daemon's own trouble."""


BY_HUNDRED: dict[int, type[GlowdError]] = {1: ProtocolError, 2: StreamError, 3: MelError, 4: Refused, 5: DaemonError}


def from_message(error: Error) -> GlowdError:
    """The exception for an error message."""
    kind = BY_HUNDRED.get(error.code // 100, GlowdError)
    about = f"stream {error.stream}: " if error.stream else ""
    return kind(f"{about}{error.text} ({error.code} {error.name})", error.code, error.stream, error.expected_frame)


def not_running(endpoint: str, waited_s: float) -> NotRunning:
    return NotRunning(
        f"no daemon answers at {endpoint} (waited {waited_s:g} s); start one with: glowd --config config.toml"
    )


def is_content_error(error: Error) -> bool:
    """Whether sending the same frames again cannot help."""
    return error.code // 100 == 3 or error.code in (Code.MALFORMED, Code.BAD_FIELD, Code.TOO_LARGE)
