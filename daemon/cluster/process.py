"""The cluster role: has Ray run engines on other machines, as a client of the daemon.

    python -m glowd.daemon.cluster --run-dir D [--config F]

Rules: serving.py, which needs the package of the extra `ray`, is imported when it runs, so that a package that is missing is told
as the reason. The daemon works without this role: engines that run go on, and join again after whatever happens to the others.
"""

import os

from glowd.daemon.runtime.front import imported
from glowd.daemon.runtime.role import Role

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "2"}
"""Ray reports nothing to its makers, and looks for a head for a minute and not for a quarter of an hour."""


def main() -> None:
    """Run the role."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with Role.start("cluster") as role:
        with imported("cluster", ("ray",)):
            from glowd.daemon.cluster.serving import serve
        serve(role)
