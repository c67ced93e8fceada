"""Credit: a page gets what it takes, and one that sleeps gets nothing and costs nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from glowd.clients.web import playback as module
from glowd.clients.web.messages import GAP, HEADER, LAST, Report
from glowd.clients.web.playback import AHEAD_S, KEPT_ASLEEP_S, Playback
from tests.clients.web.test_ring import RATE, audio
from tests.harness.waiting import WAIT_S


class Sent(list[bytes]):
    """What was sent to the page."""

    async def send(self, data: bytes) -> None:
        self.append(data)

    @property
    def samples(self) -> int:
        return sum(len(data) - HEADER.size for data in self) // 2


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def playing(live: bool = True) -> AsyncIterator[tuple[Playback, Sent]]:
    sent = Sent()
    playback = Playback(7, RATE, 30.0, live, sent.send)
    task = asyncio.create_task(playback.send_all())
    yield playback, sent
    task.cancel()


def report(taken: int) -> Report:
    return Report(7, taken, 0, taken - 1, 0, 0)


async def test_page_gets_audio_only_as_it_takes_it() -> None:
    async with playing() as (playback, sent):
        for first in range(0, 10_000, 50):
            playback.add(audio(50, first))
        await settled()
        assert sent.samples == AHEAD_S * RATE + 50
        for taken, samples in {300: 2350, 301: 2350, 350: 2400, 200: 2400}.items():
            playback.on_report(report(taken))
            await settled()
            assert sent.samples == samples
        assert [HEADER.unpack_from(data)[2] for data in sent] == [50 * i for i in range(len(sent))]


async def test_report_beyond_what_was_sent_gives_no_credit_for_more() -> None:
    async with playing() as (playback, sent):
        playback.on_report(report(10**12))
        for first in range(0, 10_000, 50):
            playback.add(audio(50, first))
        await settled()
        assert sent.samples == AHEAD_S * RATE + 50


async def test_sleeping_page_keeps_only_the_newest_of_a_live_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with playing() as (playback, sent):
        playback.add(audio(int(AHEAD_S * RATE) + 250))
        await settled()
        monkeypatch.setattr(module, "ASLEEP_S", -1.0)
        for first in range(3000, 60_000, 50):
            playback.add(audio(50, first))
            assert playback.ring.seconds <= KEPT_ASLEEP_S + 1e-9
            await asyncio.sleep(0)
        before = len(sent)
        playback.on_report(report(2250))
        await settled()
        flags = [HEADER.unpack_from(data)[3] for data in sent[before:]]
        assert flags[0] & GAP or flags[1] & GAP, "a piece that waited for room is old, what follows is new"
        assert HEADER.unpack_from(sent[-1])[2] == 59_950


async def test_what_a_page_says_itself_is_kept_while_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASLEEP_S", -1.0)
    async with playing(live=False) as (playback, _):
        for first in range(0, 20_000, 50):
            playback.add(audio(50, first))
        assert playback.ring.dropped_samples == 0


async def test_two_may_wait_for_the_page_at_once() -> None:
    async with playing() as (playback, _):
        playback.add(audio(2000))
        await settled()
        waiting = [asyncio.create_task(playback.wait_taken(samples)) for samples in (-5, 100, 200)]
        await settled()
        assert [task.done() for task in waiting] == [True, False, False]
        playback.on_report(report(150))
        await settled()
        assert [task.done() for task in waiting] == [True, True, False]
        playback.on_report(report(200))
        await asyncio.gather(*waiting)


async def test_all_is_sent_only_after_the_last_piece() -> None:
    async with playing() as (playback, sent):
        playback.add(audio(10, last=True))
        playback.finish()
        assert not playback.sent_all.is_set()
        await asyncio.wait_for(playback.sent_all.wait(), WAIT_S)
        id, generation, first, flags, rate = HEADER.unpack_from(sent[0])
        assert (id, generation, first, flags, rate) == (7, 0, 0.0, LAST, RATE)
