"""An open page: who gets in, what it hears, how it stops, and what it is told when the daemon goes."""

import json
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from glowd.clients import errors
from glowd.clients.aio import AsyncClient
from glowd.clients.client import Client
from glowd.clients.upstream import Upstream
from glowd.clients.web import page as page_module
from glowd.clients.web import speaking
from glowd.clients.web.playback import AHEAD_S
from glowd.clients.web.text_speech import TextFrames
from glowd.daemon import wire
from glowd.daemon.wire.codec import to_s16
from glowd.flow.mel import Floats, MelFormat
from tests.clients.web.pages import LIVE, TOKEN, page, web
from tests.fakes.daemon import HOP, RATE_HZ, FakeDaemon


def expected(samples: int) -> Any:
    """The first samples that the fake daemon renders."""
    return to_s16(np.arange(samples).astype(np.float32) / np.float32(2**20))


def mel(frames: int) -> Floats:
    return np.full((frames, 80), -5, np.float32)


@pytest.fixture
def client(fake: FakeDaemon) -> Iterator[TestClient]:
    with web(fake.endpoint) as made:
        yield made


def closing(client: TestClient, *sent: str) -> int:
    """The code with which a page is closed that sends these messages."""
    with client.websocket_connect(LIVE) as socket:
        for text in sent:
            socket.send_text(text)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    return closed.value.code


@pytest.mark.parametrize(
    "text",
    ['{"type": "hello", "token": "wrong"}', '{"type": "hello", "token": ""}', '{"type": "voices"}', "x"],
)
def test_page_without_the_token_is_closed(client: TestClient, text: str) -> None:
    assert closing(client, text) == page_module.NO_TOKEN


def test_page_that_says_nothing_is_closed(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "HELLO_S", 0.05)
    assert closing(client) == page_module.NO_TOKEN


def test_one_page_too_many_is_refused_and_then_taken(fake: FakeDaemon) -> None:
    with web(fake.endpoint, max_pages=1) as client:
        with page(client) as first:
            first.expect("voices")
            hello = json.dumps({"type": "hello", "token": TOKEN})
            assert closing(client, hello) == page_module.TOO_MANY
        with page(client) as second:
            second.expect("voices")


def test_voices_are_told(client: TestClient) -> None:
    with page(client) as opened:
        assert opened.expect("voices")["voices"] == [{"name": "glow", "rate_hz": RATE_HZ, "default": True}]


