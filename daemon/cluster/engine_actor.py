"""What runs on a node of the Ray cluster: an actor, and the engine process that lives as long as the actor.

Rules: Ray starts this class, restarts it on another node, and kills it; audio and capacity are between the engine and the
gateway. No method waits for the engine. The address by which the engine joins is a secret: it is handed on in the environment,
which only the node's own user can read, and never logged.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

EARLY_S, PAUSE_S = 20.0, 5.0
"""An engine that ends so early would end again: then Ray restarts it after a pause."""


class EngineActor:
    """An engine on a node. Owner: Ray. If the engine fails, so does the actor, and Ray restarts it."""

    def __init__(self, environment: Mapping[str, str], program: str = "glowd.daemon.cluster.node_engine") -> None:
        """Start the engine, with more variables in its environment: what it is and where it joins."""
        self._started_s = time.monotonic()
        self._niceness, self._is_leaving = normal_niceness(), False
        command = [sys.executable, "-P", "-m", program, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        threading.Thread(target=self._follow, name="engine-end", daemon=True).start()

    def _follow(self) -> None:
        """Thread: end this process when the engine has failed. When it has left in order, Ray will be told to end it."""
        status = self._process.wait()
        if status == 0:
            return
        sys.stderr.write(f"the engine ended with status {status}\n")
        if time.monotonic() - self._started_s < EARLY_S:
            time.sleep(PAUSE_S)
        os._exit(1)

    def leave(self) -> None:
        """Ask the engine to leave. Once: a second signal would end it at once."""
        if not self._is_leaving:
            self._is_leaving = True
            self._process.send_signal(signal.SIGTERM)

    def about(self) -> dict[str, Any]:
        """The id of its node, the engine's process there and its niceness, and whether the engine has left in order."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        left = self._process.poll() == 0
        return {"node": str(node), "pid": self._process.pid, "niceness": self._niceness, "left": left}


def normal_niceness() -> int:
    """Undo what Ray does to its workers (a niceness of 15), if the system allows it; returns the niceness now.

    With it, any other program on the node would make the audio late.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    return os.getpriority(os.PRIO_PROCESS, 0)
