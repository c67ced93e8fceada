"""Upstreams by name, and their frames for asyncio programs."""

import asyncio
import contextlib
import importlib.util
import threading
from collections.abc import Generator
from typing import Any

import pytest

from glowd.clients.upstream import UpstreamError, in_thread, open_upstream
from glowd.clients.upstream.choose import default_name
from glowd.clients.upstream.espeak import Espeak
from tests.harness.waiting import WAIT_S


@pytest.mark.parametrize("name", ["festival", "espeak-ng:en", "hibari:heart", "matcha", "python", "program", ":x"])
def test_unknown_name_raises_what_is_allowed(name: str) -> None:
    with pytest.raises(
        UpstreamError, match="names nothing that speaks; expected one of espeak-ng, hibari, matcha:FILE"
    ):
        open_upstream(name)


@pytest.mark.parametrize("name", ["python:a:b", "program:cat"])
def test_voice_where_there_are_none_raises(name: str) -> None:
    with pytest.raises(UpstreamError, match="has no voices to choose from; leave the voice 'heart' out"):
        open_upstream(name, "heart")


def test_espeak_voice_is_the_one_that_is_named() -> None:
    assert open_upstream("espeak-ng", "de") == Espeak("de") and open_upstream("espeak-ng") == Espeak("en-us")


def test_default_is_the_variable_then_hibari_then_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOWD_TTS", raising=False)
    assert default_name() == "hibari"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert default_name() == "espeak-ng"
    monkeypatch.setenv("GLOWD_TTS", "program:mine")
    assert default_name() == "program:mine"


class Steps:
    """A generator of numbers that waits in its second step until it may go on."""

    def __init__(self) -> None:
        self.may_go_on, self.waits, self.ended = threading.Event(), threading.Event(), False

    def run(self) -> Generator[int, None, None]:
        try:
            yield 1
            self.waits.set()
            self.may_go_on.wait(WAIT_S)
            yield 2
        finally:
            self.ended = True


async def test_frames_in_a_thread_leave_the_loop_free() -> None:
    steps, got = Steps(), list[int]()

    async def read() -> None:
        async with contextlib.aclosing(in_thread(steps.run())) as items:
            got.extend([item async for item in items])

    reader = asyncio.create_task(read())
    await asyncio.to_thread(steps.waits.wait, WAIT_S)
    steps.may_go_on.set()
    await reader
    assert got == [1, 2] and steps.ended


async def test_cancelled_step_is_ended_in_its_thread() -> None:
    steps = Steps()

    async def read() -> Any:
        async with contextlib.aclosing(in_thread(steps.run())) as items:
            return [item async for item in items]

    reader = asyncio.create_task(read())
    await asyncio.to_thread(steps.waits.wait, WAIT_S)
    reader.cancel()
    steps.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert steps.ended
