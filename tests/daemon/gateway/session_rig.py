"""A session whose outside is the test: what it says is kept, and its engine and speaker are played by hand."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.mel_intake import MelIntake
from glowd.daemon.gateway.replies import Outside
from glowd.daemon.gateway.session import Session
from glowd.daemon.gateway.utterance import Terms
from glowd.daemon.wire.fields import Array, Message

HOP, BINS, RATE = 4, 3, 1000
FORMAT = {"rate_hz": RATE, "hop": HOP, "n_fft": 16, "win": 16, "n_mels": BINS, "fmax_hz": 500.0}
TERMS = Terms(
    hop=HOP, bins=BINS, window_frames=20, max_frames=200, history_frames=5, look_ahead_frames=1, whole_utterance=False
)
M = TypeVar("M", bound=Message)


def mel(seq: int, first_frame: int, frames: int, generation: int = 0, bins: int = BINS) -> wire.Mel:
    values = np.full((frames, bins), -1.0, np.float32)
    return wire.Mel("s", generation, seq, first_frame, frames, "f32", bins, 7, values)


def signal(first: int, samples: int) -> Array:
    """The value of every sample is a function of its index: what is lost, doubled or moved shows."""
    return (np.arange(first, first + samples) % 997 / 1000).astype(np.float32)


class Rig:
    """One session and everything around it."""

    def __init__(self, *sinks: str, terms: Terms = TERMS, directory: Path = Path("/nowhere")) -> None:
        self.owner: list[Message] = []
        self.engine: list[Message] = []
        self.speaker: list[Message] = []
        self.heard: list[Message] = []
        self.owner_reads = True
        self.now_ns, self._key = 1_000_000_000, 100
        asked = wire.Open("s", sinks=list(sinks), seed=9)
        self.session = Session(asked, "glow", RATE, 8, terms, self._outside(directory), MelIntake({}, FORMAT, "glow"))
        self._seq = self._sent = self._made = 0

    def _outside(self, directory: Path) -> Outside:
        def new_key(_: Session) -> int:
            self._key += 1
            return self._key

        def try_owner(message: Message) -> bool:
            if self.owner_reads:
                self.owner.append(message)
            return self.owner_reads

        def keep(where: list[Message]) -> Callable[[Message], object]:
            return where.append

        return Outside(
            to_owner=keep(self.owner),
            try_owner=try_owner,
            to_engine=keep(self.engine),
            to_speaker=keep(self.speaker),
            to_listeners=keep(self.heard),
            new_key=new_key,
            recordings=directory,
        )

    # ------------------------------------------------------------- the client

    def send(self, frames: int) -> None:
        """The next frames of the running generation."""
        number = self.session.generation.number
        self.session.mel(mel(self._seq, self._sent, frames, number), self.now_ns)
        self._seq, self._sent = self._seq + 1, self._sent + frames

    def end(self) -> None:
        self.session.end(wire.End("s", self.session.generation.number, self._sent))

    def flush(self, fade_ms: int = 4) -> None:
        self.session.flush(wire.Flush("s", self.session.generation.number, fade_ms))

    def anew(self) -> None:
        """The test's counters for the next generation."""
        self._seq = self._sent = self._made = 0

    # ------------------------------------------------------------- the engine

    def render(self, frames: int, last: bool = False, key: int | None = None) -> None:
        """The engine makes the next frames."""
        samples = frames * HOP
        self.session.pcm(self.pcm(self._made, samples, last, key), self.now_ns)
        self._made += samples

    def pcm(self, first: int, samples: int, last: bool = False, key: int | None = None) -> ipc.Pcm:
        key = self.key if key is None else key
        return ipc.Pcm(
            key, first, samples, last, (first + samples) // HOP, 1, self.now_ns - 5, self.now_ns - 4, self.now_ns - 3,
            self.now_ns - 1, 2, signal(first, samples),
        )  # fmt: skip

    # ------------------------------------------------------------ the speaker

    def play(self, samples: int) -> None:
        """The device has come to this sample."""
        self.session.position(ipc.Position(self.key, samples, self.now_ns))

    def played(self, samples: int) -> None:
        self.session.played(ipc.Played(self.key, samples, self.now_ns))

    # ----------------------------------------------------------- what was said

    @property
    def key(self) -> int:
        return self.session.generation.key

    def said(self, kind: type[M], where: list[Message] | None = None) -> list[M]:
        """Everything of a type that was said to the owner, or to somebody else."""
        return [message for message in (self.owner if where is None else where) if isinstance(message, kind)]

    def only(self, kind: type[M], where: list[Message] | None = None) -> M:
        (found,) = self.said(kind, where)
        return found

    @property
    def audio(self) -> Array:
        """All samples the owner was sent, having checked that no piece is missing or doubled."""
        pieces = self.said(wire.Audio)
        assert [piece.seq for piece in pieces] == list(range(len(pieces)))
        at = 0
        for piece in pieces:
            assert piece.first_sample == at
            at += piece.samples
        return np.concatenate([np.zeros(0, np.float32), *(piece.payload for piece in pieces)])

    @property
    def ending(self) -> Message:
        """The one message that ended generation 0."""
        endings = deque(
            message
            for message in self.owner
            if isinstance(message, wire.Played | wire.Flushed) or (isinstance(message, wire.Error) and message.fatal)
        )
        assert len(endings) == 1, endings
        return endings[0]
