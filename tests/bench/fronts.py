"""Fronts: from the request for a text to its first audio, beside the native client, in turns on one daemon.

The text is made by recorded_voice.py, so a text-to-speech program is no part of it. Connections are kept, as the fronts' own
clients keep them. Each front gets the native client's own time subtracted, request by request.
"""

import asyncio
import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.sync.client import ClientConnection, connect
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.tts import Synthesize

from glowd.clients import Client
from glowd.clients.upstream import Upstream, open_upstream
from glowd.clients.web.messages import HEADER
from glowd.flow.mel import MelFormat
from tests.bench.recorded_voice import NAME
from tests.bench.report import Result, cpu_name, percentiles_ms, scheduling
from tests.harness.daemon import ONLY_GLOW, ROOT, Daemon, running_daemon

TEXT = "This text is spoken by a recording."
PREPARED = 3
"""Requests of each front that do not count."""
GOAL = "<= 5"

Front = Callable[[], float]
"""Makes one request; seconds to its first audio. It reads the audio to its end."""


def fronts(requests: int) -> Iterator[Result]:
    """What each front adds to the time to first audio, p50 and p99."""
    settings = ("web.enabled=true", "web.port=0", f"web.tts={NAME}", "wyoming.enabled=true", "wyoming.port=0")
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    with running_daemon(ONLY_GLOW, *settings, f"wyoming.tts={NAME}", env=path) as daemon, ExitStack() as stack:
        named = {
            "native client": native(daemon, stack),
            "HTTP": by_http(daemon, stack),
            "WebSocket": by_websocket(daemon, stack),
            "Wyoming": by_wyoming(daemon, stack),
        }
        times = in_turns(named, requests)
    own = times.pop("native client")
    yield from figures("native client: text to first audio", own, "", requests)
    for name, taken in times.items():
        yield from figures(f"{name}: added to the first audio", taken - own, GOAL, requests)


def in_turns(named: dict[str, Front], requests: int) -> dict[str, np.ndarray]:
    """Seconds of each front's requests, one after the other, so that whatever else the machine does befalls all."""
    times: dict[str, list[float]] = {name: [] for name in named}
    for number in range(PREPARED + requests):
        for name, front in named.items():
            taken = front()
            if number >= PREPARED:
                times[name].append(taken)
    return {name: np.array(taken) for name, taken in times.items()}


def figures(name: str, times_s: np.ndarray, goal: str, requests: int) -> Iterator[Result]:
    """The percentiles as figures."""
    spread, settings = percentiles_ms(list(times_s)), {"requests": requests, "frames": 48, "scheduling": scheduling()}
    yield Result(f"{name}, p50", spread["p50"], "ms", cpu_name(), settings, goal)
    yield Result(f"{name}, p99", spread["p99"], "ms", cpu_name(), settings)


def native(daemon: Daemon, stack: ExitStack) -> Front:
    """The client library, as a program uses it that makes mels itself."""
    client = stack.enter_context(Client(daemon.endpoint, name="bench"))
    upstream: Upstream = open_upstream(NAME)
    wanted = MelFormat.from_dict(next(voice["format"] for voice in client.welcome.voices if voice["default"]))

    def request() -> float:
        began = time.monotonic()
        speech = upstream.speak(TEXT, wanted)
        with client.open(sinks=["socket"], format=speech.stated) as stream:
            stream.send(next(speech.frames))
            audio = stream.audio()
            next(audio)
            taken = time.monotonic() - began
            for frames in speech.frames:
                stream.send(frames)
            stream.end()
            for _ in audio:
                pass
        return taken

    return request


def by_http(daemon: Daemon, stack: ExitStack) -> Front:
    """POST /v1/audio/speech, pcm."""
    url, token = site(daemon)
    connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)))
    body = json.dumps({"input": TEXT, "voice": "alloy", "model": "tts-1", "response_format": "pcm"})

    def request() -> float:
        began = time.monotonic()
        connection.request("POST", "/v1/audio/speech", body, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read(2)
        taken = time.monotonic() - began
        answer.read()
        return taken

    return request


def by_websocket(daemon: Daemon, stack: ExitStack) -> Front:
    """The page's own WebSocket."""
    url, token = site(daemon)
    page = stack.enter_context(connect(f"ws{url.removeprefix('http')}/live", max_size=None))
    page.send(json.dumps({"type": "hello", "token": token}))
    asked = iter(range(1, 1 << 30))

    def request() -> float:
        began = time.monotonic()
        page.send(json.dumps({"type": "say", "id": next(asked), "text": TEXT, "voice": "", "rate_hz": 22_050}))
        taken = first_samples(page) - began
        wait_for(page, "ended")
        return taken

    return request


def first_samples(page: ClientConnection) -> float:
    """When the first audio came."""
    while not isinstance(message := page.recv(60), bytes) or len(message) <= HEADER.size:
        assert isinstance(message, bytes) or json.loads(message)["type"] != "error", message
    return time.monotonic()


def wait_for(page: ClientConnection, kind: str) -> None:
    """Read until a message of this type; the page takes all audio at once."""
    taken = 0
    while True:
        message = page.recv(60)
        if isinstance(message, bytes):
            taken += (len(message) - HEADER.size) // 2
            id, generation = HEADER.unpack_from(message)[:2]
            report = {"type": "report", "id": id, "taken": taken, "generation": generation, "sample": taken - 1}
            page.send(json.dumps(report | {"buffered_ms": 0, "underruns": 0}))
        elif json.loads(message)["type"] == kind:
            return


def by_wyoming(daemon: Daemon, stack: ExitStack) -> Front:
    """Home Assistant's protocol, by its own client."""
    loop = stack.enter_context(contextlib.closing(asyncio.new_event_loop()))
    uri: Any = daemon.launched.ready.wyoming  # type: ignore[union-attr]
    parts = urlsplit(uri)
    client = AsyncTcpClient(str(parts.hostname), int(parts.port or 0))
    loop.run_until_complete(client.connect())
    stack.callback(lambda: loop.run_until_complete(client.disconnect()))

    async def speak() -> float:
        began, first = time.monotonic(), 0.0
        await client.write_event(Synthesize(text=TEXT).event())
        while (event := await client.read_event()) is not None and not AudioStop.is_type(event.type):
            if AudioChunk.is_type(event.type):
                first = first or time.monotonic()
        return first - began

    return lambda: loop.run_until_complete(speak())


def site(daemon: Daemon) -> tuple[str, str]:
    """Address of the web process, and its token."""
    assert daemon.launched.ready is not None
    url, _, token = daemon.launched.ready.web.partition("/#token=")
    return url, token
