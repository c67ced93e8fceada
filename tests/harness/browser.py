"""A real browser for tests of the page: headless Chromium, driven by chromedriver, with a profile of its own."""

import base64
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.harness.waiting import WAIT_S, until

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage",
)  # fmt: skip
HEARD = """
const blocks = glowd.player?.tapped ?? [];
const samples = new Int16Array(blocks.reduce((sum, { played }) => sum + played.length, 0));
let at = 0;
for (const { played } of blocks) for (const value of played) samples[at++] = Math.round(value * 32767);
let text = "";
const bytes = new Uint8Array(samples.buffer);
for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
return btoa(text);
"""


class Browser:
    """A browser with one page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open an address, and wait for the first figures."""
        self.driver.get(url)
        self.wait(lambda: "streams" in self.text("headline"), "the first figures")

    def run(self, script: str) -> Any:
        """The result of a script in the page."""
        return self.driver.execute_script(script)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, id: str) -> str:
        """What an element says."""
        return str(self.run(f"return document.getElementById({id!r}).textContent"))

    def wait(self, true: Callable[[], object], what: str) -> None:
        """Wait until something holds; say what the page shows if it never does."""
        try:
            until(true, what, 2 * WAIT_S, every_s=0.05)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the page says {self.text('headline')!r}, {self.text('status')!r}") from None

    def press(self, name: str) -> None:
        """Press the button of this name, as its label for screen readers says it."""
        css = f'button[aria-label="{name}"]'
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, css), f"a button {name}")
        self.run(f"document.querySelector('{css}').click()")

    def tap(self) -> None:
        """From now on keep what is played."""
        self.wait(lambda: self.run("return Boolean(glowd.player)"), "a player")
        self.run("glowd.player.tap()")

    def heard(self) -> NDArray[np.int16]:
        """The samples that were played since then."""
        return np.frombuffer(base64.b64decode(self.run(HEARD)), "<i2")

    def faults(self) -> list[str]:
        """What the browser has complained about."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")
        return [str(entry["message"]) for entry in log if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def browser(*flags: str, width: int = 1280, height: int = 1000) -> Iterator[Browser]:
    """A browser that has no page yet."""
    with tempfile.TemporaryDirectory(prefix="glowd-browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
