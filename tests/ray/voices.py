"""Streams that speak a sentence at the pace of speech, and what their listener hears."""

import threading
import time

import numpy as np

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.harness.mels import speech
from tests.harness.speaking import HOP, send_all
from tests.harness.waiting import WAIT_S

MEL = speech()
RATE_HZ = 22050


class Voice:
    """A stream, from its opening to the end of its sentence, in threads of its own."""

    def __init__(self, client: Client, seed: int, name: str = "", sentences: int = 1) -> None:
        """Raises Refused."""
        self.seed, self._sentences = seed, sentences
        self.name = name or f"voice-{seed}"
        self._stream = client.open(self.name, sinks=["socket"], seed=seed)
        self.has_audio = threading.Event()
        self._audio: list[list[Floats]] = []
        self._late_s: list[float] = []
        self._ends: list[wire.Played | wire.Flushed | None] = []
        self._speaking = threading.Thread(target=self._speak, name=f"{self.name} speaks")
        self._speaking.start()

    def _speak(self) -> None:
        with self._stream:
            for _ in range(self._sentences):
                self._audio.append([])
                hearing = threading.Thread(target=self._hear, name=f"{self.name} hears")
                hearing.start()
                send_all(self._stream, MEL, realtime=True)
                self._ends.append(self._stream.wait_played(5 * WAIT_S))
                hearing.join()

    def _hear(self) -> None:
        """Note how late each chunk is for a listener who began to play with the first one."""
        began_s = 0.0
        for chunk in self._stream.audio(5 * WAIT_S):
            now_s = time.monotonic()
            began_s = began_s or now_s
            self._late_s.append(now_s - began_s - chunk.first_sample / RATE_HZ)
            self._audio[-1].append(chunk.payload)
            self.has_audio.set()

    def finish(self) -> None:
        """Wait for the end. Every sentence is complete, to the sample."""
        self._speaking.join(5 * WAIT_S)
        assert [end.total_samples for end in self._ends if isinstance(end, wire.Played)] == [
            len(MEL) * HOP
        ] * self._sentences, self.name

    @property
    def ended(self) -> int:
        """How many sentences have come to their end."""
        return len(self._ends)

    @property
    def samples(self) -> Floats:
        """The audio of all sentences."""
        return np.concatenate([part for sentence in self._audio for part in sentence])

    @property
    def gap_s(self) -> float:
        """The longest that the listener had to wait for audio."""
        return max(self._late_s)
