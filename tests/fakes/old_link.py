"""An engine and a gateway of the release before, which speak version 1 of the engine link and know nothing of a later one.

Rules: every byte goes through link_v1.py. What that refuses is kept in `refused`; a real one logs it and goes on.
"""

import threading
import time
from typing import Any

import numpy as np
import zmq

from glowd.daemon import engine_link, ipc
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Array, Message
from tests.fakes import link_v1
from tests.fakes.joined import FakeJoined

MINE = {
    kind.TYPE: kind for kind in (engine_link.Joined, engine_link.TurnedAway, engine_link.Dismissed, ipc.Start, ipc.Frames,
                                 ipc.Finish, ipc.Drop, ipc.DropAll)
}  # fmt: skip
"""What a gateway sends an engine."""


class OldEngine(FakeJoined):
    """A fake engine of version 1. Its clock is `ahead_ns` ahead of this machine's."""

    def __init__(self, address: Address, called: str, ahead_ns: int = 0) -> None:
        self.refused: list[str] = []
        super().__init__(address, called, versions=(1, 1), ahead_ns=ahead_ns)

    def decode(self, parts: list[bytes]) -> Message:
        try:
            kind, fields, payload = link_v1.decode(parts)
        except link_v1.RefusedError as error:
            self.refused.append(str(error))
            return engine_link.Leaving()  # which a gateway does not send: it is ignored
        return MINE[kind](**fields, **({} if payload is None else {"mel": payload}))

    def _send(self, message: Message) -> None:
        audio = message.audio if isinstance(message, ipc.Pcm) else None
        self._socket.send_multipart(link_v1.encode(message.TYPE, link_fields(message), audio))


def link_fields(message: Message) -> dict[str, Any]:
    """The fields of a message that version 1 knows, records as maps."""
    values = {name: getattr(message, name) for name in link_v1.FIELDS[message.TYPE]}
    return {name: value.to_map() if hasattr(value, "to_map") else value for name, value in values.items()}


class OldGateway:
    """A fake gateway of version 1 with one engine, without keys."""

    def __init__(self, url: str) -> None:
        self.url, self.ready = url, False
        self.refused: list[str] = []
        self.stamps = set[tuple[int, int]]()
        """The times of client and gateway that came back with samples."""
        self._audio: list[Array] = []
        self._todo: list[list[bytes]] = []
        self._over, self._rendered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def render(self, mel: Array, wait_s: float) -> Array:
        """The samples of an utterance that the engine renders."""
        chunks = [(at, mel[at : at + 4]) for at in range(0, len(mel), 4)]
        begin = {"key": 5, "seed": 1, "first_frame": 0, "sigma": -1.0, "lead_frames": 0, "phase": -1.0, "attempt": 0}
        self._todo += [link_v1.encode("start", begin)]
        for at, chunk in chunks:
            header = {
                "key": 5,
                "first_frame": at,
                "frames": len(chunk),
                "bins": 80,
                "t_client_ns": 11,
                "t_gateway_ns": 12,
            }
            self._todo.append(link_v1.encode("frames", header, chunk))
        self._todo.append(link_v1.encode("finish", {"key": 5}))
        assert self._rendered.wait(wait_s), "no last samples came"
        return np.concatenate(self._audio)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.bind(self.url)
            engine = b""
            while not self._over.is_set():
                if router.poll(5):
                    engine, *parts = router.recv_multipart()
                    for answer in self._answers(parts):
                        router.send_multipart([engine, *answer])
                while engine and self.ready and self._todo:
                    router.send_multipart([engine, *self._todo.pop(0)])

    def _answers(self, parts: list[bytes]) -> list[list[bytes]]:
        try:
            kind, fields, payload = link_v1.decode(parts)
        except link_v1.RefusedError as error:
            self.refused.append(str(error))
            return []
        match kind:
            case "join":
                assert fields["oldest_version"] <= 1 <= fields["version"]
                return [link_v1.encode("joined", {"version": 1, "name": "glow/x"})]
            case "ready":
                self.ready = True
            case "pcm":
                assert fields["t_engine_ns"] <= fields["t_start_ns"] <= fields["t_end_ns"] <= time.monotonic_ns()
                self.stamps.add((fields["t_client_ns"], fields["t_gateway_ns"]))
                self._audio.append(payload)
                if fields["last"]:
                    self._rendered.set()
            case "leaving":
                return [link_v1.encode("dismissed", {})]
        return []
