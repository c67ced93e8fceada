"""What is spoken in a soak, and what must be heard: parts of the bundled sentence, rendered without the daemon.

Rules: what an utterance is follows from the stream's name and the utterance's number alone, so whoever hears it knows what it
must be.
"""

import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from glowd.daemon.config import EngineSpec
from glowd.daemon.config_voices import RtisiSettings, WaveGlowSettings
from glowd.daemon.engine.vocoders import build_vocoder
from glowd.flow.mel import Floats
from glowd.flow.vocoder import render
from tests.harness.mels import speech

VOICES = {"glow": WaveGlowSettings(), "rtisi": RtisiSettings()}
SEEDS = (0, 7)
SHORTEST_FRAMES = 8


@dataclass(frozen=True)
class Entry:
    """Frames [L, 80], and the samples [L * 256] that they must become."""

    mel: Floats
    samples: Floats


def stream_name(voice: str, seed: int, speaker: int, visit: int) -> str:
    """The name of a stream: of the voice and the seed, of who speaks it, of how often he has opened one."""
    return f"{voice}.{seed}.{speaker}.{visit}"


def speaker_of(stream: str) -> int:
    """Who speaks the stream of this name."""
    return int(stream.split(".")[2])


class Bank:
    """The utterances of each voice and seed."""

    def __init__(self, entries: dict[tuple[str, int], list[Entry]]) -> None:
        self._entries = entries

    @classmethod
    def rendered(cls, count: int, voices: Iterable[str] = VOICES, seeds: Iterable[int] = SEEDS) -> "Bank":
        """`count` random parts of the sentence, rendered whole by each voice with each seed."""
        source, lengths = speech(), random.Random(0)
        parts = []
        for _ in range(count):
            frames = lengths.randint(SHORTEST_FRAMES, len(source))
            at = lengths.randint(0, len(source) - frames)
            parts.append(source[at : at + frames])
        entries = {}
        for voice in voices:
            vocoder = build_vocoder(EngineSpec(name=voice, voice=voice, device="cpu"), VOICES[voice], 1)
            for seed in seeds:
                entries[voice, seed] = [Entry(mel, render(vocoder, mel, seed)) for mel in parts]
        return cls(entries)

    def entry(self, stream: str, generation: int) -> Entry:
        """What a stream of this name speaks as its utterance of this number. Raises LookupError for a name of others."""
        voice, seed, *_ = (*stream.split("."), "", "")
        if not seed.isdigit() or (voice, int(seed)) not in self._entries:
            raise LookupError(f"{stream} is no stream of the soak")
        entries = self._entries[voice, int(seed)]
        return entries[zlib.crc32(f"{stream}/{generation}".encode()) % len(entries)]
