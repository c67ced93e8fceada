"""A session whose ports are lists, and whose client, engine and speaker are played by the test."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.config import FileSettings
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.mel_intake import MelIntake
from glowd.daemon.gateway.streams.notices import Notice
from glowd.daemon.gateway.streams.phases import Phase
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.gateway.streams.totals import Counts
from glowd.daemon.gateway.streams.utterance import StreamLimits
from glowd.daemon.wire.fields import Array, Message

HOP, BINS, RATE = 4, 3, 1000
LIMITS = StreamLimits(
    hop=HOP,
    bins=BINS,
    window_frames=20,
    max_frames=200,
    history_frames=5,
    lead_frames=2,
    look_ahead_frames=1,
    chunk_frames=2,
    whole_utterance=False,
)
FORMAT = {"rate_hz": RATE, "hop": HOP, "n_fft": 16, "win": 16, "n_mels": BINS, "fmax_hz": 500.0}
FIRST_KEY = 101
M = TypeVar("M", bound=Message)


def mel_message(seq: int, first_frame: int, frames: int, generation: int = 0, bins: int = BINS) -> wire.Mel:
    """A mel of stream `s`; all its values are the same."""
    values = np.full((frames, bins), -1.0, np.float32)
    return wire.Mel("s", generation, seq, first_frame, frames, "f32", bins, 7, values)


def plain_intake() -> MelIntake:
    """For frames that are the voice's own."""
    return MelIntake({}, FORMAT, "glow")


def ramp(first: int, samples: int) -> Array:
    """Samples whose value is a function of their index, so that lost, repeated and moved ones are found."""
    return (np.arange(first, first + samples) % 997 / 1000).astype(np.float32)


def phase_at(frame: int) -> float:
    """The phase of the engine's source at a frame, in cycles."""
    return 0.37 + 0.25 * frame


class ListPorts:
    """SessionPorts that keep what is sent. `owner_reads` False: the client takes no audio."""

    def __init__(self, directory: Path) -> None:
        self.recordings, self.owner_reads = Recordings(FileSettings(directory=str(directory))), True
        self.owner, self.engine = list[Message](), list[Message]()
        self.speaker, self.listeners = list[Message](), list[Message]()
        self.counts = Counts()
        self.cushion_ms = 0.0
        self.frames_taken = 0
        self.holds_back: Notice | None = None
        self.has_listeners = True
        self._key = FIRST_KEY - 1

    def key_of(self, stream: str) -> int:
        return {"before": 55}.get(stream, 0)

    def to_owner(self, message: Message) -> None:
        self.owner.append(message)

    def try_owner(self, message: Message) -> bool:
        if self.owner_reads:
            self.owner.append(message)
        return self.owner_reads

    def took(self, frames: int) -> None:
        self.frames_taken += frames

    def held_back(self) -> Notice | None:
        return self.holds_back

    def to_engine(self, message: Message) -> None:
        self.engine.append(message)

    def blame_engine(self, text: str) -> bool:
        return False

    def to_speaker(self, message: Message) -> None:
        self.speaker.append(message)

    def to_listeners(self, message: Message) -> None:
        self.listeners.append(message)

    def new_key(self, known: int = 0) -> int:
        if known:
            return known
        self._key += 1
        return self._key


class SessionHarness:
    """One session, its ports, and counters of what the test has sent and rendered."""

    def __init__(
        self, *sinks: str, limits: StreamLimits = LIMITS, directory: Path = Path("/nowhere"), **asked: Any
    ) -> None:
        self.ports, self.now_ns = ListPorts(directory), 1_000_000_000
        opening = wire.Open("s", sinks=list(sinks), seed=9, **asked)
        self.session = Session(opening, "glow", RATE, 8, limits, self.ports, plain_intake())
        self._seq = self._sent = self._made = 0

    # ------------------------------------------------------------- the client

    def send(self, frames: int) -> None:
        """The next frames of the running utterance."""
        self.session.client.mel(mel_message(self._seq, self._sent, frames, self.generation), self.now_ns)
        self._seq, self._sent = self._seq + 1, self._sent + frames

    def end(self) -> None:
        self.session.client.end(wire.End("s", self.generation, self._sent), self.now_ns)

    def flush(self, fade_ms: int = 4) -> None:
        self.session.client.flush(wire.Flush("s", self.generation, fade_ms))

    def reset_counters(self) -> None:
        """Count from 0, for the next utterance."""
        self._seq = self._sent = self._made = 0

    # ------------------------------------------------------------- the engine

    def render(self, frames: int, last: bool = False) -> None:
        """The engine renders the next frames."""
        samples = frames * HOP
        self.session.engine.pcm(self.pcm(self._made, samples, last), self.now_ns)
        self._made += samples

    def pcm(self, first: int, samples: int, last: bool = False) -> ipc.Pcm:
        return ipc.Pcm(
            key=self.key, first_sample=first, samples=samples, last=last, frames_done=(first + samples) // HOP,
            t_client_ns=1, t_gateway_ns=self.now_ns - 5, t_engine_ns=self.now_ns - 4, t_due_ns=self.now_ns,
            t_start_ns=self.now_ns - 3, t_end_ns=self.now_ns - 1, batch=2, audio=ramp(first, samples),
            phase=phase_at((first + samples) // HOP),
        )  # fmt: skip

    # ------------------------------------------------------------ the speaker

    def play(self, samples: int) -> None:
        """The device has played the samples before this one."""
        self.session.sinks.position(ipc.Position(self.key, samples, self.now_ns))

    def play_all(self, samples: int) -> None:
        """The device has played the last sample."""
        self.session.sinks.played(ipc.Played(self.key, samples, self.now_ns))

    def underrun(self, sample: int, after_ns: int, by_device: bool = False) -> None:
        """The device had nothing to play for three samples."""
        self.session.sinks.underrun(ipc.Underrun(self.key, sample, 3, self.now_ns + after_ns, by_device))

    def faded(self, last_sample: int) -> None:
        """The device has faded out."""
        self.session.sinks.flushed(ipc.Flushed(self.key, last_sample, 0))

    # ------------------------------------------------------- what the session did

    @property
    def phase(self) -> Phase:
        return self.session.state.phase

    @property
    def generation(self) -> int:
        return self.session.state.utterance.number

    @property
    def key(self) -> int:
        return self.session.state.utterance.key

    def sent(self, kind: type[M], where: list[Message] | None = None) -> list[M]:
        """Everything of a type that was sent to the owner, or to another port."""
        return [message for message in (self.ports.owner if where is None else where) if isinstance(message, kind)]

    def only(self, kind: type[M], where: list[Message] | None = None) -> M:
        (found,) = self.sent(kind, where)
        return found

    @property
    def audio(self) -> Array:
        """All samples that the owner was sent; no chunk may be missing or repeated."""
        chunks = self.sent(wire.Audio)
        assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
        at = 0
        for chunk in chunks:
            assert chunk.first_sample == at
            at += chunk.samples
        return np.concatenate([np.zeros(0, np.float32), *(chunk.payload for chunk in chunks)])

    @property
    def ending(self) -> Message:
        """The one message that ended the first utterance."""
        endings = [message for message in self.ports.owner if is_ending(message)]
        assert len(endings) == 1, endings
        return endings[0]


def is_ending(message: Message) -> bool:
    """Whether a message ends an utterance."""
    return isinstance(message, wire.Played | wire.Flushed) or (isinstance(message, wire.Error) and message.fatal)
