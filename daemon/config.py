"""Settings of the daemon: config.toml, strictly read into frozen dataclasses.

Rules: a key that is not known, a value of the wrong type or out of range is a ConfigError that names the key, the value
and what is allowed (config_reader.py sees to it). Each dataclass is one table of config.toml; parts of a role are handed the
table they need, never the whole. Every setting is explained in config.toml and only there; a test compares the two.
Hyper-parameters of a network are not settings: they live in its checkpoint.

A relative path is relative to the directory of the file it is written in; without a file, or given by --set, it is
relative to the working directory. Inside a Config every path is absolute.
"""

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from glowd.daemon.config_reader import (
    EMBEDDED,
    PATH_KEYS,
    ConfigError,
    absolute,
    as_table,
    fill,
    refuse_unknown,
    setting,
)

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
LOG_LEVELS = ("debug", "info", "warning", "error")
BACKENDS, PRECISIONS = ("auto", "compiled", "torch", "triton"), ("auto", "float32", "bf16")
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un
MAX_ENGINES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """[server]: the gateway's sockets and limits."""

    endpoint: str = ""
    telemetry: str = ""
    run_dir: str = ""
    allow_remote: bool = False
    max_clients: int = setting(64, 1, 4096)
    max_streams: int = setting(16, 1, 1024)
    max_message_bytes: int = setting(1 << 20, 1 << 14, 1 << 26)
    max_chunk_frames: int = setting(512, 1, 4096)
    credit_ms: int = setting(2000, 100, 60_000)
    max_utterance_s: int = setting(300, 1, 3600)
    idle_timeout_s: float = setting(60.0, 0.1, 86_400)
    role_wait_s: float = setting(15.0, 0.1, 3600)

    def check(self, where: str) -> None:
        """Raises ConfigError where settings contradict one another; `where` is the table's name."""
        for key, value in (("endpoint", self.endpoint), ("telemetry", self.telemetry)):
            _check_endpoint(f"{where}.{key}", value, self.allow_remote)
        if self.endpoint and self.endpoint == self.telemetry:
            raise ConfigError(f"{where}.telemetry must differ from {where}.endpoint; both are {self.endpoint!r}")
        if self.max_chunk_frames * 80 * 4 > self.max_message_bytes:
            raise ConfigError(
                f"{where}.max_chunk_frames = {self.max_chunk_frames} does not fit into {where}.max_message_bytes = "
                f"{self.max_message_bytes}: a frame of 80 bands takes 320 bytes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What every [voices.NAME] table has. Each of `devices` has an engine process of its own."""

    DEVICES: ClassVar[str] = "cpu"
    DEVICE: ClassVar[re.Pattern[str]] = re.compile(r"cpu")

    engine: str = ""
    default: bool = False
    devices: tuple[str, ...] = setting(("cpu",), 1, MAX_ENGINES)
    threads: int = setting(1, 1, 256)
    max_streams: int = setting(0, 0, 1024)
    chunk_frames: int = setting(4, 1, 512)
    max_chunk_frames: int = setting(16, 1, 512)
    max_batch: int = setting(16, 1, 1024)
    max_wait_ms: float = setting(60.0, 0, 1000)

    def check(self, where: str) -> None:
        """Raises ConfigError where settings contradict one another; `where` is the table's name."""
        if self.chunk_frames > self.max_chunk_frames:
            raise ConfigError(
                f"{where}.chunk_frames = {self.chunk_frames} is above max_chunk_frames = {self.max_chunk_frames}"
            )
        for device in self.devices:
            if not self.DEVICE.fullmatch(device):
                raise ConfigError(f"each of {where}.devices must be {self.DEVICES}, got {device!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveGlowVoice(Voice):
    """A [voices.NAME] table with engine = "waveglow"."""

    DEVICES: ClassVar[str] = "auto, cpu, cuda or cuda:N"
    DEVICE: ClassVar[re.Pattern[str]] = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")

    engine: str = "waveglow"
    checkpoint: str = EMBEDDED
    devices: tuple[str, ...] = setting(("auto",), 1, MAX_ENGINES)
    backend: str = setting("auto", among=BACKENDS)
    precision: str = setting("auto", among=PRECISIONS)
    sigma: float = setting(-1.0, -1, 2)
    context_frames: int = setting(24, 0, 512)
    look_ahead_frames: int = setting(8, 0, 512)
    crossfade_samples: int = setting(256, 0, 8192)

    def check(self, where: str) -> None:
        """Raises ConfigError where settings contradict one another; `where` is the table's name."""
        Voice.check(self, where)
        if -1 < self.sigma < 0:
            raise ConfigError(f"{where}.sigma must be -1 (the checkpoint's own) or 0 to 2, got {self.sigma}")
        on_cuda = any(device.startswith("cuda") for device in self.devices)
        if self.backend == "compiled" and (on_cuda or self.precision == "bf16"):
            raise ConfigError(
                f'{where}.backend = "compiled" runs in float32 on a CPU; {where}.devices is {list(self.devices)} and '
                f"{where}.precision is {self.precision!r}"
            )
        if self.backend == "triton" and "cpu" in self.devices:
            raise ConfigError(f'{where}.backend = "triton" runs on CUDA; {where}.devices is {list(self.devices)}')


@dataclass(frozen=True, slots=True, kw_only=True)
class GriffinLimVoice(Voice):
    """A [voices.NAME] table with engine = "griffinlim"."""

    engine: str = "griffinlim"
    iterations: int = setting(60, 1, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RtisiVoice(Voice):
    """A [voices.NAME] table with engine = "rtisi-la"."""

    engine: str = "rtisi-la"
    look_ahead_frames: int = setting(2, 0, 16)
    iterations: int = setting(16, 1, 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """[speaker]: the sound device."""

    enabled: bool = True
    device: str = ""
    rate_hz: int = setting(0, 0, 192_000)
    latency_ms: float = setting(60.0, 1, 2000)
    block_ms: float = setting(10.0, 1, 200)
    prefill_ms: float = setting(100.0, 0, 5000)

    def check(self, where: str) -> None:
        """Raises ConfigError where settings contradict one another; `where` is the table's name."""
        if self.block_ms > self.latency_ms:
            raise ConfigError(f"{where}.block_ms = {self.block_ms} is above {where}.latency_ms = {self.latency_ms}")
        if 0 < self.rate_hz < 8000:
            raise ConfigError(f"{where}.rate_hz must be 0 (the device's own) or 8000 to 192000, got {self.rate_hz}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """[files]: the file sink."""

    directory: str = "recordings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """[supervisor]: starting, watching and stopping the roles."""

    ready_timeout_s: float = setting(120.0, 0.1, 3600)
    watchdog_s: float = setting(10.0, 0.5, 3600)
    grace_s: float = setting(5.0, 0.1, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """[log]: what goes to standard error."""

    level: str = setting("info", among=LOG_LEVELS)


ENGINES: dict[str, type[Voice]] = {"waveglow": WaveGlowVoice, "rtisi-la": RtisiVoice, "griffinlim": GriffinLimVoice}
DEFAULT_VOICES: dict[str, dict[str, Any]] = {
    "glow": {"engine": "waveglow", "default": True},
    "rtisi": {"engine": "rtisi-la"},
    "griffin-lim": {"engine": "griffinlim"},
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine process: its name, the voice it serves, and the device it serves it on: auto, cpu or cuda:N."""

    name: str
    voice: str
    device: str

    @property
    def cuda(self) -> int | None:
        """The number of a CUDA device that is named; None for others."""
        return int(self.device.removeprefix("cuda:")) if self.device.startswith("cuda:") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of config.toml. Only a process's edge holds it; parts are handed their own table."""

    server: Server
    voices: dict[str, Voice]
    speaker: Speaker
    files: Files
    supervisor: Supervisor
    log: Log

    @property
    def default_voice(self) -> str:
        """The voice of a stream that names none."""
        return next((name for name, voice in self.voices.items() if voice.default), next(iter(self.voices)))

    @property
    def engines(self) -> dict[str, EngineSpec]:
        """The engine processes by name: that of the voice, or, where it has several, VOICE/0, VOICE/1, ..."""
        specs = [
            EngineSpec(
                name=voice if len(settings.devices) == 1 else f"{voice}/{number}",
                voice=voice,
                device="cuda:0" if device == "cuda" else device,
            )
            for voice, settings in self.voices.items()
            for number, device in enumerate(settings.devices)
        ]
        return {spec.name: spec for spec in specs}


def load(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read `path` (None: the defaults), apply `overrides` ("server.max_streams=4"). Raises ConfigError."""
    tables: dict[str, Any] = {} if path is None else _read(path)
    tables.setdefault("voices", {name: dict(table) for name, table in DEFAULT_VOICES.items()})
    for override in overrides:
        _override(tables, override)
    base = Path.cwd() if path is None else path.resolve().parent
    refuse_unknown("", tables, [part.name for part in fields(Config)])
    return Config(
        server=fill(Server, tables.get("server", {}), "server", base),
        voices=_voices(tables["voices"], base),
        speaker=fill(Speaker, tables.get("speaker", {}), "speaker", base),
        files=fill(Files, tables.get("files", {}), "files", base),
        supervisor=fill(Supervisor, tables.get("supervisor", {}), "supervisor", base),
        log=fill(Log, tables.get("log", {}), "log", base),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:  # tomllib.TOMLDecodeError, UnicodeDecodeError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _override(tables: dict[str, Any], override: str) -> None:
    key, _, text = override.partition("=")
    steps = key.strip().split(".")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is text, so that no shell has to carry quotes
    if "=" not in override or not all(steps) or (len(steps) == 1 and not isinstance(value, dict)):
        raise ConfigError(f"--set wants TABLE.KEY=VALUE, such as server.max_streams=4; got {override!r}")
    if steps[-1] in PATH_KEYS:
        value = absolute(value, Path.cwd())
    for step in steps[:-1]:
        tables = tables.setdefault(step, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"--set {override}: {step} is a setting, not a table")
    tables[steps[-1]] = value


def _voices(tables: Any, base: Path) -> dict[str, Voice]:
    voices: dict[str, Voice] = {}
    for name, table in as_table("voices", tables).items():
        where = f"voices.{name}"
        if not NAME.match(name):
            raise ConfigError(f"voice name {name!r} must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
        engine = as_table(where, table).get("engine")
        if not isinstance(engine, str) or engine not in ENGINES:
            raise ConfigError(f"{where}.engine must be one of {', '.join(ENGINES)}; got {engine!r}")
        voices[name] = fill(ENGINES[engine], table, where, base)
    if not voices:
        raise ConfigError("no voice is configured; write at least one [voices.NAME] table")
    defaults = [name for name, voice in voices.items() if voice.default]
    if len(defaults) > 1:
        raise ConfigError(f"one voice can be the default; {' and '.join(defaults)} say default = true")
    return voices


def _check_endpoint(where: str, endpoint: str, allow_remote: bool) -> None:
    """Raises ConfigError for an address that ZeroMQ or we would not listen at; "" means the default."""
    if not endpoint:
        return
    match = re.fullmatch(r"ipc://(?P<path>.+)|tcp://(?P<host>.+):(?P<port>\d+)", endpoint)
    if not match or (match["port"] and not 0 < int(match["port"]) < 65536):
        raise ConfigError(f"{where} must be ipc://PATH or tcp://HOST:PORT (or empty: the default), got {endpoint!r}")
    if match["path"] and len(os.fsencode(match["path"])) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(f"{where}: the path of a local socket has at most {MAX_SOCKET_PATH_BYTES} bytes: {endpoint}")
    if match["host"] and match["host"] not in LOOPBACK and not allow_remote:
        raise ConfigError(
            f"{where} = {endpoint} can be reached from other machines, and nothing on the wire is encrypted or "
            "authenticated; listen at 127.0.0.1, or set server.allow_remote = true in a network you trust"
        )
