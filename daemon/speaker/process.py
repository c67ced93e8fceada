"""The speaker role: plays what the gateway sends on the sound device, and tells what was heard, and when.

    python -m glowd.daemon.speaker --run-dir D [--config F]

Rules: it never imports torch, and its heap stays small and frozen: nothing here may pause for as long as the device's
buffer lasts. What is played, and what is said of it, is decided in playback.py.
"""

import gc
import logging
import os
import time

from glowd.daemon.config import Speaker as Settings
from glowd.daemon.runtime.role import EXIT_FAILED, Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.runtime.sockets import connect_speaker
from glowd.daemon.runtime.system import hurry
from glowd.daemon.speaker.device import RATE_HZ, PortAudioOutput
from glowd.daemon.speaker.device_thread import Pump
from glowd.daemon.speaker.playback import OPENING_S, Speaker

log = logging.getLogger("glowd")

STOP_S = 1.0
HANG_S = 30.0  # a device that hangs this long is only cured by a new process


def serve(role: Role, settings: Settings) -> None:
    """Run until the role is to stop. Raises RuntimeError when the device hangs for good."""
    block_samples = max(1, round(settings.block_ms * RATE_HZ / 1000))
    endpoint = addresses(role.config.server, role.run_dir).speaker
    pump = Pump(PortAudioOutput(settings), block_samples)
    speaker = Speaker(connect_speaker(endpoint), pump, block_samples)
    hurry()
    pump.start()
    try:
        loop(role, speaker, pump)
    finally:
        if not pump.stop(STOP_S):
            log.error("the sound device hangs; ending without closing it")
            role.failed("the sound device hangs")
            os._exit(EXIT_FAILED)  # an orderly exit would close PortAudio, and hang in it as well


def loop(role: Role, speaker: Speaker, pump: Pump) -> None:
    """Turn until the role is to stop; say ready when it is known whether there is a device."""
    began_s, ready = time.monotonic(), False
    while not role.stopping.is_set():
        speaker.turn()
        role.alive()
        if not ready and (speaker.settled or time.monotonic() - began_s > OPENING_S):
            ready = True
            role.ready(**({"device": speaker.device.name} if speaker.device else {"warning": speaker.gone}))
            gc.collect()
            gc.freeze()
        if pump.stalled_s > HANG_S:
            raise RuntimeError(f"the sound device has hung for {HANG_S:g} s, which only a new process cures")


def main() -> None:
    """Run the role."""
    with Role.start("speaker") as role:
        serve(role, role.config.speaker)
