"""The routes of the web process, with the figures of a daemon that a test plays."""

from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq
from starlette.testclient import TestClient

from glowd.clients.web import figures
from glowd.clients.web.app import create_app
from glowd.clients.web.protection import PUBLIC, is_public
from glowd.clients.web.site import Site
from tests.harness.waiting import until


class Publisher:
    """Publishes telemetry when the test says so."""

    def __init__(self, directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/top.ipc"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.bind(self.endpoint)

    def publish(self, data: bytes) -> None:
        self._socket.send(data)

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def publisher(socket_dir: Path) -> Iterator[Publisher]:
    made = Publisher(socket_dir)
    yield made
    made.close()


@pytest.fixture
def web(publisher: Publisher) -> Iterator[TestClient]:
    site = Site(endpoint="", telemetry=publisher.endpoint, token="t" * 16)
    with TestClient(create_app(site), base_url="http://127.0.0.1") as client:
        yield client


def test_health_is_503_before_there_are_figures(web: TestClient) -> None:
    answer = web.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"daemon": "away"})


def test_health_has_the_state_until_figures_are_old(
    web: TestClient, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def healthy() -> bool:
        publisher.publish(b"not telemetry")
        publisher.publish(msgpack.packb({"state": "degraded", "streams": {}}))
        return web.get("/health").status_code == 200

    until(healthy)
    assert web.get("/health").json() == {"daemon": "degraded"}
    monkeypatch.setattr(figures, "STALE_S", 0.01)
    monkeypatch.setattr(figures, "PASS_MS", 20)
    until(lambda: web.get("/health").status_code == 503)
    assert web.get("/health").json() == {"daemon": "away"}


def test_drained_daemon_is_healthy_and_not_ready(web: TestClient, publisher: Publisher) -> None:
    def is_known() -> bool:
        publisher.publish(msgpack.packb({"state": "draining", "streams": {}}))
        return web.get("/health").status_code == 200

    until(is_known)
    answer = web.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reason": "the daemon is draining"})


def test_get_changes_nothing_and_only_public_paths_are_open(web: TestClient) -> None:
    assert web.post("/health").status_code == 405
    assert [path for path in (*PUBLIC, "/health/x", "/v1/audio/speech", "/metrics", "/live") if not is_public(path)] == [
        "/health/x", "/v1/audio/speech", "/metrics", "/live",
    ]  # fmt: skip
