"""What should happen to the engines that Ray runs of one voice.

    orders = keeper.look(settings, actors, snapshot, now_s)

Rules: pure but for what is kept from one look to the next; no Ray, no socket; time is passed in. policy.py decides how many
engines there should be. An engine never ends with streams in it: it is asked to leave, the gateway moves its streams when their
utterances end, and then its actor is ended. An engine that leaves does not count any more, nor does one on a node that Ray
drains, or one with settings of before a reload: others are started for these first.

Nor does an engine that somebody has cordoned or drained: it gets no streams. It is not asked to leave, for that could not be
undone: one that is drained is dismissed by the gateway, and one that is uncordoned counts again. By this, too, a new keeper knows
the engines that the last one has asked to leave.
"""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from glowd.daemon.cluster.demand import Rule
from glowd.daemon.cluster.naming import EngineName, digest_of, next_name
from glowd.daemon.cluster.observing import CORDONED, OPEN, Actors, Seen, seen_engines
from glowd.daemon.cluster.policy import NOTHING_SEEN, Decision, Limits, Observation, decide
from glowd.daemon.config_voices import VoiceSettings
from glowd.daemon.wire.telemetry import Snapshot, VoiceSnapshot

PATIENCE_S = 120.0
"""An engine that has not joined for so long is told of, once."""

log = logging.getLogger("glowd.cluster")


@dataclass(frozen=True, slots=True)
class Orders:
    """Engines to start, to ask to leave, and those whose actors are to end."""

    start: Sequence[EngineName] = ()
    leave: Sequence[EngineName] = ()
    end: Sequence[EngineName] = ()


class VoiceKeeper:
    """What is kept of a voice. Owner: the manager."""

    def __init__(self, voice: str, rule: Rule, hold_s: float) -> None:
        self._voice, self._rule, self._hold_s = voice, rule, hold_s
        self._memory, self._start_s, self._refused = NOTHING_SEEN, 0.0, -1
        self._leaving: set[EngineName] = set()
        self._awaited_s: dict[EngineName, float] = {}
        """Since when engines are awaited that have not joined; infinite: that was told."""

    def look(self, settings: VoiceSettings | None, actors: Actors, snapshot: Snapshot, now_s: float) -> Orders:
        """What is to be done about these actors. `settings` None: there are to be none."""
        seen = seen_engines(actors, snapshot.voices.get(self._voice, VoiceSnapshot()))
        self._leaving &= actors.names
        self._await(seen, now_s)
        there = [one for one in seen if not one.left and one.name not in self._leaving]
        digest = digest_of(settings) if settings else ""
        fitting = [one for one in there if one.name.digest == digest and not one.node_drains]
        current = [one for one in fitting if one.placement == OPEN]
        others = [one for one in there if one not in fitting]
        decision = Decision(wanted=0)
        observation = Observation(
            now_s=now_s, engines=[one.load for one in current], refused=self._newly_refused(snapshot),
            elsewhere=sum(one.streams for one in seen if one not in current), start_s=self._start_s,
        )  # fmt: skip
        if settings:
            # As many as those that are to go; and one for new streams, which a cordoned one does not take.
            least = max(len(others), any(one.placement == CORDONED for one in fitting))
            decision = self._decide(settings, least, observation)
        self._let_go(current, others, decision, is_wanted=settings is not None)
        return self._orders(seen, self._new_names(decision.start, digest, actors.names, now_s))

    def _decide(self, settings: VoiceSettings, least: int, observation: Observation) -> Decision:
        ceiling = settings.cluster_max
        floor = min(ceiling, max(settings.cluster_min, least))
        limits = Limits(floor=floor, ceiling=ceiling, hold_s=self._hold_s, capacity=settings.max_streams or 1)
        decision, self._memory = decide(self._rule, limits, observation, self._memory)
        return decision

    def _let_go(self, current: Sequence[Seen], others: Sequence[Seen], decision: Decision, is_wanted: bool) -> None:
        """Note who is to leave: those too many, and, once one that stays is ready, those that do not count."""
        for one in current:
            if str(one.name) in decision.drain:
                log.info("engine %s is to leave: fewer are needed", one.name)
                self._leaving.add(one.name)
        if any(one.ready for one in current) or not is_wanted:
            for one in others:
                why = "its node is drained" if one.node_drains else "its settings are not in force any more"
                log.info("engine %s is to leave: %s", one.name, why)
                self._leaving.add(one.name)

    def _orders(self, seen: Sequence[Seen], start: Sequence[EngineName]) -> Orders:
        """Orders are given until they are carried out. An engine that has not joined has no stream, and ends at once."""
        leaving = [one for one in seen if one.name in self._leaving and not one.left]
        return Orders(
            start=start,
            leave=[one.name for one in leaving if one.joined],
            end=[one.name for one in seen if one.left or (one in leaving and not one.joined)],
        )

    def _new_names(self, count: int, digest: str, taken: Collection[EngineName], now_s: float) -> Sequence[EngineName]:
        names = list(taken)
        for _ in range(count):
            names.append(next_name(self._voice, digest, names))
            self._awaited_s[names[-1]] = now_s
        return names[len(taken) :]

    def _newly_refused(self, snapshot: Snapshot) -> int:
        """Streams that were refused for want of capacity since the last look. A new gateway counts from 0."""
        found = snapshot.totals.voices.get(self._voice)
        now, before = (found.refused if found else 0), self._refused
        self._refused = now
        return 0 if before < 0 else now - before if now >= before else now

    def _await(self, seen: Sequence[Seen], now_s: float) -> None:
        """Note how long an engine takes until it has joined, and tell of one that does not."""
        awaited_s = dict[EngineName, float]()
        for one in seen:
            since_s = self._awaited_s.get(one.name)
            if one.ready and since_s is not None and since_s < math.inf:
                self._start_s = now_s - since_s
            if not (one.ready or one.left):
                awaited_s[one.name] = now_s if since_s is None else self._told(one.name, since_s, now_s)
        self._awaited_s = awaited_s

    def _told(self, name: EngineName, since_s: float, now_s: float) -> float:
        """Tell of an engine that has not joined, if it is time; returns since when it is awaited."""
        if now_s - since_s <= PATIENCE_S:
            return since_s
        log.warning(
            "engine %s has not joined for %.0f s: no node has room for it, or it cannot reach server.engines, or it fails; see "
            "`ray status`, and its log on its node", name, now_s - since_s,
        )  # fmt: skip
        return math.inf
