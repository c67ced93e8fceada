"""What can go wrong for a client, as exceptions. The hundreds digit of the daemon's error number selects the class."""

from glowd.daemon.wire import Code, Error


class GlowdError(Exception):
    """Base class. `code` is the daemon's error number, None if the error arose in the client."""

    def __init__(self, text: str, code: int | None = None, stream: str = "", expected_frame: int = -1) -> None:
        super().__init__(text)
        self.code, self.stream, self.expected_frame = code, stream, expected_frame


class NotRunning(GlowdError):
    """No daemon answers at the endpoint."""


class DaemonGone(GlowdError):
    """The daemon answered before and no longer does.

    `heard_samples`: how much of the stream's running utterance the listener has heard at least; None: none was running.
    """

    def __init__(self, text: str, heard_samples: int | None = None) -> None:
        super().__init__(text)
        self.heard_samples = heard_samples


class WaitTimeout(GlowdError):
    """A call took longer than its timeout. The stream may be used further.

    `frames_taken`: how many frames of the `send` that was given up belong to the utterance; the others were dropped. The
    same frames may be sent again: then those that were taken are not taken twice.
    """

    frames_taken = 0


class UnusableClient(GlowdError):
    """This client cannot be used here: it is closed, not connected, or made by another process or event loop."""


class ForeignSocket(GlowdError):
    """The socket at the default address belongs to another user, or could be replaced by one."""


class Interrupted(GlowdError):
    """The stream was flushed or closed during this call, by another thread, task or client."""


class ProtocolError(GlowdError):
    """1xx: daemon and client do not understand each other."""


class StreamError(GlowdError):
    """2xx: the stream cannot do this now."""


class MelError(GlowdError):
    """3xx: these frames are rejected. `expected_frame`, if not -1, is the frame to continue with."""


class Refused(GlowdError):
    """4xx: the daemon does not accept this stream or client."""


class DaemonError(GlowdError):
    """5xx: a fault inside the daemon."""


BY_HUNDRED: dict[int, type[GlowdError]] = {1: ProtocolError, 2: StreamError, 3: MelError, 4: Refused, 5: DaemonError}


def from_message(error: Error) -> GlowdError:
    """The exception for an error message."""
    kind = BY_HUNDRED.get(error.code // 100, GlowdError)
    about = f"stream {error.stream}: " if error.stream else ""
    return kind(f"{about}{error.text} ({error.code} {error.name})", error.code, error.stream, error.expected_frame)


def not_running(endpoint: str, waited_s: float, reasons: str, advice: str) -> NotRunning:
    """The exception when nothing answers at `endpoint`. `reasons`: what is known of the daemons that were tried."""
    why, then = f": {reasons}" if reasons else "", f"; {advice}" if advice else ""
    return NotRunning(f"no daemon answers at {endpoint} (waited {waited_s:g} s){why}{then}")


def wait_timeout(timeout_s: float | None, waited_for: str, absence: str = "") -> WaitTimeout:
    """The exception for a call that took longer than `timeout_s`. `absence`: what is known of a daemon that is lost."""
    advice = absence or "; allow it more time, or see with `glowctl status` what is slow"
    return WaitTimeout(f"waited {timeout_s:g} s for {waited_for}{advice}")


CLOSED = "this client is closed; make a new one"


def other_process(made_in: int, here: int) -> UnusableClient:
    """The exception for a client that was made before a fork and is used in the child."""
    return UnusableClient(
        f"this client was made in process {made_in} and is used in process {here}; a client does not survive a fork: "
        "make a new one in each process"
    )


def is_content_error(error: Error) -> bool:
    """Whether the frames themselves are rejected, so that sending them again cannot help."""
    return error.code // 100 == 3 or error.code in (Code.MALFORMED, Code.BAD_FIELD, Code.TOO_LARGE)
