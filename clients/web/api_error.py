"""A request that cannot be answered, in the form that OpenAI's clients read.

Rules: no request is handled here. The text says what is wrong, what is allowed and what to do.
"""

from starlette.responses import JSONResponse

from glowd.clients import errors

NOT_READY = (errors.NotRunning, errors.DaemonGone, errors.WaitTimeout, errors.UnusableClient, errors.DaemonError)


class ApiError(Exception):
    """The status, the reason for people, and which parameter it is about."""

    def __init__(self, status: int, reason: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.param, self.code = status, reason, param, code

    def response(self) -> JSONResponse:
        """As an answer."""
        return error_response(self.status, self.reason, self.param, self.code)


def error_response(status: int, reason: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    """The answer to a request that cannot be answered."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": reason, "type": kind, "param": param, "code": code}}, status)


def of_daemon(fault: errors.GlowdError) -> ApiError:
    """What the daemon or the connection to it said."""
    if isinstance(fault, NOT_READY):
        return ApiError(503, str(fault))
    if isinstance(fault, errors.Refused):
        return ApiError(429, str(fault))  # the daemon is full, or the client over a limit: it may be tried again
    return ApiError(400, str(fault))
