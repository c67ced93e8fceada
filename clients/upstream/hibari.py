"""hibari: natural English on a CPU, in a Python process. A sentence is made at once, sentences one after the other.

Rules: the package hibari-tts (extra `hibari`) is imported when it is used. The same text gives the same samples.
"""

import threading
from collections.abc import Iterator
from typing import Any

from glowd.clients.upstream.interface import Manner, Speech, UpstreamError
from glowd.clients.upstream.packages import imported
from glowd.clients.upstream.pcm import at_rate, mel_of_pcm
from glowd.flow.mel import Floats, MelFormat

OWN_FASTEST, OWN_SLOWEST = 1.5, 0.6
"""The model keeps this pace; beyond it, it shortens no further, and the frames are moved together."""
SEED = 0
LETTER_A = "[A](/ˈA/)"
"""Alone it is the letter, not the article; the model would say the article."""
WARM_UP = "Ready."


class Hibari:
    """A voice of hibari; heart is in its package, it fetches others when they are first used.

    Raises UpstreamError if the package or the voice is missing.
    """

    name = "hibari"

    def __init__(self, voice: str = "") -> None:
        hibari = imported("hibari", "hibari-tts", "hibari")
        self.voice, self._lock = voice or hibari.voices.DEFAULT, threading.Lock()
        try:
            self._model = hibari.Hibari(voice=self.voice)
            self._model(WARM_UP)  # its dictionaries are read by the first sentence
        except (ValueError, RuntimeError, OSError) as error:
            raise UpstreamError(f"hibari cannot speak with voice {self.voice!r}: {error}") from error

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text in the format `wanted`. Another pitch moves the formants too, as a tape that runs faster does."""
        if text.strip() in ("a", "A"):
            text = LETTER_A
        pitch = 2 ** (manner.semitones / 12)
        speed = min(OWN_FASTEST, max(OWN_SLOWEST, manner.rate / pitch))
        frames = mel_of_pcm(self._sentences(text, speed), self._model.sample_rate * pitch, wanted)
        return Speech(wanted.to_dict(), at_rate(frames, manner.rate / (speed * pitch)))

    def _sentences(self, text: str, speed: float) -> Iterator[Floats]:
        """The samples of each sentence; another thread's sentence may be made between two."""
        sentences: Iterator[Any] = self._model.stream(text, speed=speed, seed=SEED)
        while True:
            with self._lock:
                samples = next(sentences, None)
            if samples is None:
                return
            yield samples
