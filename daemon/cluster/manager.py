"""Keeps as many engines on the Ray cluster as the streams need: what keeper.py orders is done here.

    manager = Manager(config, gateway, fleet)
    each few seconds:  manager.step(time.monotonic())

Rules: one thread; Ray is behind `Engines` and the daemon behind `Gateway`; time is passed in. Nothing here touches a stream: a
manager that is gone, or a cluster without a head, stops no audio.
"""

import json
import logging
from collections.abc import Mapping
from typing import Protocol

from glowd.daemon.cluster.demand import Committed
from glowd.daemon.cluster.keeper import Orders, VoiceKeeper
from glowd.daemon.cluster.naming import EngineName
from glowd.daemon.cluster.observing import Actors
from glowd.daemon.cluster.placement import Place, place_of
from glowd.daemon.config import Config
from glowd.daemon.config_reader import as_text
from glowd.daemon.config_voices import VoiceSettings
from glowd.daemon.runtime.role_process import SETTINGS
from glowd.daemon.wire.telemetry import Snapshot

JOIN = "GLOWD_PLACED_ENGINE"
"""The environment variable in which an engine is told what it is and where it joins: {"voice", "name", "address"}."""

log = logging.getLogger("glowd.cluster")


class Gateway(Protocol):
    """What is asked of the daemon, as by any client of its user."""

    def snapshot(self) -> Snapshot:
        """The daemon's state."""

    def new_address(self, key: str) -> str:
        """Where an engine joins, with a new key of this name; an old one counts no more."""

    def revoke(self, key: str) -> None:
        """The key counts no more."""


class Engines(Protocol):
    """What is asked of Ray."""

    def actors(self) -> Actors:
        """The actors that there are."""

    def start(self, name: str, place: Place, environment: Mapping[str, str]) -> None:
        """Have an actor placed and started, if it is not there."""

    def leave(self, name: str) -> None:
        """Ask an engine to leave in order: it ends when its streams are elsewhere. May be asked again."""

    def stop(self, name: str) -> None:
        """End an actor, and its engine if it still runs."""

    def drop_empty_groups(self) -> None:
        """Give back the placement groups that have no actor."""


class Manager:
    """Owner: the thread that calls `step`."""

    def __init__(self, config: Config, gateway: Gateway, engines: Engines) -> None:
        self._config, self._gateway, self._engines = config, gateway, engines
        self._keepers: dict[str, VoiceKeeper] = {}

    def use(self, config: Config) -> None:
        """Use other settings of voices from now on."""
        self._config = config

    def step(self, now_s: float) -> None:
        """Look at all voices, and start engines, let them leave, and end them."""
        snapshot, actors = self._gateway.snapshot(), self._engines.actors()
        for voice in sorted({*self._config.voices, *(name.voice for name in actors.names)}):
            own, settings = actors.of_voice(voice), self._settings(voice)
            if settings or own.names:
                self._carry_out(self._keeper(voice).look(settings, own, snapshot, now_s))

    def stop(self) -> None:
        """The daemon stops: end every engine."""
        self._carry_out(Orders(end=sorted(self._engines.actors().names)))

    def _settings(self, voice: str) -> VoiceSettings | None:
        """The settings of a voice of which Ray is to run engines."""
        settings = self._config.voices.get(voice)
        return settings if settings and settings.cluster_max else None

    def _keeper(self, voice: str) -> VoiceKeeper:
        cluster = self._config.cluster
        return self._keepers.setdefault(voice, VoiceKeeper(voice, Committed(cluster.target), cluster.hold_s))

    def _carry_out(self, orders: Orders) -> None:
        for name in orders.start:
            self._start(name)
        for name in orders.leave:
            self._engines.leave(str(name))
        for name in orders.end:
            log.info("ending engine %s", name)
            self._engines.stop(str(name))
            self._gateway.revoke(name.key)
        if orders.end:
            self._engines.drop_empty_groups()

    def _start(self, name: EngineName) -> None:
        asked = {"voice": name.voice, "name": name.own, "address": self._gateway.new_address(name.key)}
        environment = {SETTINGS: as_text(self._config), JOIN: json.dumps(asked)}
        log.info("starting engine %s", name)
        self._engines.start(str(name), place_of(name, self._config.voices[name.voice]), environment)
