"""A client of the web process in a soak: mels by HTTP, and each answer is to the sample what it must be.

Rules: a thread; a request may fail only while it was disturbed.
"""

import io
import random
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException

import numpy as np
from numpy.typing import NDArray

from tests.harness.waiting import WAIT_S
from tests.soak import utterances
from tests.soak.bank import SEEDS, Entry, stream_name
from tests.soak.clients import Scene

PAUSE_S = (3.0, 8.0)
NUMBER = 99
"""In the names by which it takes utterances from the bank."""


class WebClient:
    """Asks, hears, judges, again and again."""

    def __init__(self, scene: Scene, voice: str = "glow") -> None:
        self._scene, self._voice, self._random = scene, voice, random.Random(NUMBER)
        assert scene.daemon.launched.ready and scene.daemon.launched.ready.web
        self._address, _, self._token = scene.daemon.launched.ready.web.partition("/#token=")
        self.thread = threading.Thread(target=self._run, name="soak-web", daemon=True)

    def _run(self) -> None:
        visit = 0
        while not self._scene.over.wait(self._random.uniform(*PAUSE_S)):
            seed, begin_s, visit = self._random.choice(SEEDS), time.monotonic(), visit + 1
            entry = self._scene.bank.entry(stream_name(self._voice, seed, NUMBER, visit), 0)
            wrong = self._ask(entry, seed)
            if self._scene.windows.touches(begin_s, time.monotonic()):
                self._scene.records.count(f"HTTP answers while disturbed, {'wrong' if wrong else 'right'}")
            elif wrong:
                self._scene.records.fault("HTTP answers", wrong)
            else:
                self._scene.records.count("HTTP answers")

    def _ask(self, entry: Entry, seed: int) -> str:
        """What is wrong with the answer, "" if nothing."""
        try:
            heard = self._rendered(entry, seed)
        except urllib.error.HTTPError as error:
            with error:
                return f"status {error.code}: {error.read(300).decode(errors='replace')}"
        except (OSError, HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        return utterances.file_wrong(heard, entry.samples)

    def _rendered(self, entry: Entry, seed: int) -> NDArray[np.int16]:
        body = io.BytesIO()
        np.save(body, entry.mel)
        address = f"{self._address}/v1/mel?voice={self._voice}&seed={seed}&response_format=pcm"
        request = urllib.request.Request(address, body.getvalue(), {"Authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return np.frombuffer(answer.read(), "<i2")
