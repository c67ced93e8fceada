"""The module's settings: those of its file, and those that speech-dispatcher sends before each message.

Rules: no I/O but the file. The file is TOML; `glowctl speechd` writes it.
"""

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from glowd.clients.upstream import Manner
from glowd.clients.upstream.interface import FASTEST
from glowd.flow.options import OptionError, Options, option

MOST = 100
"""speech-dispatcher's rate, pitch and volume are from -100 to 100."""
LOWEST_GAIN_DB = -60.0


class SettingsError(Exception):
    """The module's file cannot be used. The text names the file and the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSettings(Options):
    """The file modules/glowd.conf of speech-dispatcher."""

    tts: str = option("", "what makes mels of texts, as glowctl say --tts; empty: hibari if installed, else espeak-ng")
    tts_voice: str = option("", "a voice of that; empty: its own default")
    languages: tuple[str, ...] = option(("en",), "languages that it speaks; espeak-ng speaks the others", min=1, max=64)
    voice: str = option("", "a voice of the daemon; empty: its default")
    endpoint: str = option("", "address of the daemon; empty: $GLOWD_ENDPOINT, or the run directory")
    sinks: tuple[str, ...] = option(("device",), "where the audio goes, as glowctl say --sink", min=1, max=4)
    prefill_ms: int = option(20, "audio collected before it plays, in ms; -1: as the daemon is set", min=-1, max=10_000)
    seed: int = option(0, "of the noise: the same text sounds the same each time", min=0)


def read_settings(path: Path | None) -> ModuleSettings:
    """The settings of a file, defaults without one. Raises SettingsError."""
    if path is None or not path.exists():
        return ModuleSettings()
    try:
        return ModuleSettings.from_dict(tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, OptionError) as error:
        raise SettingsError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Parameters:
    """What speech-dispatcher has set for the next message."""

    rate: int = 0
    pitch: int = 0
    volume: int = MOST
    language: str = ""
    spelling: bool = False
    says_capitals: bool = False

    def with_settings(self, settings: dict[str, str]) -> Self:
        """These with some changed; those that the module does not know stay out. Raises ValueError."""
        changed = replace(
            self,
            rate=number("rate", settings.get("rate", str(self.rate))),
            pitch=number("pitch", settings.get("pitch", str(self.pitch))),
            volume=number("volume", settings.get("volume", str(self.volume))),
        )
        if "language" in settings:
            changed = replace(changed, language="" if settings["language"] == "NULL" else settings["language"])
        if "spelling_mode" in settings:
            changed = replace(changed, spelling=settings["spelling_mode"] == "on")
        if "cap_let_recogn" in settings:
            changed = replace(changed, says_capitals=settings["cap_let_recogn"] in ("spell", "icon"))
        return changed

    @property
    def manner(self) -> Manner:
        """100 is three times as fast and an octave higher, -100 the reverse."""
        return Manner(FASTEST ** (self.rate / MOST), 12 * self.pitch / MOST)

    @property
    def gain_db(self) -> float:
        """100 is the full amplitude, 0 half of it, -100 silence."""
        amplitude = (self.volume + MOST) / (2 * MOST)
        return 20 * math.log10(amplitude) if amplitude > 0.001 else LOWEST_GAIN_DB


def number(name: str, text: str) -> int:
    """A number from -100 to 100. Raises ValueError."""
    value = int(text)
    if not -MOST <= value <= MOST:
        raise ValueError(f"{name} is {value}; allowed: {-MOST} to {MOST}")
    return value
