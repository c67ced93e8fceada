"""A sentence, as sound and as what a voice wants."""

from pathlib import Path
from typing import Any

import pytest
import soundfile

from glowd.flow.mel import log_mel

SENTENCE = Path(__file__).parents[3] / "clients" / "demo_sentence.flac"


@pytest.fixture(scope="session")
def sound() -> Any:
    """The demo sentence [T]."""
    samples, _ = soundfile.read(SENTENCE, dtype="float32")
    return samples


@pytest.fixture(scope="session")
def sentence(sound: Any) -> Any:
    """Its mel [n, 80], by glowd's front end."""
    return log_mel(sound)
