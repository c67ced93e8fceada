"""Whether the voices can start, tried as start-up does it: the same command, the same code, the same user.

Rules: asyncio; starts engines and waits until each is ready or has given up. An engine of a trial ends when it is ready and
needs no gateway. What the results mean is said in doctor.py.
"""

import asyncio
import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowd.daemon.config import SupervisorSettings
from glowd.daemon.runtime.role_process import RoleProcess, RoleSpec
from glowd.daemon.runtime.rundir import prepare_run_dir

QUIET = ("--trial",)


@dataclass(frozen=True, slots=True)
class Trial:
    """How the start of an engine ended: `info` is what it reported, `reason` why it could not start ("": it could)."""

    seconds: float
    info: Mapping[str, Any]
    reason: str = ""


def try_engines(engines: Sequence[RoleSpec], settings: SupervisorSettings) -> dict[str, Trial]:
    """Start the engines together, as start-up does; returns how each fared, by its name."""

    async def run() -> list[Trial]:
        return await asyncio.gather(*(_try(engine, settings) for engine in engines))

    return {engine.name: trial for engine, trial in zip(engines, asyncio.run(run()), strict=True)}


async def _try(engine: RoleSpec, settings: SupervisorSettings) -> Trial:
    began_s, found = time.monotonic(), dict[str, Any]()
    quiet = dataclasses.replace(engine, command=(*engine.command, *QUIET))
    try:
        process = await RoleProcess.start(quiet, settings, found.update)
    except OSError as error:
        return Trial(0.0, {}, f"{engine.command[0]} cannot be run: {error.strerror}")
    reason = await process.run_to_end()
    return Trial(time.monotonic() - began_s, found, "" if process.is_ready else reason)


@contextlib.contextmanager
def borrowed(directory: Path) -> Iterator[None]:
    """A run directory as start-up makes it; removed afterwards if it was not there. Raises ConfigError."""
    was_there = directory.exists()
    prepare_run_dir(directory)
    try:
        yield
    finally:
        if not was_there:
            shutil.rmtree(directory, ignore_errors=True)
