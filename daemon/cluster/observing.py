"""What Ray and the gateway say of the engines that Ray runs of a voice: for policy.py.

Rules: pure. Whether an engine works is what the gateway says, not what its actor is: one whose actor is there and that has not
joined is loading, whether it starts, waits for room in the cluster, or was lost and comes back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from glowd.daemon.cluster.naming import EngineName
from glowd.daemon.cluster.policy import EngineLoad
from glowd.daemon.runtime.status import LOADING, READY
from glowd.daemon.wire.telemetry import EngineSnapshot, VoiceSnapshot

OPEN, CORDONED = "open", "cordoned"


@dataclass(frozen=True, slots=True)
class Actors:
    """The actors that there are, and of them those whose engines have ended in order, and those on nodes that Ray drains."""

    names: frozenset[EngineName] = frozenset()
    left: frozenset[EngineName] = frozenset()
    on_draining_nodes: frozenset[EngineName] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str], left: Iterable[str] = (), on_draining_nodes: Iterable[str] = ()) -> "Actors":
        """From names as Ray has them; others than ours are left out."""
        return cls(*(frozenset(filter(None, map(EngineName.parse, each))) for each in (names, left, on_draining_nodes)))

    def of_voice(self, voice: str) -> "Actors":
        """Those of one voice."""
        return replace(self, names=frozenset(name for name in self.names if name.voice == voice))


@dataclass(frozen=True, slots=True)
class Seen:
    """An engine for which there is an actor. `joined`: the gateway knows it; `ready`: it serves there.

    `placement`: whether it gets streams there (EngineSnapshot).
    """

    name: EngineName
    joined: bool = False
    ready: bool = False
    streams: int = 0
    capacity: int = 0
    left: bool = False
    """It has ended in order."""
    node_drains: bool = False
    """Its node takes nothing new and will go."""
    placement: str = OPEN

    @property
    def load(self) -> EngineLoad:
        """As the policy sees it."""
        state = READY if self.ready else LOADING
        return EngineLoad(name=str(self.name), state=state, streams=self.streams, capacity=self.capacity)


def seen_engines(actors: Actors, voice: VoiceSnapshot) -> list[Seen]:
    """The engines of these actors, the one with the smallest number first."""
    joined: dict[EngineName, EngineSnapshot] = {}
    for text, engine in voice.engines.items():
        name = EngineName.parse(text)
        if name is not None and (name not in joined or engine.ready):
            joined[name] = engine
    return [_seen(actors, name, joined.get(name)) for name in sorted(actors.names)]


def _seen(actors: Actors, name: EngineName, engine: EngineSnapshot | None) -> Seen:
    left, drains = name in actors.left, name in actors.on_draining_nodes
    if engine is None or left:
        return Seen(name, left=left, node_drains=drains)
    return Seen(
        name,
        True,
        engine.ready,
        engine.open or 0,
        engine.max_streams or 0,
        node_drains=drains,
        placement=engine.placement,
    )
