"""Where Ray is to put an engine: from the settings of its voice to what Ray is told.

Rules: pure; Ray's names, without Ray. Engines that are to be on one host are a placement group, of the strategy STRICT_PACK:
engine number i of a voice with groups of n is bundle i % n of its group.
"""

from dataclasses import dataclass, field
from typing import Any

from glowd.daemon.cluster.naming import EngineName
from glowd.daemon.config_voices import VoiceSettings


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group, and the bundle of it that an engine takes."""

    name: str
    bundle: int
    bundles: tuple[dict[str, float], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What an engine takes of a node, and which nodes will do."""

    cpus: float
    gpus: float
    labels: dict[str, str] = field(default_factory=dict)
    group: Group | None = None

    def options(self) -> dict[str, Any]:
        """The options of a Ray actor, but for its name and its group. The nodes of a group are chosen by the group."""
        found: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return found if self.group or not self.labels else found | {"label_selector": self.labels}


def place_of(name: EngineName, settings: VoiceSettings) -> Place:
    """The place of an engine of a voice with these settings."""
    labels = dict(label.split("=", 1) for label in settings.cluster_labels)
    cpus, gpus, size = settings.cluster_cpus, settings.cluster_gpus, settings.cluster_per_host
    if size == 1:
        return Place(cpus, gpus, labels)
    bundle = {resource: amount for resource, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    return Place(cpus, gpus, labels, Group(name.group(size), name.number % size, (bundle,) * size))
