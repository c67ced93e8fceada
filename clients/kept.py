"""What a client keeps of a stream, to go on with it when the daemon was lost and is there again.

Rules: no I/O and no clock. Frames are kept in send_queue.py; here is how the stream was opened, where the running
generation can go on, and what of its audio has arrived.
"""

from dataclasses import replace

from glowd.daemon import wire
from glowd.daemon.wire import Audio, Message

SAME_CLOCK_NS = 200_000_000
"""Two daemons whose clocks seem to differ by less have the same one: the time that messages took is in the difference."""
POSITION_MS = 50
"""How often the daemon says where the listener is: so much of the device's sound may be heard twice after a loss."""


class Kept:
    """Of one stream. Owner: its state. With `can_go_on` the daemon is asked for positions."""

    def __init__(self, request: wire.Open, can_go_on: bool) -> None:
        self._request = replace(request, position_ms=POSITION_MS) if can_go_on else request
        self.position: wire.Position | None = None
        """The newest one of the running generation."""
        self._ahead_ns = 0
        self._paused = self._is_complete = False
        self._next_sample = self._next_seq = 0

    def begin_generation(self) -> None:
        """The next generation begins."""
        self.position, self._is_complete, self._next_sample, self._next_seq = None, False, 0, 0

    def note(self, message: Message) -> None:
        """Keep what a pause, resume or gain has set."""
        match message:
            case wire.Pause() | wire.Resume():
                self._paused = isinstance(message, wire.Pause)
            case wire.Gain():
                self._request = replace(self._request, gain_db=message.gain_db)

    def hear(self, position: wire.Position, ahead_ns: int) -> None:
        """Keep the newest position. `ahead_ns`: by how much the daemon's clock is ahead of the client's."""
        self.position, self._ahead_ns = position, ahead_ns

    @property
    def request(self) -> wire.Open:
        """How the stream is opened."""
        return self._request

    def request_again(self, generation: int, ahead_ns: int) -> wire.Open:
        """How it is opened again, to go on in a generation. `ahead_ns`: as in `hear`, of the daemon that is there now."""
        request, at = replace(self._request, generation=generation, paused=self._paused), self.position
        if at is None:
            return request
        return replace(
            request, key=at.key, samples=at.samples, first_frame=at.first_frame, start_frame=at.start_frame,
            phase=at.phase, t_ns=self._by_other_clock(at.t_ns, ahead_ns - self._ahead_ns), underruns=at.underruns,
        )  # fmt: skip

    @staticmethod
    def _by_other_clock(t_ns: int, ahead_ns: int) -> int:
        """A time by the clock of a daemon on another machine, or of one that was started again; 0 stays 0."""
        return t_ns if not t_ns or abs(ahead_ns) < SAME_CLOCK_NS else max(0, t_ns + ahead_ns)

    @property
    def first_frame(self) -> int:
        """The first frame of the generation that the daemon will need again."""
        return self.position.first_frame if self.position else 0

    @property
    def audio_has_come(self) -> bool:
        """Whether audio of the generation was received."""
        return self._next_seq > 0

    def fresh(self, audio: Audio) -> Audio | None:
        """What is new of a chunk of the generation, numbered as if the daemon had never been lost; None if nothing is."""
        known = min(audio.samples, max(0, self._next_sample - audio.first_sample))
        if self._is_complete or (known == audio.samples and known and not audio.last):
            return None
        if known or audio.seq != self._next_seq:
            audio = replace(
                audio, seq=self._next_seq, first_sample=audio.first_sample + known, samples=audio.samples - known,
                payload=audio.payload[known:],
            )  # fmt: skip
        self._next_sample = max(self._next_sample, audio.first_sample + audio.samples)
        self._next_seq, self._is_complete = self._next_seq + 1, audio.last
        return audio
