"""Who is let in: every request that a foreign page, a foreign name or a program without the token could send is refused."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from glowd.clients.web.protection import HEADERS, Protection, host_of
from glowd.clients.web.site import Site

TOKEN = "a-token-of-the-tests"
HOST = "http://127.0.0.1:7767"
LIVE = HOST.replace("http", "ws") + "/live"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def show(request: Request) -> PlainTextResponse:
    return PlainTextResponse("let in")


async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def client(**site: object) -> TestClient:
    routes = [
        Route("/", show),
        Route("/static/x.js", show),
        Route("/v1/mel", show, methods=["POST"]),
        Route("/healthy", show),
        WebSocketRoute("/live", live),
    ]
    settings = {"endpoint": "", "telemetry": "", "token": TOKEN, **site}
    return TestClient(Protection(Starlette(routes=routes), Site(**settings)), base_url=HOST)  # type: ignore[arg-type]


@pytest.fixture
def web() -> Iterator[TestClient]:
    with client() as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/static/x.js"])
def test_public_path_needs_no_token(web: TestClient, path: str) -> None:
    answer = web.get(path)
    assert (answer.status_code, answer.text) == (200, "let in")


def test_right_token_in_the_header_is_let_in(web: TestClient) -> None:
    assert web.post("/v1/mel", headers=BEARER).text == "let in"
    assert web.post("/v1/mel", headers=BEARER | {"Origin": HOST}).text == "let in"


@pytest.mark.parametrize("path", ["/v1/mel", "/healthy", "/staticx", "/nothing"])
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ä"])
def test_missing_or_wrong_token_is_refused(web: TestClient, path: str, header: str) -> None:
    answer = web.post(path, headers={b"authorization": header.encode()} if header else {})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer TOKEN" in answer.text and TOKEN not in answer.text


@pytest.mark.parametrize("headers", [{}, BEARER])
@pytest.mark.parametrize("name", ["token", "access_token"])
def test_token_in_the_address_is_refused(web: TestClient, headers: dict[str, str], name: str) -> None:
    answer = web.post(f"/v1/mel?{name}={TOKEN}", headers=headers)
    assert answer.status_code == 401 and "never into the address" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7767", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.7", "",
             "127.0.0.1:x", "127.0.0.1@evil.example", "[::2]"],
)  # fmt: skip
def test_host_of_somebody_else_is_refused(web: TestClient, host: str) -> None:
    for path in ("/", "/v1/mel"):
        answer = web.request("GET" if path == "/" else "POST", path, headers=BEARER | {"Host": host})
        assert answer.status_code == 403 and "Host must be one of" in answer.text
    with pytest.raises(WebSocketDenialResponse) as refused, web.websocket_connect(LIVE, headers={"Host": host}):
        pass
    assert refused.value.status_code == 403


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "localhost.", "[::1]:7767", "127.0.0.1"])
def test_names_of_this_machine_are_let_in(web: TestClient, host: str) -> None:
    assert web.get("/", headers={"Host": host}).status_code == 200


def test_named_hosts_and_addresses_are_let_in_when_chosen() -> None:
    with client(hosts=frozenset({"glow.lan"}), any_address=True) as web:
        for host, status in {
            "glow.lan:80": 200,
            "192.168.1.7:7767": 200,
            "[fe80::1]": 200,
            "evil.example": 403,
        }.items():
            assert web.get("/", headers={"Host": host}).status_code == status, host


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:8080", "http://localhost:7767", ""]
)
def test_foreign_origin_is_refused(web: TestClient, origin: str) -> None:
    for path in ("/", "/v1/mel"):
        answer = web.request("GET" if path == "/" else "POST", path, headers=BEARER | {"Origin": origin})
        assert answer.status_code == 403 and "Origin must be that of this page" in answer.text
    with pytest.raises(WebSocketDenialResponse) as refused, web.websocket_connect(LIVE, headers={"Origin": origin}):
        pass
    assert refused.value.status_code == 403 and "Origin must be" in refused.value.text


def test_own_origin_may_open_a_websocket(web: TestClient) -> None:
    for origin in (HOST, HOST.replace("http", "https")):
        with web.websocket_connect(LIVE, headers={"Origin": origin}):
            pass


def test_every_answer_has_the_security_headers(web: TestClient) -> None:
    for answer in (web.get("/"), web.post("/v1/mel"), web.get("/", headers={"Host": "evil.example"})):
        assert HEADERS.items() <= {name: answer.headers.get(name) for name in HEADERS}.items()
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]


def test_host_of_reads_names_addresses_and_ports() -> None:
    hosts = {"a.b:1": "a.b", "A": "a", "[::1]:2": "[::1]", "1.2.3.4": "1.2.3.4", "[::1": "", "a:99999": ""}
    assert {given: host_of(given) for given in hosts} == hosts
