"""The cluster role's loop: from its settings to a member of the Ray cluster, which looks at the daemon every few seconds.

Rules: one thread works (Ray's calls may wait), the main thread reports that this process is alive. A cluster that is not there is
waited for. If its head is lost for longer than its nodes wait for it, Ray ends this process, and the supervisor starts it again.
What the daemon or Ray refuse is logged, and tried again at the next look.
"""

import concurrent.futures
import contextlib
import logging
import time

from glowd.clients.errors import GlowdError
from glowd.daemon.cluster.daemon_client import DaemonClient
from glowd.daemon.cluster.fleet import ClusterError, Fleet
from glowd.daemon.cluster.manager import Manager
from glowd.daemon.config_reader import from_text
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.status import NewSettings

LOOK_S, STEP_S = 2.0, 0.1

log = logging.getLogger("glowd.cluster")


def serve(role: Role) -> None:
    """Serve until the role is to stop."""
    role.ready(ray=role.config.cluster.ray)
    with concurrent.futures.ThreadPoolExecutor(1, "cluster") as pool:
        work = pool.submit(manage, role)
        while not work.done():
            role.alive()
            time.sleep(STEP_S)
        work.result()


def manage(role: Role) -> None:
    """Thread: connect to Ray and look after the engines, until the role is to stop."""
    fleet = Fleet(role.config.cluster.ray, role.config.cluster.namespace)
    if not connect(role, fleet):
        return
    daemon = DaemonClient(addresses(role.config.server, role.run_dir).clients, role.run_dir)
    manager = Manager(role.config, daemon, fleet)
    with contextlib.closing(daemon), contextlib.closing(fleet):
        while not role.stopping.wait(LOOK_S):
            for news in role.news():
                if isinstance(news, NewSettings):
                    manager.use(from_text(news.text))
            look(role, manager, fleet)
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


def look(role: Role, manager: Manager, fleet: Fleet) -> None:
    """One look at everything; what fails is tried again at the next one."""
    try:
        fleet.refresh()
        manager.step(time.monotonic())
        role.nodes({name: node.to_map() for name, node in fleet.nodes().items()})
    except (ClusterError, GlowdError) as error:
        log.warning("%s; trying again", error)
