"""The speaker role: plays what the gateway sends on the sound device, and reports what was played, and when.

    python -m glowd.daemon.speaker --run-dir D [--config F]

Rules: it never imports torch, and its heap stays small and frozen: nothing here may pause for as long as the device's
buffer lasts. What is played, and what is reported about it, is decided in playback.py.
"""

import gc
import logging
import os
import sys

from glowd.daemon.config import SpeakerSettings
from glowd.daemon.runtime.role import EXIT_FAILED, Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.sockets import connect_speaker
from glowd.daemon.runtime.system import request_realtime_priority
from glowd.daemon.speaker.device import PortAudioOutput
from glowd.daemon.speaker.device_thread import LONGEST_PASS_S, DeviceThread
from glowd.daemon.speaker.link import GatewayLink
from glowd.daemon.speaker.playback import OPENING_S, Playback
from glowd.daemon.wire.liveness import AwakeClock, Silence

log = logging.getLogger("glowd")

STOP_S = 1.0


def serve(role: Role, settings: SpeakerSettings) -> None:
    """Run until the role is to stop. Raises RuntimeError if the device hangs for supervisor.watchdog_s."""
    endpoint = addresses(role.config.server, role.run_dir).speaker
    thread = DeviceThread(PortAudioOutput(settings), settings.block_ms)
    playback = Playback(GatewayLink(connect_speaker(endpoint)), thread, role.instance)
    request_realtime_priority()
    thread.start()
    try:
        loop(role, playback, thread, role.config.supervisor.watchdog_s)
    finally:
        if not thread.stop(STOP_S):
            log.error("the sound device hangs; ending without closing it", exc_info=sys.exc_info()[0] is not None)
            role.failed("the sound device hangs")
            os._exit(EXIT_FAILED)  # an orderly exit would close PortAudio, and hang in it


def loop(role: Role, playback: Playback, thread: DeviceThread, hang_s: float) -> None:
    """Step until the role is to stop; report ready once it is known whether there is a device.

    A device that has hung for `hang_s` is treated as a process that hangs: only a new one helps.
    """
    opening, is_ready = Silence(AwakeClock(LONGEST_PASS_S)), False
    while not role.stopping.is_set():
        playback.step()
        role.alive()
        if not is_ready and (playback.settled or opening.seconds > OPENING_S):
            is_ready = True
            device = playback.device
            role.ready(**({"device": device.name} if device else {"warning": playback.missing_because}))
            gc.collect()
            gc.freeze()
        if thread.stalled_s > hang_s:
            raise RuntimeError(f"the sound device has hung for {hang_s:g} s; only a new process helps")


def main() -> None:
    """Run the role."""
    with Role.start("speaker") as role:
        serve(role, role.config.speaker)
