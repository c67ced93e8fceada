"""glowctl, and the demonstration: programs that use the library. `main` is the command `glowctl`.

Rules: `pip install --no-deps glowd` with pyzmq, msgpack and numpy runs every command that needs no other package; one that
does names the package, and the command that installs it. So packages are imported by the function that needs them.
"""

import sys

from glowd.flow.missing_package import advice


def main() -> int:
    """Run glowctl; its exit status. If a package is missing, exit with status 1 and say how to install it."""
    try:
        from glowd.clients.cli import glowctl

        return glowctl.main()
    except ModuleNotFoundError as error:
        sys.exit(advice("glowctl", error))
