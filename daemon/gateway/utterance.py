"""One generation of a stream, from its first frame to its ending: what may come next, and what must be kept.

Rules: no socket, no clock, no sink. Frames come in without gaps and under credit; samples come from the engine without
gaps; the frames an engine that starts anew would need are held, and no others.

    frames  0 .............. replay_from ......... samples_made / hop ...... frames_in ....... granted_frames
            forgotten        |  held for a replay  |  not yet rendered     |  the client may send these
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Array

MAX_REFUSALS = 16
CREDIT_STEP_FRAMES = 4
"""Credit is returned in steps of this size, so that it does not cost a message for every frame."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a voice and the settings allow a generation."""

    hop: int
    bins: int
    window_frames: int
    max_frames: int
    history_frames: int
    look_ahead_frames: int
    whole_utterance: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames as they arrived: mel [n, bins]."""

    first_frame: int
    mel: Array
    t_client_ns: int
    t_gateway_ns: int

    @property
    def end_frame(self) -> int:
        """The frame after its last."""
        return self.first_frame + len(self.mel)

    def message(self, key: int) -> ipc.Frames:
        """For the engine."""
        frames, bins = self.mel.shape
        return ipc.Frames(
            key=key,
            first_frame=self.first_frame,
            frames=frames,
            bins=bins,
            t_client_ns=self.t_client_ns,
            t_gateway_ns=self.t_gateway_ns,
            mel=self.mel,
        )


def as_sent(mel: wire.Mel) -> Array:
    """The frames, not converted."""
    return mel.payload


class Generation:
    """Counters and kept frames of one generation. Owner: its session."""

    def __init__(self, number: int, key: int, terms: Terms) -> None:
        self.number, self.key, self.terms = number, key, terms
        self.frames_in = self.next_seq = self.refusals = 0
        self.granted_frames = min(terms.window_frames, terms.max_frames)
        self.ended = self.complete = False
        self.samples_made = 0
        self._held: deque[Chunk] = deque()
        self._refused_seq: int | None = None  # the newest refused mel since the last good one

    # --------------------------------------------------------------- frames in

    def take(self, mel: wire.Mel, now_ns: int, convert: Callable[[wire.Mel], Array] = as_sent) -> Chunk:
        """Accept the next frames, converted to the voice's. Raises WireError (nothing is used then)."""
        if mel.bins != self.terms.bins:
            raise WireError(
                Code.BAD_SHAPE, f"mel has {mel.bins} bins; this stream's have {self.terms.bins}", mel.stream
            )
        if self.ended:
            raise WireError(Code.WRONG_STATE, f"mel after end of generation {self.number}", mel.stream)
        if (mel.seq, mel.first_frame) != (self.next_seq, self.frames_in):
            raise WireError(
                Code.GAP,
                f"mel has seq {mel.seq} and first_frame {mel.first_frame}; "
                f"next are seq {self.next_seq} and first_frame {self.frames_in}",
                mel.stream,
            )
        end = self.frames_in + mel.frames
        if end > self.terms.max_frames:
            raise WireError(Code.TOO_LONG, f"{end} frames; an utterance may have {self.terms.max_frames}", mel.stream)
        if end > self.granted_frames:
            raise WireError(
                Code.OVER_CREDIT,
                f"{mel.frames} frames with credit for {self.granted_frames - self.frames_in}",
                mel.stream,
            )
        chunk = Chunk(self.frames_in, convert(mel), mel.t_client_ns, now_ns)
        self._held.append(chunk)
        self.frames_in, self.next_seq, self._refused_seq = end, self.next_seq + 1, None
        return chunk

    def end(self, message: wire.End) -> None:
        """No more frames. Raises WireError if they are not all here, or if the end was said before."""
        if self.ended:
            raise WireError(Code.WRONG_STATE, f"generation {self.number} has ended already", message.stream)
        if message.total_frames != self.frames_in:
            text = f"end says {message.total_frames} frames, {self.frames_in} arrived"
            raise WireError(Code.GAP, text, message.stream)
        self.ended = True

    def refuse(self, mel: wire.Mel | None = None) -> bool:
        """Count a refused mel (None: it could not be decoded); returns whether that was one too many.

        Those that were under way behind a refused one, and are gaps for that reason alone, do not count.
        """
        behind = mel is not None and self._refused_seq is not None and mel.seq > self._refused_seq
        self._refused_seq = max(self._refused_seq or 0, self.next_seq if mel is None else mel.seq)
        self.refusals += not behind
        return self.refusals > MAX_REFUSALS

    def credit(self, delivered_samples: int) -> int:
        """Frames to grant now that so many samples were delivered; they count as granted."""
        if self.ended:
            return 0
        used = self.frames_in if self.terms.whole_utterance else delivered_samples // self.terms.hop
        due = min(used + self.terms.window_frames, self.terms.max_frames) - self.granted_frames
        left = self.terms.max_frames - self.granted_frames  # the last frames may be fewer than a step
        if due < min(CREDIT_STEP_FRAMES, self.terms.window_frames, max(1, left)):
            return 0
        self.granted_frames += due
        return due

    # ------------------------------------------------------------- samples out

    def made(self, pcm: ipc.Pcm) -> Array:
        """Take samples of the engine: those that are new. Raises ValueError if samples are missing before them."""
        known = self.samples_made - pcm.first_sample
        if known < 0:
            raise ValueError(f"samples begin at {pcm.first_sample}, expected {self.samples_made}")
        fresh = pcm.audio[known:]
        self.samples_made += len(fresh)
        self.complete = self.complete or pcm.last
        if self.complete and self.samples_made != self.frames_in * self.terms.hop:
            raise ValueError(f"{self.samples_made} samples of {self.frames_in} frames of {self.terms.hop}")
        return fresh

    # ---------------------------------------------------------------- replay

    @property
    def replay_from(self) -> int:
        """The frame an engine that starts anew must begin with to go on exactly."""
        return max(0, self.samples_made // self.terms.hop - self.terms.history_frames)

    def replay(self) -> list[Chunk]:
        """The frames from `replay_from` on, in order."""
        begin, chunks = self.replay_from, []
        for chunk in self._held:
            cut = max(0, begin - chunk.first_frame)
            if cut < len(chunk.mel):
                chunks.append(Chunk(chunk.first_frame + cut, chunk.mel[cut:], chunk.t_client_ns, chunk.t_gateway_ns))
        return chunks

    def forget(self, delivered_samples: int) -> None:
        """Let go of frames that neither a replay nor the cause of an underrun will ask for."""
        begin = min(self.replay_from, delivered_samples // self.terms.hop)
        while self._held and self._held[0].end_frame <= begin:
            self._held.popleft()

    def arrival_ns(self, sample: int) -> int | None:
        """When the frames that sample needs had all arrived; None if they have not, or are forgotten."""
        frame = sample // self.terms.hop + self.terms.look_ahead_frames
        for chunk in self._held:
            if chunk.end_frame > frame or (self.ended and chunk.end_frame == self.frames_in):
                return chunk.t_gateway_ns
        return None
