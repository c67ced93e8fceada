"""The cluster role's loop: from its settings to a member of the Ray cluster, which looks at the daemon every few seconds.

Rules: one thread works (Ray's calls may wait), the main thread reports that this process is alive. A cluster that is not there is
waited for. If its head is lost for longer than its nodes wait for it, Ray ends this process; if no look succeeds for LOST_S, as
when another cluster has been made at the same address, it ends itself. The supervisor starts it again, and the engines stay.
What the daemon or Ray refuse is logged, and tried again at the next look.
"""

import concurrent.futures
import contextlib
import logging
import os
import time

from glowd.clients.errors import GlowdError
from glowd.daemon.cluster.daemon_client import DaemonClient
from glowd.daemon.cluster.fleet import ClusterError, Fleet
from glowd.daemon.cluster.manager import Manager
from glowd.daemon.config_reader import from_text
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.status import NewSettings
from glowd.daemon.runtime.told import Told

LOOK_S, STEP_S = 2.0, 0.1
LOST_S = 30.0
"""How long no look succeeds until the connection to Ray counts as lost. Ray itself goes on to ask a cluster that is gone."""

log = logging.getLogger("glowd.cluster")


class Looks:
    """When the last look at the cluster succeeded, and what was said of those that failed.

    Written by the thread that looks, read by the main one.
    """

    def __init__(self) -> None:
        self._succeeded_s: float | None = None
        self.told = Told()

    def succeeded(self) -> None:
        """The cluster has answered."""
        self._succeeded_s = time.monotonic()

    @property
    def are_lost(self) -> bool:
        """Whether the cluster has not answered for too long; not before it has answered once."""
        return self._succeeded_s is not None and time.monotonic() - self._succeeded_s > LOST_S


def serve(role: Role) -> None:
    """Serve until the role is to stop. Ends the process if the cluster is lost."""
    role.ready(ray=role.config.cluster.ray)
    looks = Looks()
    with concurrent.futures.ThreadPoolExecutor(1, "cluster") as pool:
        work = pool.submit(manage, role, looks)
        while not work.done():
            role.alive()
            if looks.are_lost:
                log.error(
                    "the Ray cluster at %s has not answered for %g s; connecting anew", role.config.cluster.ray, LOST_S
                )
                os._exit(1)  # the thread may wait in a call to Ray that never ends
            time.sleep(STEP_S)
        work.result()


def manage(role: Role, looks: Looks) -> None:
    """Thread: connect to Ray and look after the engines, until the role is to stop."""
    fleet = Fleet(role.config.cluster.ray, role.config.cluster.namespace)
    if not connect(role, fleet):
        return
    looks.succeeded()
    daemon = DaemonClient(addresses(role.config.server, role.run_dir).clients, role.run_dir)
    manager = Manager(role.config, daemon, fleet)
    with contextlib.closing(daemon), contextlib.closing(fleet):
        while not role.stopping.wait(LOOK_S):
            for news in role.news():
                if isinstance(news, NewSettings):
                    manager.use(from_text(news.text))
            look(role, manager, fleet, looks)
        manager.stop()


def connect(role: Role, fleet: Fleet) -> bool:
    """Wait for the cluster and become a member of it; returns whether that was done before the role is to stop."""
    said = ""
    while not role.stopping.is_set():
        try:
            fleet.connect()
            log.info("this daemon is a member of the Ray cluster at %s", fleet.address)
            return True
        except ClusterError as error:
            if str(error) != said:
                said = str(error)
                log.warning("%s; waiting for it", said)
        role.stopping.wait(LOOK_S)
    return False


def look(role: Role, manager: Manager, fleet: Fleet, looks: Looks) -> None:
    """One look at everything; what fails is tried again at the next one."""
    try:
        fleet.refresh()
        looks.succeeded()
        manager.step(time.monotonic())
        role.nodes({name: node.to_map() for name, node in fleet.nodes().items()})
        if looks.told.is_new("look", ""):
            log.info("looking at the cluster works again")
    except (ClusterError, GlowdError) as error:
        if looks.told.is_new("look", str(error)):
            log.warning("%s; trying again", error)
