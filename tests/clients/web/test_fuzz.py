"""The web process, whatever a program or a page sends it: a clear answer, and the next one is served."""

import io
import json
import logging
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from glowd.clients.web import pool
from glowd.flow.mel import MelFormat
from tests.clients.web.pages import LIVE, TOKEN, web
from tests.clients.wyoming.test_wyoming import Words
from tests.fakes.daemon import VOICE, FakeDaemon
from tests.harness.mutations import damaged, mutated_json

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ALLOWED = {200, 400, 401, 403, 404, 405, 413, 422, 503}
SPEECH = (
    {"input": "ten words", "voice": "glow", "model": "words", "response_format": "pcm"},
    {"input": "ten words", "voice": {"id": "alloy"}, "stream_format": "sse", "speed": 1.5, "response_format": "wav"},
)
PAGE: tuple[dict[str, Any], ...] = (
    {"type": "figures", "seen": -1}, {"type": "voices"}, {"type": "listen", "id": 1, "stream": "s", "rate_hz": 22050},
    {"type": "say", "id": 2, "text": "ten words", "voice": "", "rate_hz": 22050},
    {"type": "stop", "id": 2, "generation": 0, "sample": 5},
    {"type": "report", "id": 2, "taken": 1, "generation": 0, "sample": -1, "buffered_ms": 80, "underruns": 0},
    {"type": "flush", "id": 3, "stream": "s"}, {"type": "hello", "token": TOKEN},
)  # fmt: skip
PATHS = (
    "/v1/mel",
    "/v1/audio/speech",
    "/ready",
    "/health",
    "/metrics",
    "/live",
    "/",
    "/static/page.js",
    "/static/../app.py",
)


@pytest.fixture
def client(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(pool, "open_upstream", lambda *_: Words())
    fake.voices = [{**VOICE, "history_frames": 0, "format": MelFormat().to_dict()}]
    with web(fake.endpoint) as found:
        yield found


@pytest.fixture(autouse=True)
def calm(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged with a traceback."""
    caplog.set_level(logging.WARNING)
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info]


def check(client: TestClient, method: str, path: str, body: bytes) -> int:
    answer = client.request(method, path, content=body, headers=BEARER)
    said = method, path, body[:300], answer.status_code, answer.text[:300]
    assert answer.status_code in ALLOWED, said
    if answer.status_code >= 400 and method == "POST" and path.split("?")[0] in PATHS[:2]:
        assert json.loads(answer.text)["error"]["message"], said
    return answer.status_code


@pytest.mark.parametrize("seed", [1, 2])
def test_any_body_of_speech_gets_a_clear_answer(client: TestClient, seed: int) -> None:
    found = {check(client, "POST", "/v1/audio/speech", body) for body in islice(mutated_json(seed, SPEECH), 150)}
    assert found >= {200, 400} and check(client, "POST", "/v1/audio/speech", json.dumps(SPEECH[0]).encode()) == 200


def mel_bodies(random: Random) -> Iterator[tuple[str, bytes]]:
    """Addresses and bodies that are almost right."""
    frames = np.full((3, 80), -4, "<f4")
    saved = npy(frames)
    bodies = (
        saved, saved + saved, b"{}\n" + frames.tobytes(), b'"matcha"\n' + frames.tobytes(), b'{"n_mels": 80}\n', b"",
        saved.replace(b"(3, 80), }    ", b"(99999999999, 80)}"), saved.replace(b"<f4", b"|O"), saved.replace(b"False", b"[[[[["),
        b"[" * 4000 + b"\n", npy(np.zeros((0, 80))), npy(np.full((2, 80), np.nan)), npy(np.array(["x"])),
        npy(frames.reshape(1, 3, 80)),
    )  # fmt: skip
    queries = (
        "",
        "?voice=glow",
        "?voice=%00",
        "?seed=-1",
        "?seed=٣",
        "?rate=8000&seed=4",
        "?response_format=pcm",
        "?voice=a&voice=b",
        "?%ff",
    )
    while True:
        body = random.choice(bodies)
        yield random.choice(queries), damaged(random, body) if random.random() < 0.5 else body


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


@pytest.mark.parametrize("seed", [1, 2])
def test_any_body_of_mels_gets_a_clear_answer(client: TestClient, seed: int) -> None:
    found = {check(client, "POST", f"/v1/mel{query}", body) for query, body in islice(mel_bodies(Random(seed)), 150)}
    assert found >= {200, 400}
    assert check(client, "POST", "/v1/mel", npy(np.full((3, 80), -4, "<f4"))) == 200


def test_any_path_and_method_gets_a_clear_answer(client: TestClient) -> None:
    random = Random(1)
    for _ in range(150):
        path = random.choice(PATHS)
        if random.random() < 0.5:
            path = "/" + quote(damaged(random, path.encode()), "/.%").lstrip("/")[:200]
        check(client, random.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "X")), path, b"")


@pytest.mark.parametrize("seed", [1, 2])
def test_any_message_of_a_page_is_answered_or_ends_it(client: TestClient, seed: int) -> None:
    with client.websocket_connect(LIVE) as one, client.websocket_connect(LIVE) as two:
        for socket in (one, two):
            socket.send_json({"type": "hello", "token": TOKEN})
        for text in islice(mutated_json(seed, PAGE), 200):
            one.send_text(text.decode(errors="replace"))
        for socket in (one, two):
            socket.send_json({"type": "flush", "id": 777, "stream": "nobody"})
            while (said := socket.receive()).get("bytes") or json.loads(said["text"]).get("id") != 777:
                pass
