"""The default addresses of the daemon: from environment variables, else in the run directory.

Rules: reads the environment; creates and opens nothing.
"""

import os
from pathlib import Path

__all__ = ["default_endpoint", "default_run_dir", "default_telemetry"]


def default_run_dir() -> Path:
    """The directory of the daemon's sockets: $GLOWD_RUN_DIR, $XDG_RUNTIME_DIR/glowd or /tmp/glowd-<uid>."""
    if chosen := os.environ.get("GLOWD_RUN_DIR"):
        return Path(chosen).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "glowd") if runtime else Path(f"/tmp/glowd-{os.getuid()}")


def default_endpoint() -> str:
    """The address for clients: $GLOWD_ENDPOINT, else the socket in the run directory."""
    return os.environ.get("GLOWD_ENDPOINT") or f"ipc://{default_run_dir()}/glowd.ipc"


def default_telemetry() -> str:
    """The address of the telemetry: $GLOWD_TELEMETRY, else the socket in the run directory."""
    return os.environ.get("GLOWD_TELEMETRY") or f"ipc://{default_run_dir()}/top.ipc"
