"""`python -m glowd.daemon.cluster.node_engine PARENT`: the engine process of an actor, which ends when the process PARENT ends.

    GLOWD_SETTINGS        the daemon's settings (config_reader.as_text)
    GLOWD_PLACED_ENGINE   {"voice", "name", "address"}: the engine, and where it joins

Rules: nothing is left running on a node whose actor is gone: it would hold the memory of a GPU, and nobody would know. The system
ends this process with its parent, however that ends. The address is a secret, so it is not an argument: those are for all to see.
"""

import argparse
import ctypes
import json
import os
import signal
import sys

from glowd.daemon.cluster.manager import JOIN
from glowd.daemon.config import ConfigError
from glowd.daemon.config_reader import from_text
from glowd.daemon.engine import command
from glowd.daemon.runtime.role_process import SETTINGS

PR_SET_PDEATHSIG = 1
LEAVE_S = 86_400.0
"""An engine is told to leave by the gateway, which waits for its streams."""


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "this system cannot end a process with its parent (PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before it could be named
        sys.exit("the process that started this engine has ended")


def main() -> int:
    """Run the engine until it has left; the exit status of `glowd engine`."""
    end_with(int(sys.argv[1]))
    config, asked = from_text(os.environ.pop(SETTINGS)), json.loads(os.environ.pop(JOIN))
    arguments = argparse.Namespace(
        voice=asked["voice"], name=asked["name"], join=asked["address"], checkpoint="", listen="",
        device="auto",  # Ray lets it see the GPUs that it was given, and no others
        leave_s=LEAVE_S,
    )  # fmt: skip
    try:
        return command.run(config, arguments)
    except ConfigError as error:
        sys.stderr.write(f"glowd: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
