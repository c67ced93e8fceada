"""The names of the engines that Ray runs, of their keys, and of their groups.

    glow/ray-2-1f0c9a            at the gateway, and of the actor: the voice, a number, and a digest of its settings
    ray-2-1f0c9a                 what the engine calls itself
    ray-2-1f0c9a.glow            its key
    glow/ray-group-2x2-1f0c9a    the placement group of number 2 and the one after it

Rules: text only. The number is the smallest that is free; the digest tells engines with other settings apart, even after a
restart of all else.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from glowd.daemon.config_voices import VoiceSettings, rendered

ENGINE = re.compile(r"(?P<voice>[A-Za-z0-9._-]+)/ray-(?P<number>\d{1,4})-(?P<digest>[0-9a-f]{6})(-\d+)?")
GROUP = re.compile(r"(?P<voice>[A-Za-z0-9._-]+)/ray-group-(?P<first>\d{1,4})x(?P<size>\d{1,2})-(?P<digest>[0-9a-f]{6})")
PLACED = ("cluster_cpus", "cluster_gpus", "cluster_labels", "cluster_per_host")
LONGEST_KEY = 64


@dataclass(frozen=True, slots=True, order=True)
class EngineName:
    """The name of an engine, in its parts."""

    voice: str
    number: int
    digest: str

    @classmethod
    def parse(cls, text: str) -> "EngineName | None":
        """The name of an actor, or at the gateway, which may add a number; None for one that is not ours."""
        match = ENGINE.fullmatch(text)
        return None if match is None else cls(match["voice"], int(match["number"]), match["digest"])

    @property
    def own(self) -> str:
        """What the engine calls itself."""
        return f"ray-{self.number}-{self.digest}"

    @property
    def key(self) -> str:
        """The name of its key, for which the beginning of a long voice will do."""
        return f"{self.own}.{self.voice}"[:LONGEST_KEY]

    def group(self, size: int) -> str:
        """The group in which it is, where groups have `size` engines."""
        return f"{self.voice}/ray-group-{self.number // size * size}x{size}-{self.digest}"

    def __str__(self) -> str:
        return f"{self.voice}/{self.own}"


def members(group: str) -> set[EngineName]:
    """The engines that a group is for; none if the name is not ours."""
    match = GROUP.fullmatch(group)
    if match is None:
        return set()
    first = int(match["first"])
    return {EngineName(match["voice"], first + n, match["digest"]) for n in range(int(match["size"]))}


def digest_of(settings: VoiceSettings) -> str:
    """Six digits that are others for other settings of the engine, or of its place."""
    placed = {key: getattr(settings, key) for key in PLACED}
    return hashlib.sha256(json.dumps(rendered(settings) | placed, sort_keys=True).encode()).hexdigest()[:6]


def next_name(voice: str, digest: str, taken: Collection[EngineName]) -> EngineName:
    """The name of one more engine of a voice."""
    numbers = {name.number for name in taken if name.voice == voice}
    return EngineName(voice, next(n for n in range(len(numbers) + 1) if n not in numbers), digest)
