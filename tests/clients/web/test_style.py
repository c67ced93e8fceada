"""The style of the page: enough contrast in light and dark, and nothing from another place."""

import re
from pathlib import Path

import pytest

from glowd.clients.web import app

CSS = (app.STATIC / "page.css").read_text("utf-8")
LEAST = 4.5
"""WCAG 2.2, AA: contrast of text."""
LEAST_GRAPHIC = 2.0
PAIRS = (
    ("ink", "back"), ("ink", "card"), ("dim", "back"), ("dim", "card"), ("accent", "card"), ("on-accent", "accent"),
    ("bad", "bad-back"), ("bad", "card"), ("ink", "row"), ("accent", "row"), ("dim", "row"),
)  # fmt: skip


def colours(css: str) -> dict[str, str]:
    """The variables of a rule."""
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css))


LIGHT, DARK = (colours(part) for part in CSS.split("@media (prefers-color-scheme: dark)")[:2])


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_has_enough_contrast(scheme: dict[str, str]) -> None:
    found = {pair: round(contrast(scheme[pair[0]], scheme[pair[1]]), 2) for pair in PAIRS}
    assert {pair: ratio for pair, ratio in found.items() if ratio < LEAST} == {}
    stages = {name: contrast(colour, scheme["back"]) for name, colour in scheme.items() if name.startswith("stage-")}
    assert len(stages) == 6 and min(stages.values()) >= LEAST_GRAPHIC, stages


def test_both_schemes_set_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()


@pytest.mark.parametrize("file", sorted(app.STATIC.iterdir()), ids=lambda file: file.name)
def test_files_of_the_page_name_no_other_host(file: Path) -> None:
    text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]|@import|<style|\son[a-z]+=|\sstyle=""", text) == []


def test_every_script_opens_with_its_rules() -> None:
    scripts = sorted(app.STATIC.glob("*.js"))
    assert len(scripts) >= 5
    assert [script.name for script in scripts if not script.read_text("utf-8").startswith("/* ")] == []
    assert [script.name for script in scripts if len(script.read_text("utf-8").splitlines()) > 300] == []


def test_scripts_put_names_of_clients_in_as_text_only() -> None:
    """What clients have chosen (names, errors) is never read as HTML or as a program."""
    unsafe = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(['\"]"
    )
    assert [script.name for script in app.STATIC.glob("*.js") if unsafe.search(script.read_text("utf-8"))] == []
