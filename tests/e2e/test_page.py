"""The browser page of a whole daemon, in a real browser."""

import os
import signal
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.harness.browser import Browser, browser
from tests.harness.daemon import Daemon, free_port, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, send_all
from tests.harness.waiting import WAIT_S, repeated_after_stalls, until

MEL = speech()
VOICE = 'voices={rtisi={engine="rtisi-la",max_streams=4}}'
SETTINGS = (
    "speaker.enabled=false",
    VOICE,
    "web.enabled=true",
    "web.tts=espeak-ng",
    "web.hosts=['glow.test']",
    "web.cushion_ms=120",
)


@pytest.fixture(scope="module")
def recordings() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(recordings: Path) -> Iterator[Daemon]:
    with running_daemon(*SETTINGS, f"web.port={free_port()}", f"files.directory={recordings}") as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(daemon: Daemon, chromium: Browser) -> Browser:
    """The page, freshly loaded."""
    chromium.driver.get("about:blank")
    chromium.open(url(daemon))
    return chromium


def url(daemon: Daemon) -> str:
    assert daemon.launched.ready and daemon.launched.ready.web
    return daemon.launched.ready.web


def recorded(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def hear(page: Browser, daemon: Daemon, recordings: Path, name: str, frames: int) -> NDArray[np.int16]:
    """Speak frames through a stream that the page hears and a file keeps: what the file has, once both have all."""
    with daemon.client() as client, client.open(name, sinks=[f"file:{name}"]) as stream:
        page.press(f"Listen to {name}")
        page.wait(lambda: page.text("status") == f"Listening to {name}.", "listening")
        page.tap()
        send_all(stream, MEL[:frames], [4], realtime=True)
        stream.wait_played(WAIT_S)
        page.wait(lambda: len(page.heard()) >= frames * HOP, "the last sample")
    return recorded(recordings / f"{name}.wav")


def test_page_plays_exactly_what_the_file_sink_has(page: Browser, daemon: Daemon, recordings: Path) -> None:
    expected = hear(page, daemon, recordings, "exact", 200)
    np.testing.assert_array_equal(page.heard(), expected)
    assert page.run("return [glowd.player.kind, glowd.player.rate, isSecureContext]") == ["worklet", 22050, True]
    assert page.run("return glowd.hearing.report.cushion_ms") >= 120, "web.cushion_ms; more after an underrun"
    page.wait(lambda: f"{200 * HOP - 1} of utterance 0" in page.text("sound-sample"), "the last sample as heard")
    assert page.faults() == []


@repeated_after_stalls
def hears_without_underrun(page: Browser, daemon: Daemon, recordings: Path) -> None:
    name = f"long-{len(list(recordings.iterdir()))}"
    hear(page, daemon, recordings, name, 300)
    assert page.text("sound-underruns") == "0"


def test_utterance_is_heard_without_an_underrun(page: Browser, daemon: Daemon, recordings: Path) -> None:
    hears_without_underrun(page, daemon, recordings)


def test_page_over_plain_http_schedules_buffers_exactly(daemon: Daemon, recordings: Path) -> None:
    """A name of another machine is no secure context: there is no AudioWorklet."""
    with browser("--host-resolver-rules=MAP glow.test 127.0.0.1") as page:
        page.open(url(daemon).replace("127.0.0.1", "glow.test"))
        expected = hear(page, daemon, recordings, "plain", 200)
        kind, early, all_of_them, silence_s, count = page.driver.execute_async_script(SCHEDULED)
        assert (kind, early, all_of_them, count) == ("scheduled", [0], [0, 1, 1], 0) and 0 <= silence_s < 1
        assert page.run("return [glowd.player.kind, isSecureContext]") == ["scheduled", False]
        assert page.run("return glowd.hearing.report.cushion_ms") >= 120
        np.testing.assert_array_equal(page.heard(), expected)
        blocks = page.run("return glowd.player.tapped.map(({time, played}) => [time, played.length])")
        underruns = page.run("return glowd.player.underruns")
        ends = [time + samples / 22050 for time, samples in blocks]
        late = [start - end for (start, _), end in zip(blocks[1:], ends)]
        assert all(abs(gap) < 1e-6 for gap in sorted(late)[: len(late) - underruns]), late
        assert [
            fault for fault in page.faults() if "Cross-Origin-Opener-Policy" not in fault
        ] == []  # not for plain HTTP


RING = """
const done = arguments[0];
const posted = [];
globalThis.AudioWorkletProcessor = class { constructor() { this.port = { postMessage: (data) => posted.push(data) }; } };
globalThis.registerProcessor = (_, found) => { globalThis.Ring = found; };
globalThis.sampleRate = 22050;
globalThis.currentFrame = 0;
import("/static/worklet.js").then(() => {
  const ring = new Ring();
  const push = (generation, first, length, last) => ring.push({ generation, first, last, samples: new Int16Array(length) });
  const run = () => { ring.process(null, [[new Float32Array(128)]]); globalThis.currentFrame += 128; return ring.heard; };
  push(0, 0, 1280, true);
  push(1, 0, 256, false);
  for (let i = 0; i < 20; i++) run();
  const early = { ...run() };
  push(1, 256, 1536, false);
  const later = { ...run() };
  for (let i = 0; i < 13; i++) run();
  done([early, later, run(), ring.underruns]);
});
"""
"""The ring of the audio thread, by hand: an utterance of 1280 samples, and another one right behind it."""


def test_next_utterance_waits_for_its_cushion(page: Browser) -> None:
    """Also where the one before ends with a block of the audio thread, as utterances of whole frames do."""
    early, later, end, underruns = page.driver.execute_async_script(RING)
    assert (early["generation"], early["sample"]) == (0, 1279), "80 ms are 1764 samples; 256 have come"
    assert (later["generation"], later["sample"]) == (1, 127)
    assert (end["generation"], end["sample"], underruns) == (1, 1791, 0)


SCHEDULED = """
const done = arguments[0];
import("/static/sound.js").then(async ({ openPlayer }) => {
  const player = await openPlayer(22050, () => {});
  const push = (generation, first, length, last) => player.push({ generation, first, last, samples: new Int16Array(length) });
  push(0, 0, 640, true);
  push(1, 0, 128, false);
  const early = player.scheduled.map(({ generation }) => generation);
  push(1, 128, 4096, false);
  const { scheduled } = player;
  const ends = scheduled.map(({ at, length }) => at + length / player.rate);
  done([player.kind, early, scheduled.map(({ generation }) => generation), scheduled[1].at - ends[0], player.underruns]);
});
"""


def test_text_is_spoken_and_escape_stops_it_exactly(page: Browser) -> None:
    box = page.find("#text")
    box.clear()
    box.send_keys("one two three four five six seven eight nine ten " * 8, Keys.CONTROL, Keys.ENTER)
    page.tap()
    page.wait(lambda: len(page.heard()) > 22050, "a second of speech")
    page.run("globalThis.kept = glowd.player")
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.wait(lambda: "samples were dropped" in page.text("status"), "the answer to stop")
    tapped = "const last = kept.tapped.at(-1); return last.at + last.played.length > glowd.last.sample"
    page.wait(lambda: page.run(tapped), "what was played, which comes in messages of its own")
    heard, rate, taken, latency = page.run(
        "const blocks = kept.tapped; const c = kept.context; return [glowd.last.sample, glowd.last.rate, "
        "blocks.at(-1).at + blocks.at(-1).played.length, Math.round((c.outputLatency || c.baseLatency) * c.sampleRate)]"
    )
    assert 0 <= taken - 1 - heard <= latency + 128, "the last sample heard is what was played, less what was on its way"
    assert f"stopped after sample {heard}; " in page.text("status")
    tail = page.run("return kept.tapped.slice(-2).flatMap(({played}) => [...played])")
    assert abs(tail[-1]) < 0.02, "it was faded out"
    assert rate == 22050 and page.find("#stop").get_attribute("disabled")
    page.wait(lambda: "0 of" in page.text("headline"), "the stream of the page to be closed")


def test_short_text_is_heard_to_its_last_sample(page: Browser) -> None:
    """All of it is sent before the page has reported anything: what is reported late must not end it early."""
    page.run(
        "globalThis.kept = new Set(); setInterval(() => { const p = glowd.player;"
        " if (p && !kept.has(p)) { kept.add(p); p.tap(); } }, 1)"
    )
    page.find("#text").clear()
    page.find("#text").send_keys("Yes.")
    for number in range(1, 4):
        page.run("glowd.last = null; document.getElementById('speak').click()")
        page.wait(lambda: page.text("status").startswith("Spoken, to sample "), "the end")
        received, sample = page.run("return [glowd.last.received, glowd.last.sample]")
        taken = page.run(
            "const last = [...kept].at(-1).tapped.at(-1); return [kept.size, last.at + last.played.length]"
        )
        assert taken == [number, received] and received > 4000 and sample == received - 1
        page.run("document.getElementById('status').textContent = ''")


def test_text_has_ended_when_the_loudspeaker_has_it(page: Browser) -> None:
    """The audio thread is ahead of the loudspeaker: by 0.4 s here, longer than it is between two reports."""
    page.run("Object.defineProperty(AudioContext.prototype, 'outputLatency', { get: () => 0.4 })")
    page.find("#text").clear()
    page.find("#text").send_keys("Yes.")
    page.run("glowd.last = null; document.getElementById('speak').click()")
    page.wait(lambda: page.text("status").startswith("Spoken, to sample "), "the end")
    received, sample = page.run("return [glowd.last.received, glowd.last.sample]")
    page.run("delete AudioContext.prototype.outputLatency")
    assert sample == received - 1


def test_stream_is_stopped_for_everyone_by_its_button(page: Browser, daemon: Daemon) -> None:
    with daemon.client() as client:
        stream = client.open("loud", sinks=["null"])
        stream.send(MEL[:40])
        page.press("Stop loud for everyone")
        page.wait(lambda: "loud: utterance 0 stopped after sample" in page.text("status"), "the answer")
        stream.close()


def test_focus_stays_while_figures_change(page: Browser, daemon: Daemon) -> None:
    focused = "return document.activeElement.getAttribute('aria-label')"
    with daemon.client() as client, client.open("b-stream", sinks=["null"]):
        page.wait(lambda: "b-stream" in page.text("streams"), "a row")
        page.run("document.querySelector('[aria-label=\"Listen to b-stream\"]').focus()")
        with client.open("a-stream", sinks=["null"]) as first:
            first.send(MEL[:40])
            page.wait(lambda: "a-stream" in page.text("streams"), "another row, above")
            assert page.run(focused) == "Listen to b-stream"
        page.wait(lambda: "a-stream" not in page.text("streams"), "the row to go")
        assert page.run(focused) == "Listen to b-stream"


def test_everything_that_can_be_focused_has_a_name(page: Browser, daemon: Daemon) -> None:
    with daemon.client() as client, client.open("named", sinks=["null"]):
        page.wait(lambda: "named" in page.text("streams"), "a row")
        tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    focusable = [
        node for node in tree
        if any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))
        and node["role"]["value"] != "RootWebArea"
    ]  # fmt: skip
    assert len(focusable) >= 7
    assert [node["role"] for node in focusable if not node.get("name", {}).get("value")] == []


