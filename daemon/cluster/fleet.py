"""The engines that Ray keeps for this daemon: everything that is asked of Ray.

Rules: Ray places actors, restarts them and says where they are. That an actor is there does not mean that its engine works: the
gateway knows that. Calls may wait, and when the head is lost for long, Ray ends this process: serving.py makes them in a thread.

An actor has the name that its engine has at the gateway (naming.py).
"""

import contextlib
import logging
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from glowd.daemon.cluster.engine_actor import EngineActor
from glowd.daemon.cluster.naming import EngineName, members
from glowd.daemon.cluster.observing import Actors
from glowd.daemon.cluster.placement import Group, Place
from glowd.daemon.wire.telemetry import NodeSnapshot

NODE_DIGITS = 8
"""So many of a node's id tell it apart."""
CONNECT_S = 5.0
ASK_S = 0.5
"""How long actors may take together to say where they are; those that take longer are asked for it next time."""

log = logging.getLogger("glowd.cluster")


class ClusterError(Exception):
    """Ray cannot do what was asked. The text is for people."""


@dataclass
class Actor:
    """An engine's actor, as Ray has said. `node`: the id of its node; "" until it is placed. `left`: its engine has ended."""

    handle: Any
    node: str = ""
    left: bool = False
    asked: Any = None
    """The answer that is awaited."""


@dataclass
class Fleet:
    """The actors in one namespace. Owner: one thread."""

    address: str
    namespace: str
    _actors: dict[str, Actor] = field(default_factory=dict)
    _draining: set[str] = field(default_factory=set)
    """The ids of nodes that take nothing new and will go."""

    def connect(self) -> None:
        """Become a member of the cluster. Raises ClusterError."""
        require_head(self.address)
        try:
            ray.init(address=self.address, namespace=self.namespace, log_to_driver=False, logging_level=logging.ERROR)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"this machine is no member of the Ray cluster {self.address!r}: {error}") from error

    def close(self) -> None:
        """Leave the cluster. The engines stay."""
        ray.shutdown()

    # ---------------------------------------------------------------- actors

    def refresh(self) -> None:
        """Find the actors that there are, also those of an earlier process."""
        with _told("list the engines"):
            names = set(ray.util.list_named_actors())
            self._draining = set(
                ray._private.state.state.get_draining_nodes()
            )  # the way of Ray's own libraries: no other
            for name in names - self._actors.keys():
                with contextlib.suppress(ValueError):  # it ended meanwhile
                    self._actors[name] = Actor(ray.get_actor(name))
        for name in self._actors.keys() - names:
            del self._actors[name]
        self._locate()

    def _locate(self) -> None:
        """Ask each actor where it is. One that is not placed answers when it is."""
        for actor in self._actors.values():
            actor.asked = actor.asked or actor.handle.about.remote()
        asked = {actor.asked: actor for actor in self._actors.values()}
        if not asked:
            return
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ASK_S)
        for answer in answered:
            found = asked[answer]
            found.asked = None
            try:
                self._take(found, ray.get(answer))
            except RayError:  # it is restarted, or cannot be reached; that says nothing about the engine
                found.node = ""

    def _take(self, actor: Actor, about: Mapping[str, Any]) -> None:
        """What an actor says of itself."""
        if about["node"] != actor.node and about["niceness"] > 0:
            log.warning(
                "engines on node %s have the niceness %d, so other programs there make them late; start its Ray with "
                "RAY_worker_niceness=0", about["node"][:NODE_DIGITS], about["niceness"],
            )  # fmt: skip
        actor.node, actor.left = about["node"], about["left"]

    def actors(self) -> Actors:
        """The engines for which there is an actor."""
        left = [name for name, actor in self._actors.items() if actor.left]
        return Actors.of(
            self._actors, left, [name for name, actor in self._actors.items() if actor.node in self._draining]
        )

    def start(self, name: str, place: Place, environment: Mapping[str, str]) -> None:
        """Have an engine placed and started; it may wait until there is room for it. Raises ClusterError."""
        options = place.options() | self._strategy(place)
        with _told(f"start engine {name}"):
            actor = ray.remote(EngineActor).options(
                name=name, lifetime="detached", get_if_exists=True, max_restarts=-1, max_task_retries=0, **options
            )
            self._actors[name] = Actor(actor.remote(dict(environment)))

    def leave(self, name: str) -> None:
        """Ask an engine to leave in order. There is no answer: whether it has left is seen at the next looks."""
        if actor := self._actors.get(name):
            with _told(f"let engine {name} leave"):
                actor.handle.leave.remote()

    def stop(self, name: str) -> None:
        """End an engine's actor, and with it the engine."""
        with _told(f"stop engine {name}"), contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name), no_restart=True)  # not __ray_terminate__, which leaves processes behind
        self._actors.pop(name, None)

    # ---------------------------------------------------------------- groups

    def _strategy(self, place: Place) -> dict[str, Any]:
        if place.group is None:
            return {"scheduling_strategy": "SPREAD"}  # a node that is lost takes few engines along
        group = self._group(place.group, place.labels)
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, place.group.bundle)}

    def _group(self, group: Group, labels: dict[str, str]) -> PlacementGroup:
        with contextlib.suppress(ValueError):
            return get_placement_group(group.name)
        return placement_group(
            [dict(bundle) for bundle in group.bundles], strategy="STRICT_PACK", name=group.name, lifetime="detached",
            bundle_label_selector=[labels] * len(group.bundles) if labels else None,
        )  # fmt: skip

    def drop_empty_groups(self) -> None:
        """Give back the groups none of whose engines is there. Those of another namespace are not found by name."""
        names = {EngineName.parse(name) for name in self._actors}
        with _told("give back placement groups"):
            for group in placement_group_table().values():
                if (engines := members(group["name"])) and not engines & names:
                    with contextlib.suppress(ValueError):
                        remove_placement_group(get_placement_group(group["name"]))

    # ---------------------------------------------------------------- nodes

    def nodes(self) -> dict[str, NodeSnapshot]:
        """The nodes of the cluster, by the first letters of their ids."""
        with _told("list the nodes"):
            found = ray.nodes()
        return {node["NodeID"][:NODE_DIGITS]: self._node(node) for node in found}

    def _node(self, node: Mapping[str, Any]) -> NodeSnapshot:
        resources = node.get("Resources", {})
        here = sorted(name for name, actor in self._actors.items() if actor.node == node["NodeID"])
        return NodeSnapshot(
            state=("draining" if node["NodeID"] in self._draining else "alive") if node["Alive"] else "gone",
            host=str(node["NodeManagerHostname"]),
            cpus=float(resources.get("CPU", 0)),
            gpus=float(resources.get("GPU", 0)),
            engines=here,
        )


def require_head(address: str) -> None:
    """Ray waits for minutes for a head that is not there. Raises ClusterError if nobody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host:  # "auto": Ray looks for it
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """A block of calls to Ray. Raises ClusterError for what they raise."""
    try:
        yield
    except (RayError, ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray could not {what}: {error}") from error
