"""The sinks of one generation taken as one: fed together, and no further than the slowest of them.

Rules: as sinks.py. Owner: the session, which hands the same pieces to all of them and asks how far they have come.
"""

from glowd.daemon.gateway.sinks import DeviceSink, OwnerSink, Piece, Sink


class Outlets:
    """The sinks of one generation; empty before it begins and after its ending."""

    def __init__(self) -> None:
        self._sinks: list[Sink] = []

    def add(self, sink: Sink, paused: bool) -> None:
        """One more, in the state the others are in."""
        if paused:
            sink.pause(True)
        self._sinks.append(sink)

    def write(self, piece: Piece) -> None:
        """Feed the next piece. Raises WireError if a sink cannot take it."""
        for sink in self._sinks:
            sink.write(piece)

    def pause(self, paused: bool) -> None:
        """Hold the position, or go on."""
        for sink in self._sinks:
            sink.pause(paused)

    def pump(self) -> None:
        """Send what waits for a client that reads slowly."""
        for sink in self._sinks:
            if isinstance(sink, OwnerSink):
                sink.pump()

    def close(self) -> None:
        """The generation is over: close and forget all sinks."""
        for sink in self._sinks:
            sink.close()
        self._sinks.clear()

    @property
    def device(self) -> DeviceSink | None:
        """The one that is the speaker, if there is one."""
        return next((sink for sink in self._sinks if isinstance(sink, DeviceSink)), None)

    @property
    def delivered_samples(self) -> int:
        """Samples that have left every sink."""
        return min((sink.delivered_samples for sink in self._sinks), default=0)

    @property
    def finished(self) -> bool:
        """Whether the last piece has left every sink."""
        return all(sink.finished for sink in self._sinks)
