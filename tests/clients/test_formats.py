"""Clients state what their mels are, and hear what the daemon thinks of them."""

import logging
from typing import Any

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client
from glowd.daemon import wire
from glowd.flow.mel_formats.description import MelDescription
from tests.fakes.daemon import FakeDaemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S

WARNING = wire.Warning(600, "MEL_SCALE", "values look like log10", "s", 0, 0)


@pytest.mark.parametrize(
    ("asked", "stated"),
    [
        ({}, {}),
        ({"format": "matcha"}, {"preset": "matcha"}),
        ({"format": {"log": "log10"}, "strict": True}, {"log": "log10", "strict": True}),
        ({"format": "f5", "allow_approximate": True}, {"preset": "f5", "allow_approximate": True}),
    ],
)
def test_open_states_the_format(fake: FakeDaemon, asked: dict[str, Any], stated: dict[str, Any]) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"], **asked):
        pass
    assert fake.of_type(wire.Open)[0].format == stated


def test_a_description_is_stated_with_all_its_keys(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"], format=MelDescription(log="db", scale=2.0)):
        pass
    stated = fake.of_type(wire.Open)[0].format
    assert (stated["log"], stated["scale"], stated["n_mels"]) == ("db", 2.0, 80)


def test_client_speaks_the_newest_version(fake: FakeDaemon) -> None:
    with Client(fake.endpoint):
        pass
    (hello,) = fake.of_type(wire.Hello)
    assert (hello.min_version, hello.max_version) == (1, wire.VERSION)


def test_stated_format_has_its_own_bins_and_range(fake: FakeDaemon) -> None:
    stated = {"n_mels": 100, "log": "db", "fmax_hz": 11025}
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"], format=stated) as stream:
        stream.send(np.full((4, 100), -90.0))
    (sent,) = fake.of_type(wire.Mel)
    assert sent.bins == 100 and sent.payload.min() == -90


def test_square_mel_follows_the_order_of_the_stream(fake: FakeDaemon) -> None:
    mel = speech()[:100]
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel[:20].T)
        stream.send(mel[20:].T)  # 80 bins, 80 frames
    np.testing.assert_array_equal(np.concatenate([sent.payload for sent in fake.of_type(wire.Mel)]), mel)


def test_warning_reaches_the_stream_and_the_log(fake: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        assert stream.warnings == []
        fake.send("s", WARNING)
        with caplog.at_level(logging.WARNING, "glowd.client"):
            stream.send(speech()[:4])
            stream.wait_played()
        assert stream.warnings == [WARNING]
    assert "stream s: values look like log10 (600 MEL_SCALE)" in caplog.text


async def test_warning_reaches_the_stream_of_an_async_client(fake: FakeDaemon) -> None:
    async with AsyncClient(fake.endpoint) as glow, await glow.open("s", sinks=["null"], format="matcha") as stream:
        fake.send("s", WARNING)
        await stream.send(speech()[:4])
        await stream.wait_played()
        assert stream.warnings == [WARNING]


def test_warning_about_no_stream_is_logged(fake: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        fake.send("s", wire.Warning(622, "SLOW_LISTENER", "audio was dropped", "other"))
        with caplog.at_level(logging.WARNING, "glowd.client"):
            stream.send(speech()[:4])
            stream.wait_played()
        assert stream.warnings == []
    assert "audio was dropped (622 SLOW_LISTENER)" in caplog.text


def test_warning_about_another_stream_reaches_its_listener(fake: FakeDaemon) -> None:
    lost = wire.Warning(622, "SLOW_LISTENER", "audio was lost", "s")
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as glow, glow.listen("s") as listener:
        fake.wait_for(lambda: fake.listeners)
        fake.send_to_listeners(lost)
        with speaker.open("s", sinks=["null"]) as stream:
            stream.send(speech()[:4])
            next(listener.audio(timeout_s=WAIT_S))
        assert listener.warnings == [lost]


async def test_warning_reaches_an_async_listener(fake: FakeDaemon) -> None:
    lost = wire.Warning(622, "SLOW_LISTENER", "audio was lost", "s")
    async with AsyncClient(fake.endpoint) as glow:
        listener = await glow.listen("s")
        fake.wait_for(lambda: fake.listeners)
        fake.send_to_listeners(lost)
        await glow.ping()
        assert listener.warnings == [lost]
