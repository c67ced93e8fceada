"""The browser page plays live speech for minutes in headless Chromium: every sample, and no underrun."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.report import Result, cpu_name, scheduling
from tests.harness.browser import Browser, browser
from tests.harness.daemon import Daemon, rss_bytes, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, send_all
from tests.harness.waiting import WAIT_S
from tests.soak.judge import Figure, growth
from tests.soak.sentinel import Sentinels

NAME = "soak"
SETTINGS = ("speaker.enabled=false", 'voices={glow={engine="waveglow"}}', "web.enabled=true", "web.port=0")
CHUNK_FRAMES = (4,)
PAUSE_S = (0.1, 1.5)
"""The shortest and longest silence between two utterances."""
HEAP = "return performance.memory.usedJSHeapSize"
MEASURE = """
const found = { task_ms: 0, late_ms: 0 }, push = glowd.player.push;
let of = -1, began = 0, first = 0;
glowd.found = found;
glowd.player.push = function (chunk) {
  const now = performance.now();
  if (chunk.generation !== of) [of, began, first] = [chunk.generation, now, chunk.first];
  found.late_ms = Math.max(found.late_ms, now - began - ((chunk.first - first) * 1000) / this.rate);
  return push.call(this, chunk);
};
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) found.task_ms = Math.max(found.task_ms, duration);
}).observe({ type: "longtask" });
"""
"""In the page: the longest task that held its main thread for 50 ms or more, and how late a chunk came after the first one."""
FOUND = "const found = { ...glowd.found }; glowd.found.task_ms = glowd.found.late_ms = 0; return found"
REPORT = "return {received: glowd.hearing.received, ...glowd.hearing.report}"


@dataclass(frozen=True, slots=True)
class PageMinute:
    """The page at the end of a minute. Counts are since the beginning.

    Times in ms are the longest of this minute: stalls of the machine (sentinel.py), a task of the page's main thread, the delay
    of a chunk behind the first one of its utterance.
    """

    minute: int
    utterances: int
    sent_samples: int
    received_samples: int
    played_samples: int
    underruns: int
    gaps: int
    cushion_ms: int
    heap_mb: float
    web_mb: float
    realtime_stall_ms: float
    plain_stall_ms: float
    longest_task_ms: float
    latest_chunk_ms: float

    @property
    def is_whole(self) -> bool:
        """Whether the page has played all that was sent to it, without a gap."""
        all_played = self.sent_samples == self.received_samples == self.played_samples
        return all_played and not self.underruns and not self.gaps


class PageSoak:
    """A daemon with one live stream, and a page that listens to it."""

    def __init__(self, daemon: Daemon, page: Browser, sentinels: Sentinels, seed: int = 0) -> None:
        self._daemon, self._page, self._sentinels = daemon, page, sentinels
        self._random = random.Random(seed)
        self._utterances = self._sent_samples = 0

    def run(self, minutes: float, tell: Callable[[PageMinute], object], minute_s: float = 60.0) -> PageMinute:
        """Speak for so many minutes, and tell how the page is after each; what holds at the end."""
        with self._daemon.client() as client, client.open(NAME, sinks=["null"]) as stream:
            self._listen()
            end_s = time.monotonic() + 60 * minutes
            minute = 0
            while time.monotonic() < end_s:
                minute += 1
                begin_s = time.monotonic()
                self._speak_until(stream, min(end_s, begin_s + minute_s))
                found = self._look(minute, begin_s)
                tell(found)
        return found

    def _listen(self) -> None:
        assert self._daemon.launched.ready and self._daemon.launched.ready.web
        self._page.open(self._daemon.launched.ready.web)
        self._page.press(f"Listen to {NAME}")
        self._page.wait(lambda: self._page.text("status") == f"Listening to {NAME}.", "listening")
        self._page.run(MEASURE)

    def _speak_until(self, stream: Any, end_s: float) -> None:
        """Utterances of random lengths at the pace of speech; then the page has played all of them."""
        while time.monotonic() < end_s:
            frames = self._random.randint(20, len(speech()))
            send_all(stream, speech()[:frames], CHUNK_FRAMES, realtime=True)
            stream.wait_played(WAIT_S)
            self._utterances, self._sent_samples = self._utterances + 1, self._sent_samples + frames * HOP
            time.sleep(self._random.uniform(*PAUSE_S))
        self._page.wait(lambda: self._page.run(REPORT)["taken"] >= self._sent_samples, "the last sample")

    def _look(self, minute: int, begin_s: float) -> PageMinute:
        realtime_ms, plain_ms = self._sentinels.longest_ms(begin_s, time.monotonic())
        report, found = self._page.run(REPORT), self._page.run(FOUND)
        return PageMinute(
            minute, self._utterances, self._sent_samples, report["received"], report["taken"], report["underruns"],
            report["gaps"], report["cushion_ms"], round(self._page.run(HEAP) / 1e6, 2),
            round(rss_bytes(self._daemon.role_pids()["web"]) / 1e6, 2), round(realtime_ms, 1),
            round(plain_ms, 1),
            round(found["task_ms"], 1), round(found["late_ms"], 1),
        )  # fmt: skip


def play(minutes: float, settings: Sequence[str], tell: Callable[[dict[str, Any]], object]) -> list[PageMinute]:
    """The whole run: a daemon, a browser, minutes of speech; each minute is told as a map."""
    found: list[PageMinute] = []

    def keep(minute: PageMinute) -> None:
        found.append(minute)
        tell(asdict(minute))

    with tempfile.TemporaryDirectory(prefix="glowd-soak-") as name:
        files = f"files.directory={Path(name)}"
        with running_daemon(*SETTINGS, files, *settings) as daemon, browser() as page, Sentinels() as sentinels:
            PageSoak(daemon, page, sentinels).run(minutes, keep)
    return found


def figures(minutes: float, settings: Sequence[str], tell: Callable[[dict[str, Any]], object]) -> list[Result]:
    """The run, and what it says."""
    found = play(minutes, settings, tell)
    beside = {"minutes": minutes, "set": " ".join(settings), "scheduling": scheduling()}
    return list(verdict(found, beside))


def verdict(found: Sequence[PageMinute], settings: dict[str, Any]) -> Iterator[Result]:
    """Every figure with its bound."""
    last = found[-1]
    beside = {
        "cushion ms": last.cushion_ms, "utterances": last.utterances,
        "longest stall of the machine ms": max(one.realtime_stall_ms for one in found),
        "longest task of the page ms": max(one.longest_task_ms for one in found),
        "latest chunk ms": max(one.latest_chunk_ms for one in found),
    }  # fmt: skip
    lost = abs(last.sent_samples - last.received_samples) + abs(last.sent_samples - last.played_samples)
    rows: list[Figure] = [("underruns", last.underruns, "", "<= 0", beside), ("gaps", last.gaps, "", "<= 0", {}),
            ("samples that were not played", lost, f"of {last.sent_samples}", "<= 0", {})]  # fmt: skip
    for name, unit, values in (
        ("growth of its heap", "MB/min", [one.heap_mb for one in found]),
        ("growth of the web process", "MB/min", [one.web_mb for one in found]),
    ):
        value = growth([(number, value, 0) for number, value in enumerate(values)])
        if value == value:
            rows.append((name, value, unit, "<= 0.1", {"last": values[-1]}))
    for what, value, unit, goal, more in rows:
        yield Result(f"page: {what}", value, unit, cpu_name(), settings, goal, more)
