"""Who may use the web process: checked for every request before any route sees it.

A page of any web site can make a browser on this machine send requests to this process. Therefore:
- `Host` must be a name of ours: a name of somebody else that points to this machine (DNS rebinding) is refused.
- `Origin`, which browsers send where a page of another site is the sender, must be our own.
- Every path that is not PUBLIC needs the token, in the header `Authorization: Bearer TOKEN`. A header is set only by a
  program or page that means it; an address with a token ends up in logs and histories, and is refused.
- A WebSocket cannot set that header: its first message has the token (session.py). It is closed if that does not come.
- PUBLIC paths only show what is the same for everyone, and GET changes nothing anywhere.

Rules: an ASGI application around another one; refusals are one line of text that says what is allowed.
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glowd.clients.web.api_error import error_response
from glowd.clients.web.site import LOOPBACK, Site

PUBLIC = ("/", "/health", "/ready", "/static/")
"""Paths that need no token; one that ends in / stands for everything below it, except / itself."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent with every answer: no other site may frame, embed or read it, and the page loads nothing from elsewhere."""


class Refusal(Exception):
    """A request that is not let in: the status, and the reason for people."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Protection:
    """The application `app`, for those who may use it."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        guarded = with_headers(send)
        try:
            self.check(scope)
        except Refusal as refusal:
            answer = refused(scope["path"], refusal)
            if refusal.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def check(self, scope: Scope) -> None:
        """Raises Refusal for a request that may not come in."""
        headers = Headers(scope=scope)
        check_host(headers, self._site)
        check_origin(headers)
        if scope["type"] == "http" and not is_public(scope["path"]):
            check_token(headers, QueryParams(scope["query_string"]), self._site.token)


def refused(path: str, refusal: Refusal) -> Response:
    """The answer; below /v1/ in the form that programs expect there."""
    if path.startswith("/v1/"):
        return error_response(refusal.status, refusal.reason, code="invalid_api_key" if refusal.status == 401 else None)
    return PlainTextResponse(refusal.reason + "\n", refusal.status)


def is_public(path: str) -> bool:
    """Whether a path needs no token."""
    return any(
        path == public or (public != "/" and public.endswith("/") and path.startswith(public)) for public in PUBLIC
    )


def check_host(headers: Headers, site: Site) -> None:
    """Raises Refusal unless the request names this process by a name of ours."""
    named = headers.getlist("host")
    name = host_of(named[0]) if len(named) == 1 else ""
    if name in LOOPBACK | site.hosts or (site.any_address and is_address(name)):
        return
    allowed = ", ".join(sorted(LOOPBACK | site.hosts))
    raise Refusal(403, f"Host must be one of {allowed}; got {name!r}. Other names: the setting web.hosts")


def host_of(authority: str) -> str:
    """The name or address in HOST:PORT, lower case, brackets kept; "" if it is none."""
    try:
        parts = urlsplit(f"//{authority}")
        parts.port  # noqa: B018  (raises ValueError for a port that is none)
    except ValueError:
        return ""
    name = (parts.hostname or "").rstrip(".")
    return f"[{name}]" if ":" in name else name


def is_address(name: str) -> bool:
    """Whether a host is an IP address in numbers."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def check_origin(headers: Headers) -> None:
    """Raises Refusal if a page of another site has sent the request. Programs send no Origin; they need the token anyway."""
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        if origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refusal(403, f"Origin must be that of this page, http://{host}; got {origin!r}")


def check_token(headers: Headers, query: QueryParams, token: str) -> None:
    """Raises Refusal unless the header has the token, or if the address has one."""
    if "token" in query or "access_token" in query:
        raise Refusal(401, "the token belongs into the header Authorization: Bearer TOKEN, never into the address")
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not is_token(given, token):
        raise Refusal(401, "this needs the header Authorization: Bearer TOKEN, with the token that glowd has printed")


def is_token(given: str, token: str) -> bool:
    """Whether `given` is the token; takes the same time for every wrong one."""
    return hmac.compare_digest(given.strip().encode(), token.encode())


def with_headers(send: Send) -> Send:
    """`send`, which adds HEADERS to every answer that has not set them itself."""

    async def guarded(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
