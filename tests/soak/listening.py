"""A listener to all streams of a soak: what it hears is what each stream must be, and nothing of it is missing.

Rules: a thread with a client of its own. It may miss audio only while it was disturbed.
"""

import threading
import time
from dataclasses import dataclass

from glowd.clients import errors
from glowd.clients.client import Listener
from glowd.daemon import wire
from tests.soak import utterances
from tests.soak.bank import speaker_of
from tests.soak.clients import PLANS, Scene

POLL_S = 1.0
KEPT = 64


@dataclass(slots=True)
class Heard:
    """How far one utterance was heard. `begin_s`: since when."""

    begin_s: float
    next_sample: int = 0
    is_whole: bool = True


class SoakListener:
    """Hears everything, and judges it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.is_listening = threading.Event()
        self._heard: dict[tuple[str, int], Heard] = {}
        self.thread = threading.Thread(target=self._run, name="soak-listener", daemon=True)

    def _run(self) -> None:
        while not self._scene.over.is_set():
            try:
                with self._scene.daemon.client("soak-listener") as client, client.listen() as listener:
                    client.status()  # answered after `listen`
                    self.is_listening.set()
                    self._listen(listener)
            except Exception as fault:  # the edge of the thread: it goes on, and the fault is in the verdict
                self._scene.records.fault("client", f"the listener: {type(fault).__name__}: {fault}")
                self._scene.over.wait(POLL_S)

    def _listen(self, listener: Listener) -> None:
        while not self._scene.over.is_set():
            try:
                for event in listener.events(POLL_S):
                    self._take(event)
                    if self._scene.over.is_set():
                        return
            except errors.WaitTimeout:
                continue

    def _take(self, event: wire.Audio | wire.Played | wire.Flushed) -> None:
        key = event.stream, event.generation
        try:
            expected = self._scene.bank.entry(*key).samples
        except LookupError:
            return  # a stream of others
        if isinstance(event, wire.Audio):
            self._take_audio(key, event, expected)
        elif heard := self._heard.pop(key, None):
            self._end(key, heard, event)

    def _take_audio(self, key: tuple[str, int], audio: wire.Audio, expected: utterances.Array) -> None:
        heard = self._heard.setdefault(key, Heard(time.monotonic()))
        if wrong := utterances.differs(audio.payload, expected, audio.first_sample):
            self._scene.records.fault("listening", f"{key[0]}/{key[1]}: {wrong}")
        if audio.first_sample > heard.next_sample:
            heard.is_whole = False
        heard.next_sample = max(heard.next_sample, audio.first_sample + audio.samples)
        self._scene.records.count("samples listened to", audio.samples)
        while len(self._heard) > KEPT:  # the endings of lost utterances do not come
            self._heard.pop(next(iter(self._heard)))

    def _end(self, key: tuple[str, int], heard: Heard, event: wire.Played | wire.Flushed) -> None:
        if self._scene.windows.touches(heard.begin_s, time.monotonic()):
            return
        records, what = self._scene.records, f"{key[0]}/{key[1]}"
        if not heard.is_whole:
            records.fault("listening", f"{what}: some of it was not heard")
        elif isinstance(event, wire.Played) and event.total_samples != heard.next_sample:
            records.fault("listening", f"{what}: heard {heard.next_sample} samples of {event.total_samples}")
        elif isinstance(event, wire.Flushed) and (wrong := end_wrong(key[0], heard.next_sample, event)):
            records.fault("listening", f"{what}: {wrong}")
        records.count("utterances listened to")


def end_wrong(stream: str, heard_samples: int, flushed: wire.Flushed) -> str:
    """A flush: without a device, what was made is what was played, to the sample; a device is behind."""
    behind = heard_samples - 1 - flushed.last_sample_played
    if behind == 0 or (behind > 0 and "device" in PLANS[speaker_of(stream)].sinks):
        return ""
    return f"heard {heard_samples} samples, the last is {flushed.last_sample_played}"
