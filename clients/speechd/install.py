"""Where speech-dispatcher looks for a user's modules, and what must be there.

Rules: files only; nothing of the system is touched.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

NAME = "glowd"
NEXT_STEPS = """To use it, start glowd, end speech-dispatcher (its clients start it anew), and try: spd-say -o glowd "Hello."
To make it the voice of Orca, choose glowd as the speech synthesizer in Orca's preferences, or write DefaultModule glowd
into ~/.config/speech-dispatcher/speechd.conf (spd-conf makes that file)."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The two files of a module."""

    program: Path
    config: Path


def places(environment: "os._Environ[str] | dict[str, str]") -> Installed:
    """The files for a user with this environment. speech-dispatcher 0.11 or newer looks there."""
    home = Path(environment.get("HOME", "~")).expanduser()
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local/share")
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return Installed(
        data.parent / "libexec/speech-dispatcher-modules" / f"sd_{NAME}",
        config / "speech-dispatcher/modules" / f"{NAME}.conf",
    )


def program_text() -> str:
    """A shell script that runs the module with this Python."""
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m glowd.clients.speechd "$@"\n'


def config_text(settings: dict[str, str]) -> str:
    """The module's file, with the settings that are given."""
    lines = [f"{name} = {quoted(value)}" for name, value in settings.items() if value]
    return "\n".join(["# Settings of glowd's module for speech-dispatcher; see daemon/README.md.", *lines, ""])


def quoted(value: str) -> str:
    """A text as TOML writes it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def install(found: Installed, settings: dict[str, str]) -> None:
    """Write both files; the folders are made. The settings are private: an address may have a secret. Raises OSError."""
    files = ((found.program, program_text(), 0o755), (found.config, config_text(settings), 0o600))
    for path, text, mode in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text, "utf-8")
