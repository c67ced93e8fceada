"""`glowd engine`: run one engine that joins the daemon of another machine, in this process.

Rules: arguments, settings and signals; joined.py does the work. SIGTERM and SIGINT let the engine leave: its streams move on when
their utterances end. A second one ends it at once. Exit status as of glowd; 1, too, if the
gateway turned the engine away, or if its network fails.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from glowd.daemon.config import Config, ConfigError, is_tcp
from glowd.daemon.config_voices import WaveGlowSettings
from glowd.daemon.engine.joined import JoinedEngine
from glowd.daemon.engine.renderer import NetworkFailsError
from glowd.daemon.runtime.caches import place_caches
from glowd.daemon.runtime.logs import setup_logging
from glowd.daemon.runtime.role import NICENESS, CannotStart
from glowd.daemon.runtime.system import allow_open_files, set_niceness
from glowd.daemon.wire.address import Address, address_of

JOIN = "GLOWD_JOIN"
"""The variable with the address, which is kept as a password is: every user of the machine can read arguments."""
MAX_ADDRESS = 4096
OPEN_FILES = 16_384
"""Strangers may connect to an engine that listens, and each has one until its handshake has taken too long."""

log = logging.getLogger("glowd.engine")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Join, serve and leave; returns the exit status. Raises ConfigError."""
    address = join_address(arguments.join, os.environ.pop(JOIN, ""))
    if arguments.listen and not is_tcp(arguments.listen):
        raise ConfigError(f"--listen must be tcp://HOST:PORT with a port up to 65535; got {arguments.listen!r}")
    config = with_voice(config, arguments.voice, arguments.checkpoint)
    setup_logging("engine", config.log.level)
    set_niceness(NICENESS["engine"])
    allow_open_files(OPEN_FILES)
    place_caches(Path(tempfile.gettempdir(), "glowd-engine"))
    engine = JoinedEngine(config, arguments.voice, address, arguments.name, arguments.device, arguments.listen)
    catch_signals(engine, arguments.leave_s)
    try:
        ready = engine.load()
        streams = "any number of" if ready.info.capacity is None else ready.info.capacity.streams
        print(f"glowd engine ready voice={ready.voice} device={ready.device} streams={streams}", flush=True)
        engine.run()
    except NetworkFailsError as error:
        print(f"glowd: {error}; start the engine again", file=sys.stderr)
        return 1
    except CannotStart as error:
        print(f"glowd: {error}", file=sys.stderr)
        return 2 if error.settings else 1
    return 0


def join_address(argument: str, variable: str) -> Address:
    """The address that --join gives, or the file that it names (@FILE), or else the variable. Raises ConfigError.

    No text of an address is in an error: it may be a secret.
    """
    if argument.startswith("@"):
        source, text = argument[1:], read_secret(Path(argument[1:]))
    else:
        source, text = ("--join", argument) if argument else (JOIN, variable)
    try:
        address = address_of(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    if not address.server_key:
        raise ConfigError(
            f"{source} must be the address that `glowctl key new NAME --role engine` printed on the daemon's machine, "
            "glowd://NAME:SECRET@HOST:PORT#SERVERKEY; it is " + ("not such an address" if text else "empty")
        )
    return address


def read_secret(path: Path) -> str:
    """What is in a file that nobody else can read. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o077:
                raise ConfigError(f"--join: {path} must belong to this user, and to nobody else: chmod 600 {path}")
            return file.read(MAX_ADDRESS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--join: cannot read {path}: {error}") from None


def with_voice(config: Config, voice: str, checkpoint: str) -> Config:
    """The configuration with a voice that runs a checkpoint, if one is given. Raises ConfigError if there is none."""
    settings = config.voices.get(voice)
    if checkpoint:
        base = settings if isinstance(settings, WaveGlowSettings) else WaveGlowSettings()
        settings = replace(base, checkpoint=checkpoint)
    if settings is None:
        known = ", ".join(config.voices)
        raise ConfigError(f"there is no voice {voice!r}: add [voices.{voice}] or --checkpoint; known: {known}")
    return replace(config, voices={**config.voices, voice: settings})


def catch_signals(engine: JoinedEngine, leave_s: float) -> None:
    """SIGINT and SIGTERM let the engine leave; after `leave_s`, or the next signal, it ends at once."""
    asked = threading.Event()

    def on_signal(*_: object) -> None:
        if asked.is_set():
            engine.stop()
            return
        asked.set()
        engine.leave()
        timer = threading.Timer(leave_s, engine.stop)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
