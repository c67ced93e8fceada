"""A fake engine that makes a tone of each stream: a sample that is lost or comes twice is heard as a jump of its phase.

GLOWD_JOIN=ADDRESS python -m tests.fakes.tones      # until its input ends
"""

import os
import sys
from dataclasses import dataclass

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.wire.address import Address, address_of
from glowd.daemon.wire.fields import Array, Message
from tests.fakes.joined import FakeJoined
from tests.fakes.roles import HOP, RATE

LEVEL = 0.25


def tone(f_hz: float, first: int, end: int) -> Array:
    """Samples `first` to `end` of a tone that began with sample 0."""
    return (LEVEL * np.sin(2 * np.pi * f_hz * np.arange(first, end) / RATE)).astype(np.float32)


@dataclass
class Sounding:
    """A stream: its tone, its next sample, and when the newest frames passed client, gateway and engine."""

    f_hz: int
    at: int = 0
    stamps: tuple[int, int, int] = (0, 0, 0)


class ToneEngine(FakeJoined):
    """Makes HOP samples of each frame at once, and keeps none: a tone of as many Hz as the seed of its stream says."""

    def __init__(self, address: Address) -> None:
        self._sounding: dict[int, Sounding] = {}
        super().__init__(address, "tones")

    def take(self, message: Message) -> None:
        match message:
            case ipc.Start():
                self._sounding[message.key] = Sounding(message.seed, message.first_frame * HOP)
            case ipc.Frames() if stream := self._sounding.get(message.key):
                stream.stamps = (message.t_client_ns, message.t_gateway_ns, self.now_ns())
                self._make(message.key, stream, message.frames * HOP)
            case ipc.Finish() if stream := self._sounding.pop(message.key, None):
                self._make(message.key, stream, 0, last=True)
            case ipc.Drop():
                self._sounding.pop(message.key, None)
            case _:
                super().take(message)

    def _make(self, key: int, stream: Sounding, samples: int, last: bool = False) -> None:
        first, stream.at = stream.at, stream.at + samples
        client_ns, gateway_ns, engine_ns = stream.stamps
        self._send(
            ipc.Pcm(
                key, first, samples, last, stream.at // HOP, client_ns, gateway_ns, engine_ns, gateway_ns,
                engine_ns, self.now_ns(), 1, tone(stream.f_hz, first, stream.at),
            )
        )  # fmt: skip


def main() -> None:
    """Serve until the input ends."""
    engine = ToneEngine(address_of(os.environ["GLOWD_JOIN"]))
    sys.stdin.read()
    engine.crash()


if __name__ == "__main__":
    main()