def test_page_asks_no_other_host_and_hides_the_token(page: Browser, daemon: Daemon) -> None:
    origin = url(daemon).partition("/#")[0]
    asked = page.run("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert len(asked) >= 6 and all(name.startswith((f"{origin}/", f"ws{origin[4:]}/")) for name in asked)
    assert page.driver.current_url == f"{origin}/"
    page.driver.refresh()
    page.wait(lambda: "streams" in page.text("headline"), "the figures after a reload")


def test_page_without_the_token_asks_for_it(page: Browser, daemon: Daemon) -> None:
    address, _, token = url(daemon).partition("#token=")
    page.run("sessionStorage.clear()")
    page.driver.get("about:blank")
    page.driver.get(f"{address}#token=wrong")
    page.wait(lambda: not page.run("return document.getElementById('token-section').hidden"), "the question")
    page.find("#token").send_keys(token, Keys.ENTER)
    page.wait(lambda: "streams" in page.text("headline"), "the figures")


def test_page_comes_back_when_the_web_process_was_killed(page: Browser, daemon: Daemon) -> None:
    with daemon.client() as client, client.open("kept", sinks=["null"]) as stream:
        page.press("Listen to kept")
        page.wait(lambda: page.text("status") == "Listening to kept.", "listening")
        os.kill(daemon.role_pids()["web"], signal.SIGKILL)
        page.wait(lambda: "lost" in page.text("status"), "the loss")
        page.wait(lambda: page.text("status") == "Listening to kept.", "listening again")
        page.tap()
        stream.send(MEL[:40])
        stream.end()
        page.wait(lambda: len(page.heard()) == 40 * HOP, "the sound")


def test_page_comes_back_when_the_daemon_was_restarted(page: Browser) -> None:
    with tempfile.TemporaryDirectory(prefix="glowd-") as run_dir:
        settings = (*SETTINGS, f"web.port={free_port()}", f"server.run_dir={run_dir}")
        with running_daemon(*settings) as first:
            page.open(url(first))
            with first.client() as client, client.open("again", sinks=["null"]):
                page.press("Listen to again")
                page.wait(lambda: page.text("status") == "Listening to again.", "listening")
        page.wait(lambda: "trying again" in page.text("headline"), "the loss")
        with running_daemon(*settings) as second:
            page.wait(lambda: "0 of" in page.text("headline"), "the figures of the new daemon")
            with second.client() as client, client.open("again", sinks=["null"]) as stream:
                page.wait(lambda: page.text("status") == "Listening to again.", "listening again")
                page.tap()
                send_all(stream, MEL[:40])
                stream.end()
                page.wait(lambda: len(page.heard()) == 40 * HOP, "the sound")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_the_window_in_light_and_dark(page: Browser, daemon: Daemon, width: int, dark: bool) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        with daemon.client() as client, client.open("a-stream-with-a-rather-long-name", sinks=["null"]) as stream:
            stream.send(MEL[:40])
            until(lambda: "a-stream-with" in page.text("streams"))
            fits, back = page.run(
                "const root = document.documentElement;"
                "return [root.scrollWidth <= innerWidth, getComputedStyle(root).backgroundColor]"
            )
            if pictures := os.environ.get("GLOWD_PICTURES"):
                page.driver.save_screenshot(f"{pictures}/page-{width}-{'dark' if dark else 'light'}.png")
        assert fits and (sum(map(int, back[4:-1].split(", "))) < 3 * 128) == dark
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
