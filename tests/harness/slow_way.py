"""A way between two machines that takes its time: a TCP proxy that passes bytes on later, in order."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

Delay = Callable[[], float]
"""The seconds that the bytes which come now take."""


class SlowWay:
    """Listens at a port of its own, and passes everything on to another one and back. `there` and `back` may be changed."""

    def __init__(self, port: int, there: Delay, back: Delay) -> None:
        self.there, self.back, self._target = there, back, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, sink, delay in ((near, far, lambda: self.there()), (far, near, lambda: self.back())):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pending: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    threading.Thread(target=_read, args=(source, delay, pending), daemon=True).start()
                    threading.Thread(target=_write, args=(sink, pending), daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _read(source: socket.socket, delay: Delay, pending: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    due_s, data = 0.0, b"more"
    while data:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        due_s = max(due_s, time.monotonic() + delay())
        pending.put((due_s, data))


def _write(sink: socket.socket, pending: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    with contextlib.suppress(OSError):
        while True:
            due_s, data = pending.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


@contextlib.contextmanager
def slow_way(port: int, there: Delay, back: Delay) -> Iterator[SlowWay]:
    """A way to a port of this machine; see SlowWay."""
    way = SlowWay(port, there, back)
    try:
        yield way
    finally:
        way.close()
