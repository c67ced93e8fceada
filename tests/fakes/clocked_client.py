"""A client whose clock is so many parts per million fast. It speaks on the device, from a line of its input until that ends.

    python -m tests.fakes.clocked_client ENDPOINT PPM F_HZ

A process of its own: chunks of several clients are due in one moment now and then, and clients elsewhere do not wait for one
another. The seed of its stream is F_HZ, which an engine of tones.py takes for a frequency. It prints a line when it is connected,
and at the end one of JSON: the frames that it has sent, and what the daemon says of them.
"""

import json
import sys
import threading
import time

import numpy as np

from glowd.clients import Client
from glowd.daemon import wire
from tests.fakes.roles import HOP, RATE
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S

CHUNK = 4
FRAMES_S = RATE / HOP


def name_of(ppm: float) -> str:
    """Of the stream."""
    return f"{ppm:g}ppm"


def speak(client: Client, ppm: float, f_hz: int, ended: threading.Event) -> dict[str, int]:
    """Send each chunk when its last frame is due by the client's clock."""
    frames_s = FRAMES_S * (1 + ppm * 1e-6)
    with client.open(name_of(ppm), sinks=["device"], seed=f_hz) as stream:
        frames, begin_s = 0, time.monotonic()
        while not ended.wait(max(0.0, begin_s + (frames + CHUNK) / frames_s - time.monotonic())):
            stream.send(np.take(speech(), range(frames, frames + CHUNK), 0, mode="wrap"), WAIT_S)
            frames += CHUNK
        stream.end()
        played = stream.wait_played(WAIT_S)
    assert isinstance(played, wire.Played), played
    return {"frames": frames, "samples": played.total_samples, "underruns": played.underruns}


def main(endpoint: str, ppm: str, f_hz: str) -> None:
    """Speak, as the input says."""
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    with Client(endpoint) as client:
        print("connected", flush=True)
        sys.stdin.readline()
        threading.Thread(target=wait, daemon=True).start()
        print(json.dumps(speak(client, float(ppm), int(f_hz), ended)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
