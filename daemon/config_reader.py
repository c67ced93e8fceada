"""Reading config.toml, strictly, into a Config (config.py has the settings).

Rules: knows no setting by name, except which are paths and which kind of voice a table is. A key that is not known, a value
of the wrong type or out of range is a ConfigError that names the key, the value and what is allowed.

A relative path is relative to the directory of the file it is written in. Without a file, or given by --set, it is
relative to the working directory. Inside a Config every path is absolute.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from glowd.daemon.config import (
    ClusterSettings,
    Config,
    ConfigError,
    FileSettings,
    LogSettings,
    ServerSettings,
    SpeakerSettings,
    SupervisorSettings,
    WebSettings,
    WyomingSettings,
)
from glowd.daemon.config_voices import EMBEDDED, ENGINES, VoiceSettings
from glowd.flow.options import OptionError, Options, as_table, refuse_unknown

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
PATH_KEYS = ("run_dir", "checkpoint", "directory")
DEFAULT_VOICES: dict[str, dict[str, Any]] = {
    "glow": {"engine": "waveglow", "default": True},
    "rtisi": {"engine": "rtisi-la"},
    "griffin-lim": {"engine": "griffinlim"},
}

TABLES = [table.name for table in fields(Config) if table.name != "revisions"]

T = TypeVar("T", bound=Options)


def load(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read `path` (None: the defaults), apply `overrides` ("server.max_streams=4"). Raises ConfigError."""
    tables: dict[str, Any] = {} if path is None else _read(path)
    tables.setdefault("voices", {name: dict(table) for name, table in DEFAULT_VOICES.items()})
    for override in overrides:
        _override(tables, override)
    try:
        return _config(tables, base=Path.cwd() if path is None else path.resolve().parent)
    except OptionError as error:
        raise ConfigError(str(error)) from error


def as_text(config: Config) -> str:
    """A configuration for the daemon's own processes: they must not read a file that may have changed meanwhile."""
    tables: dict[str, Any] = {name: getattr(config, name).to_dict() for name in TABLES if name != "voices"}
    tables["voices"] = {name: voice.to_dict() for name, voice in config.voices.items()}
    return json.dumps({"tables": tables, "revisions": config.revisions})


def from_text(text: str) -> Config:
    """The configuration that `as_text` wrote."""
    content = json.loads(text)
    return replace(_config(content["tables"], base=Path("/")), revisions=content["revisions"])


def _config(tables: dict[str, Any], base: Path) -> Config:
    """Every table, checked; relative paths are relative to `base`. Raises OptionError, ConfigError."""
    refuse_unknown(tables, TABLES)
    config = Config(
        server=_table(ServerSettings, tables.get("server", {}), "server", base),
        voices=_voices(tables["voices"], base),
        speaker=_table(SpeakerSettings, tables.get("speaker", {}), "speaker", base),
        web=_table(WebSettings, tables.get("web", {}), "web", base),
        wyoming=_table(WyomingSettings, tables.get("wyoming", {}), "wyoming", base),
        cluster=_table(ClusterSettings, tables.get("cluster", {}), "cluster", base),
        files=_table(FileSettings, tables.get("files", {}), "files", base),
        supervisor=_table(SupervisorSettings, tables.get("supervisor", {}), "supervisor", base),
        log=_table(LogSettings, tables.get("log", {}), "log", base),
    )
    config.check()
    return config


def _table(cls: type[T], table: Any, where: str, base: Path) -> T:
    settings = cls.from_dict(table, f"{where}.")
    paths = {key: _absolute(getattr(settings, key), base) for key in PATH_KEYS if hasattr(settings, key)}
    return replace(settings, **paths)  # type: ignore[type-var]


def _absolute(value: Any, base: Path) -> Any:
    """A path that is relative, made relative to `base`; anything else unchanged."""
    if isinstance(value, str) and value not in ("", EMBEDDED):
        return str(base / Path(value).expanduser())
    return value


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
        value = text.strip()  # a bare word is text, so that the shell needs no quotes
    if "=" not in override or not all(steps) or (len(steps) == 1 and not isinstance(value, dict)):
        raise ConfigError(f"--set must be TABLE.KEY=VALUE, such as server.max_streams=4; got {override!r}")
    if steps[-1] in PATH_KEYS:
        value = _absolute(value, Path.cwd())
    for step in steps[:-1]:
        tables = tables.setdefault(step, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"--set {override}: {step} is a setting, not a table; write TABLE.KEY=VALUE")
    tables[steps[-1]] = value


def _voices(tables: Any, base: Path) -> dict[str, VoiceSettings]:
    voices: dict[str, VoiceSettings] = {}
    for name, table in as_table(tables, "voices.").items():
        where = f"voices.{name}"
        if not NAME.match(name):
            raise ConfigError(f"the name of a voice must be 1 to 64 characters of A-Z a-z 0-9 . _ -; got {name!r}")
        engine = as_table(table, f"{where}.").get("engine")
        if not isinstance(engine, str) or engine not in ENGINES:
            raise ConfigError(f"{where}.engine must be one of {', '.join(ENGINES)}; got {engine!r}")
        voices[name] = _table(ENGINES[engine], table, where, base)
    if not voices:
        raise ConfigError("no voice is configured; write at least one [voices.NAME] table")
    defaults = [name for name, voice in voices.items() if voice.default]
    if len(defaults) > 1:
        raise ConfigError(f"only one voice can be the default; {' and '.join(defaults)} have default = true")
    return voices