def test_stream_of_another_client_is_heard_exactly(client: TestClient, fake: FakeDaemon) -> None:
    with page(client) as opened, Client(fake.endpoint) as other, other.open("theirs", sinks=["null"]) as stream:
        opened.send("listen", id=4, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        fake.wait_for(lambda: fake.listeners)
        stream.send(mel(40))
        stream.end()
        while not (opened.audio and opened.audio[-1][3]):
            opened.receive()
    assert [piece[0] for piece in opened.audio] == [4] * len(opened.audio)
    np.testing.assert_array_equal(opened.samples(), expected(40 * HOP))
    (asked,) = fake.of_type(wire.Listen)
    assert (asked.stream, asked.audio_rate_hz, asked.audio_dtype) == ("theirs", RATE_HZ, "s16")


def test_page_is_told_how_much_to_collect_before_it_plays(fake: FakeDaemon) -> None:
    with (
        web(fake.endpoint, cushion_ms=120.0) as client, page(client) as opened,
        Client(fake.endpoint) as other, other.open("theirs", sinks=["null"]),
    ):  # fmt: skip
        opened.send("listen", id=4, stream="theirs", rate_hz=RATE_HZ)
        assert opened.expect("started")["cushion_ms"] == 120


def test_page_that_reports_nothing_gets_two_seconds(client: TestClient, fake: FakeDaemon) -> None:
    frames = int(5 * RATE_HZ / HOP)
    with page(client) as opened, Client(fake.endpoint) as other, other.open("theirs", sinks=["null"]) as stream:
        opened.send("listen", id=1, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        fake.wait_for(lambda: fake.listeners)
        stream.send(mel(frames))
        stream.end()
        stream.wait_played()
        opened.send("voices")
        opened.expect("voices")
        opened.send("voices")
        opened.expect("voices")
        assert len(opened.samples()) <= AHEAD_S * RATE_HZ + 16 * HOP
        while not (opened.audio and opened.audio[-1][3]):
            opened.send("report", id=1, taken=len(opened.samples()), generation=0, sample=0, buffered_ms=0, underruns=0)
            opened.receive()
    np.testing.assert_array_equal(opened.samples(), expected(frames * HOP))


def test_flush_by_another_is_told_at_once(client: TestClient, fake: FakeDaemon) -> None:
    with page(client) as opened, Client(fake.endpoint) as other, other.open("theirs", sinks=["null"]) as stream:
        opened.send("listen", id=1, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        fake.wait_for(lambda: fake.listeners)
        stream.send(mel(40))
        stream.flush()
        ended = opened.expect("ended")
    assert (ended["id"], ended["how"], ended["generation"]) == (1, "flushed", 0)


def test_page_stops_listening(client: TestClient, fake: FakeDaemon) -> None:
    with page(client) as opened:
        opened.send("listen", id=1, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        opened.send("stop", id=1, generation=2, sample=77)
        stopped = opened.expect("stopped")
        assert (stopped["generation"], stopped["heard_sample"], stopped["dropped_samples"]) == (2, 77, 0)
        fake.wait_for(lambda: fake.of_type(wire.Unlisten))


def test_page_that_leaves_closes_its_streams(client: TestClient, fake: FakeDaemon, slow_speech: list[int]) -> None:
    with page(client) as opened:
        opened.send("say", id=1, text="Hello.", voice="", rate_hz=RATE_HZ)
        opened.expect("started")
        assert fake.streams
    fake.wait_for(lambda: not fake.streams and fake.of_type(wire.Bye))


@pytest.fixture
def slow_speech(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Text-to-speech that makes these numbers of frames, one utterance after the other; a long one if there are none."""
    lengths: list[int] = []

    async def frames() -> AsyncGenerator[Floats, None]:
        for number in lengths or [10_000]:
            yield mel(number)

    async def frames_of_text(upstream: Upstream, text: str, wanted: MelFormat) -> TextFrames:
        return TextFrames({}, frames())

    monkeypatch.setattr(speaking, "frames_of_text", frames_of_text)
    return lengths


def test_text_is_spoken_to_its_end(client: TestClient, fake: FakeDaemon, slow_speech: list[int]) -> None:
    slow_speech += [20, 0, 30]
    with page(client) as opened:
        opened.send("say", id=2, text="Hello.", voice="glow", rate_hz=RATE_HZ)
        stream = opened.expect("started")["stream"]
        ended = opened.expect("ended")
        assert (ended["id"], ended["how"]) == (2, "spoken")
        np.testing.assert_array_equal(opened.samples(), expected(50 * HOP))
        fake.wait_for(lambda: stream not in fake.streams)


def test_text_longer_than_an_utterance_becomes_two(socket_dir: Path, slow_speech: list[int]) -> None:
    slow_speech += [60, 60]
    with (
        FakeDaemon(socket_dir, limits={"max_utterance_s": 1}) as fake,
        web(fake.endpoint) as client,
        page(client) as opened,
    ):
        opened.send("say", id=2, text="Hello.", voice="", rate_hz=RATE_HZ)
        opened.expect("ended")
    assert [piece[1] for piece in opened.audio if piece[3]] == [0, 1]
    assert len(opened.samples()) == 120 * HOP


def test_barge_in_says_what_was_heard_and_dropped(client: TestClient, fake: FakeDaemon, slow_speech: list[int]) -> None:
    with page(client) as opened:
        opened.send("say", id=3, text="Hello.", voice="", rate_hz=RATE_HZ)
        opened.expect("started")
        while len(opened.samples()) < 2 * RATE_HZ:
            opened.receive()
        opened.send("stop", id=3, generation=0, sample=1000)
        stopped = opened.expect("stopped")
        assert (stopped["id"], stopped["heard_sample"]) == (3, 1000)
        assert stopped["dropped_samples"] == 99 + 1 + 1000 - 1001  # what the fake daemon says of its flush
        fake.wait_for(lambda: not fake.streams)
        assert fake.of_type(wire.Flush)[0].fade_ms == 0


def test_frames_are_sent_only_at_the_pace_of_hearing(
    client: TestClient, fake: FakeDaemon, slow_speech: list[int]
) -> None:
    with page(client) as opened:
        opened.send("say", id=3, text="Hello.", voice="", rate_hz=RATE_HZ)
        opened.expect("started")
        while len(opened.samples()) < 2 * RATE_HZ:
            opened.receive()
        opened.send("voices")
        opened.expect("voices")
        sent_s = sum(one.frames for one in fake.of_type(wire.Mel)) * HOP / RATE_HZ
        assert sent_s <= speaking.LEAD_S + speaking.CHUNK_FRAMES * HOP / RATE_HZ


def test_page_asleep_gives_its_stream_up(
    client: TestClient, fake: FakeDaemon, slow_speech: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "ASLEEP_S", 0.2)
    with page(client) as opened:
        opened.send("say", id=3, text="Hello.", voice="", rate_hz=RATE_HZ)
        assert "has taken no audio for 0.2 s" in opened.expect("error")["text"]
        fake.wait_for(lambda: not fake.streams)


def test_stream_of_another_client_is_stopped_by_name(socket_dir: Path) -> None:
    snapshot = {"streams": {"theirs": {"generation": 0}}}
    with FakeDaemon(socket_dir, snapshot=snapshot) as fake, web(fake.endpoint) as client, page(client) as opened:
        with Client(fake.endpoint) as other:
            stream = other.open("theirs", sinks=["null"])
            stream.send(mel(10))
            opened.send("flush", id=9, stream="theirs")
            stopped = opened.expect("stopped")
            assert (stopped["stream"], stopped["heard_sample"], stopped["dropped_samples"]) == ("theirs", 99, 1000)
            with pytest.raises(errors.Interrupted, match="flushed by another client"):
                stream.wait_played()
        opened.send("flush", id=10, stream="nobody")
        assert opened.expect("error")["text"] == "no stream nobody is open"


def test_voice_that_became_ready_later_is_found(client: TestClient, fake: FakeDaemon, slow_speech: list[int]) -> None:
    slow_speech += [20]
    with page(client) as opened:
        glow = fake.voices.pop()
        opened.expect("voices")
        opened.send("voices")
        assert opened.expect("voices")["voices"] == []
        fake.voices.append(glow)
        opened.send("say", id=1, text="Hello.", voice="glow", rate_hz=RATE_HZ)
        assert opened.expect("ended")["how"] == "spoken"


@pytest.mark.parametrize(
    ("type", "fields", "said"),
    [
        ("say", {"text": "a", "voice": "none", "rate_hz": RATE_HZ}, "voice none is not ready; ready voices: glow"),
        ("say", {"text": "a", "voice": "", "rate_hz": 5}, "rate_hz must be from"),
        ("listen", {"stream": "a b", "rate_hz": RATE_HZ}, "listen.stream must be the name of a stream"),
    ],
)
def test_refused_request_is_told(client: TestClient, type: str, fields: dict[str, Any], said: str) -> None:
    with page(client) as opened:
        opened.send(type, id=1, **fields)
        assert said in opened.expect("error")["text"]
        opened.send("voices")
        opened.expect("voices")


def test_too_many_requests_at_once_are_refused(client: TestClient) -> None:
    with page(client) as opened:
        opened.expect("voices")
        for _ in range(page_module.MAX_TASKS + 1):
            opened.send("figures", seen=0)  # none come
        assert "requests are being done" in opened.expect("error")["text"]


def test_daemon_that_stays_away_is_told_and_found_later(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "AsyncClient", partial(AsyncClient, reconnect_s=0))
    with FakeDaemon(socket_dir) as fake, web(fake.endpoint) as client, page(client) as opened:
        opened.send("listen", id=1, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        fake.stop()
        ended = opened.expect("ended")
        assert (ended["id"], ended["how"]) == (1, "lost")
        with FakeDaemon(socket_dir) as again:
            opened.send("listen", id=2, stream="theirs", rate_hz=RATE_HZ)
            assert opened.expect("started")["id"] == 2
            again.wait_for(lambda: again.of_type(wire.Listen))


def test_listening_goes_on_when_the_daemon_comes_back(socket_dir: Path) -> None:
    with FakeDaemon(socket_dir) as fake, web(fake.endpoint) as client, page(client) as opened:
        opened.send("listen", id=1, stream="theirs", rate_hz=RATE_HZ)
        opened.expect("started")
        fake.stop()
        with FakeDaemon(socket_dir) as again:
            again.wait_for(lambda: again.listeners)
            with Client(again.endpoint) as other, other.open("theirs", sinks=["null"]) as stream:
                stream.send(mel(20))
                stream.end()
                while not (opened.audio and opened.audio[-1][3]):
                    opened.receive()
    np.testing.assert_array_equal(opened.samples(), expected(20 * HOP))
