"""HTTP through a whole daemon, as the programs do that people have: the `openai` package, and plain HTTP."""

import base64
import http.client
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import miniaudio
import numpy as np
import openai
import pytest
import soundfile

from glowd.clients import Client
from glowd.daemon.wire.codec import to_s16
from tests.harness.daemon import ONLY_GLOW, Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S, until

pytestmark = pytest.mark.process

TEXT = "The first bytes leave before the sentence ends. A client that hangs up is a barge in."


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon(ONLY_GLOW, "web.enabled=true", "web.port=0", "web.tts=espeak-ng") as running:
        yield running


def site(daemon: Daemon) -> tuple[str, str]:
    """Address and token."""
    assert daemon.launched.ready is not None
    url, _, token = daemon.launched.ready.web.partition("/#token=")
    return url, token


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    url, token = site(daemon)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=WAIT_S) as made:
        yield made


def speak(client: openai.OpenAI, **request: Any) -> bytes:
    wanted: dict[str, Any] = {"input": TEXT, "voice": "alloy", "model": "tts-1"} | request
    return client.audio.speech.create(**wanted).read()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding: sums depend a little on where a program's output and a resampler's input are cut."""
    assert len(found) == len(expected) and np.abs(found.astype(int) - expected).max() < 100


def post(daemon: Daemon, path: str, body: Any, token: str | None = None) -> tuple[int, bytes]:
    url, right = site(daemon)
    headers = {"Authorization": f"Bearer {token or right}"}
    request = urllib.request.Request(url + path, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_openai_pcm_is_at_24_khz_whatever_the_voice_has(client: openai.OpenAI) -> None:
    pcm = np.frombuffer(speak(client, response_format="pcm"), "<i2")
    flac = miniaudio.decode(speak(client, response_format="flac"), sample_rate=24_000, nchannels=1)
    close(np.asarray(flac.samples), pcm)
    assert 3 < len(pcm) / 24_000 < 10 and np.abs(pcm).max() > 1000


@pytest.mark.parametrize(("format", "magic"), [("mp3", (b"\xff", b"ID3")), ("opus", (b"OggS",)), ("wav", (b"RIFF",))])
def test_openai_formats_decode_to_the_same_length(client: openai.OpenAI, format: str, magic: tuple[bytes, ...]) -> None:
    whole = len(speak(client, response_format="pcm")) // 2
    encoded = speak(client, response_format=format)
    assert encoded.startswith(magic)
    if format == "wav":
        assert (len(encoded) - 44, int.from_bytes(encoded[24:28], "little")) == (2 * whole, 24_000)
    elif format == "opus":
        assert len(soundfile.read(io.BytesIO(encoded))[0]) == whole
    else:
        found = miniaudio.decode(encoded, sample_rate=24_000, nchannels=1)
        assert 0 <= len(found.samples) - whole < 3000  # an MP3 begins and ends with silence of its own


def test_openai_bytes_come_before_the_speech_is_made(client: openai.OpenAI) -> None:
    many = " ".join([TEXT] * 30)
    began = time.monotonic()
    with client.audio.speech.with_streaming_response.create(
        input=many, voice="glow", model="tts-1", response_format="pcm"
    ) as answer:
        chunks = answer.iter_bytes(1024)
        next(chunks)
        first_s = time.monotonic() - began
        assert answer.headers["content-type"] == "audio/pcm"
        for _ in chunks:
            pass
    assert first_s < (time.monotonic() - began) / 2


def test_openai_client_that_hangs_up_stops_its_stream(client: openai.OpenAI, daemon: Daemon) -> None:
    with client.audio.speech.with_streaming_response.create(
        input=" ".join([TEXT] * 100), voice="glow", model="tts-1", response_format="pcm"
    ) as answer:
        chunks = answer.iter_bytes(1024)
        next(chunks)
        with Client(daemon.endpoint) as watcher:
            until(lambda: len(watcher.status().info["streams"]) == 1, "one stream")
    with Client(daemon.endpoint) as watcher:
        until(lambda: not watcher.status().info["streams"], "no stream")


def test_openai_events_hold_the_same_audio(client: openai.OpenAI) -> None:
    plain = np.frombuffer(speak(client, response_format="pcm"), "<i2")
    with client.audio.speech.with_streaming_response.create(
        input=TEXT, voice="glow", model="tts-1", response_format="pcm", stream_format="sse"
    ) as answer:
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    close(np.frombuffer(b"".join(base64.b64decode(event["audio"]) for event in events[:-1]), "<i2"), plain)
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["input_tokens"] == len(TEXT.split())


def test_openai_speed_and_empty_text(client: openai.OpenAI) -> None:
    usual, fast = (len(speak(client, response_format="pcm", speed=speed)) for speed in (1.0, 2.0))
    assert 0.4 < fast / usual < 0.65
    assert speak(client, response_format="pcm", input=" ") == b""


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"voice": "nobody"}, 404, "nobody"), ({"response_format": "aac"}, 400, "mp3, opus, flac, wav, pcm"),
        ({"speed": 9.0}, 400, "0.3 to 3"), ({"stream_format": "x"}, 400, "audio, sse"),
    ],
)  # fmt: skip
def test_openai_error_has_status_and_reason(
    client: openai.OpenAI, request_: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        speak(client, **request_)
    assert caught.value.status_code == status and words in str(caught.value.body)


def test_openai_wrong_key_is_an_authentication_error(daemon: Daemon) -> None:
    with (
        openai.OpenAI(base_url=f"{site(daemon)[0]}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="Bearer"),
    ):
        speak(client)


def test_mel_of_numpy_gives_what_the_native_client_gets(daemon: Daemon) -> None:
    mel, file = speech()[:200], io.BytesIO()
    np.save(file, mel)
    status, wav = post(daemon, "/v1/mel?voice=glow&seed=5", file.getvalue())
    with (
        Client(daemon.endpoint) as native,
        native.open(voice="glow", sinks=["socket"], seed=5, audio_dtype="s16") as one,
    ):
        one.send(mel)
        one.end()
        expected = to_s16(np.concatenate([chunk.payload for chunk in one.audio()]))
    assert status == 200 and int.from_bytes(wav[24:28], "little") == 22_050
    np.testing.assert_array_equal(np.frombuffer(wav[44:], "<i2"), expected)


def test_mel_frames_are_spoken_while_the_body_arrives(daemon: Daemon) -> None:
    url, token = site(daemon)
    mel = speech()[:200].astype("<f4")
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)
    connection.putrequest("POST", "/v1/mel?response_format=pcm&rate=16000")
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()

    def send(data: bytes) -> None:
        connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    send(b'{"preset": "matcha"}\n')
    send(mel[:100].tobytes())
    answer = connection.getresponse()  # while half of the frames are still here
    first = answer.read(2000)
    send(mel[100:].tobytes())
    connection.send(b"0\r\n\r\n")
    rest = answer.read()
    assert answer.status == 200
    assert abs((len(first) + len(rest)) / 2 - 200 * 256 * 16_000 / 22_050) < 500


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/mel?rate=7", b"{}\n", "8000, 12000"), ("/v1/mel", b"<html>", "line of JSON"),
        ("/v1/mel", b"{}\n12345", "within a frame"), ("/v1/mel", b'{"preset": "nothing"}\n', "nothing"),
        ("/v1/mel?voice=nobody", b"{}\n", "ready voices: "), ("/v1/audio/speech", b"[1]", "JSON object"),
        ("/v1/audio/speech", b"[" * 10_000, "no JSON"), ("/v1/audio/speech", b"{}", "`input`"),
    ],
)  # fmt: skip
def test_request_that_cannot_be_read_says_why(daemon: Daemon, path: str, body: bytes, words: str) -> None:
    status, answer = post(daemon, path, body)
    assert status in (400, 404) and words in json.loads(answer)["error"]["message"]


def test_ready_says_which_voice(daemon: Daemon) -> None:
    with urllib.request.urlopen(site(daemon)[0] + "/ready", timeout=WAIT_S) as answer:
        assert json.load(answer) == {"ready": True, "voice": "glow"}
