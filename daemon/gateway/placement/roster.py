"""Which engines the gateway knows, and which voices new streams may choose; both change when the settings are reloaded.

Rules: no socket, time is passed in. An engine joins before its voice can be chosen, serves while its voice is configured, and is
retired when it is not: then it keeps the streams that it has, and is released when the last of them is closed. A stream never
moves to an engine with other settings, which would make other samples.
"""

from collections.abc import Callable

from glowd.daemon.config import Config, EngineSpec
from glowd.daemon.config_voices import VoiceSettings
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.placement.pool import Machine, Pool
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry


class Roster:
    """Engines by name and pools by voice; others read both. Owner: the gateway's only thread."""

    def __init__(
        self,
        config: Config,
        make: Callable[[EngineSpec], EngineHandle],
        streams: StreamRegistry,
        cores: int,
        host: str = "",
    ) -> None:
        self._make, self._streams, self._machine = make, streams, Machine([], cores, host)
        self.engines: dict[str, EngineHandle] = {}
        self.pools: dict[str, Pool] = {}
        self._wanted: set[str] = set()
        """The engines that join or serve."""
        self._config, self._now_ns = config, 0
        streams.between_utterances.append(self._relocate)
        self.join(config)
        self.serve(config)

    def join(self, config: Config) -> None:
        """Get to know the engines of a configuration."""
        for name, spec in config.engines.items():
            if name not in self.engines:
                self.engines[name] = self._make(spec)
                self._machine.engines.append(self.engines[name])
        self._wanted |= set(config.engines)

    def has_joined(self, config: Config, now_ns: int) -> bool:
        """Whether every engine of a configuration that does not serve yet could."""
        serving = {engine.name for pool in self.pools.values() for engine in pool.engines}
        return all(self.engines[name].is_alive(now_ns) for name in config.engines if name not in serving)

    def serve(self, config: Config) -> None:
        """Let new streams choose the voices of a configuration, and no others."""
        self._config = config
        come = [engine for engine in self.engines.values() if engine.origin and engine.voice in config.voices]
        self._wanted = {*config.engines, *(engine.name for engine in come)}
        pools = {
            voice: Pool(
                voice,
                [self.engines[name] for name, spec in config.engines.items() if spec.voice == voice]
                + [engine for engine in come if engine.voice == voice],
                self._machine,
                self._streams,
                is_default=voice == config.default_voice,
            )
            for voice in config.voices
        }
        self.pools.clear()
        self.pools.update(pools)

    # ------------------------------------------- engines that no configuration names

    def settings(self, voice: str) -> VoiceSettings | None:
        """The settings of a voice; None if there is none of that name."""
        return self._config.voices.get(voice)

    def admit(self, engine: EngineHandle) -> None:
        """An engine of another machine serves a voice of the configuration from now on."""
        engine.use_waits(self._config.server.role_wait_s, 0.0)
        self.engines[engine.name] = engine
        self._machine.engines.append(engine)
        self._wanted.add(engine.name)
        self.pools[engine.voice].add(engine)

    def _relocate(self, stream: Stream) -> None:
        if stream.engine.voice in self.pools:
            self.pools[stream.engine.voice].relocate(stream, self._now_ns)

    def retire_if_idle(self, engine: EngineHandle) -> None:
        """Let an engine go, unless it has streams: they can move to another engine, or wait for this one."""
        if not self._streams.placed_in(engine):
            self._wanted.discard(engine.name)
            if engine.voice in self.pools:
                self.pools[engine.voice].remove(engine)

    def tick(self, now_ns: int) -> list[str]:
        """Look after all engines; returns those that are released."""
        self._now_ns = now_ns
        for pool in self.pools.values():
            with contained(f"voice {pool.voice}: looking after its streams", lambda _: None):
                pool.tick(now_ns)
        return [engine.name for engine in list(self.engines.values()) if self._tick_retired(engine, now_ns)]

    def _tick_retired(self, engine: EngineHandle, now_ns: int) -> bool:
        """Whether an engine is released."""
        if engine.name in self._wanted:
            return False
        if streams := self._streams.placed_in(engine):
            engine.tick([stream.session for stream in streams], now_ns)
            return False
        del self.engines[engine.name]
        self._machine.engines.remove(engine)
        return True
