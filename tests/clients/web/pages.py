"""A page played by a test: a WebSocket to the web process, against a fake daemon."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.testclient import TestClient, WebSocketTestSession

from glowd.clients.web.app import create_app
from glowd.clients.web.messages import HEADER
from glowd.clients.web.site import Site
from glowd.daemon.wire.fields import Array

TOKEN = "the-token-of-the-tests"
LIVE = "ws://127.0.0.1/live"


@dataclass
class TestPage:
    """An open page. `audio` keeps what came in binary: header fields and samples."""

    __test__ = False
    socket: WebSocketTestSession
    said: list[dict[str, Any]] = field(default_factory=list)
    audio: list[tuple[int, int, int, int, int, Array]] = field(default_factory=list)
    awaits: str = ""

    def send(self, type: str, **fields: Any) -> None:
        self.socket.send_text(json.dumps({"type": type, **fields}))

    def receive(self) -> None:
        """Take the next message."""
        message = self.socket.receive()
        if message.get("text") is not None:
            self.said.append(json.loads(message["text"]))
            assert self.said[-1]["type"] == self.awaits or self.said[-1]["type"] != "error", self.said[-1]
        elif message.get("bytes") is not None:
            data = message["bytes"]
            id, generation, first, flags, rate = HEADER.unpack_from(data)
            self.audio.append((id, generation, int(first), flags, rate, np.frombuffer(data, "<i2", offset=HEADER.size)))
        else:
            raise AssertionError(f"the page was closed: {message}")

    def expect(self, type: str) -> dict[str, Any]:
        """The next message of a type; what comes before it is kept."""
        self.awaits = type
        while not self.said or self.said[-1]["type"] != type:
            self.receive()
        self.awaits = ""
        found = self.said[-1]
        self.said.append({"type": ""})
        return found

    def samples(self) -> Array:
        return np.concatenate([np.zeros(0, np.int16), *(piece[5] for piece in self.audio)])


@contextlib.contextmanager
def web(endpoint: str, telemetry: str = "ipc:///tmp/glowd-no-telemetry", **site: Any) -> Iterator[TestClient]:
    """The web process's application, for a daemon."""
    made = Site(endpoint=endpoint, telemetry=telemetry, token=TOKEN, tts="espeak-ng", **site)
    with TestClient(create_app(made), base_url="http://127.0.0.1") as client:
        yield client


@contextlib.contextmanager
def page(client: TestClient, token: str = TOKEN) -> Iterator[TestPage]:
    """A page that has said hello."""
    with client.websocket_connect(LIVE) as socket:
        opened = TestPage(socket)
        opened.send("hello", token=token)
        yield opened
