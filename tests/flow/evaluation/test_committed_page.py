"""The listening page that stands in the repository: whole, small, and made of recordings that may be passed on."""

import io
import json
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from glowd.flow.evaluation.systems import GRIFFIN_LIM, REAL, RTISI_LA, WAVEGLOW, WAVENET
from tests.harness.daemon import ROOT
from tests.harness.pages import Page, content_of

PAGE, PICTURE = ROOT / "flow" / "listening.html", ROOT / "flow" / "spectrograms.png"
SYSTEMS = [REAL, GRIFFIN_LIM, RTISI_LA, f"{WAVEGLOW} (now)", f"{WAVEGLOW} (before)", WAVENET]
MAY_BE_PASSED_ON = re.compile(r"public domain|\bCC0\b|\bCC BY 4\.0\b")


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(PAGE.read_text("utf-8"))


def test_page_is_small_and_asks_nobody(page: Page) -> None:
    assert PAGE.stat().st_size <= 4_000_000 and PICTURE.stat().st_size <= 200_000
    assert page.problems == page.requests() == [] and page.policy().startswith("default-src 'none'")
    assert Image.open(PICTURE).size[0] > 700


def test_page_has_ten_sentences_by_every_system(page: Page) -> None:
    found = re.search(r"const CONTENT = (\[.*\]);", "".join(page.words))
    assert found
    sentences = json.loads(found[1])
    assert len(sentences) == 10
    for _, systems in sentences:
        assert [re.sub(r" sigma \S+$", "", system) for system in systems] == SYSTEMS


def test_every_sound_decodes_to_the_length_of_its_recording(page: Page) -> None:
    players = page.all("audio")
    assert len(players) == 10 * len(SYSTEMS)
    lengths: dict[str | None, set[int]] = {}
    for player in players:
        samples, rate_hz = soundfile.read(io.BytesIO(content_of(player["src"])), dtype="float32")
        assert np.abs(samples).max() > 0.005 and len(samples) > rate_hz, player["aria-label"]
        lengths.setdefault(player["data-sentence"], set()).add(len(samples))
    assert len(lengths) == 10 and all(len(found) == 1 for found in lengths.values())


def test_recordings_may_be_passed_on_and_are_named(page: Page) -> None:
    text = PAGE.read_text("utf-8")
    part = text.partition("Where the recordings come from")[2].partition("</details>")[0]
    origins = re.findall(r"<dt>(\d+\. [^<]+)</dt><dd>([^<]+)<span[^>]*>([^<]+)</span>", part)
    assert len(origins) == 10
    assert all(MAY_BE_PASSED_ON.search(licence) and source.strip() for _, licence, source in origins)
    assert len(re.findall(r'<span class="soft">vctk_p\d+, ', text)) == 2  # strangers, under CC BY 4.0


def test_commands_of_page_name_no_folder_of_one_machine(page: Page) -> None:
    commands = "".join(page.words).partition("How this page was made")[2].partition('"use strict"')[0]
    assert "glowlab compare" in commands and not re.search(r"(^|[\s='])/\w+/", commands), commands
