"""One utterance of a stream (a generation in the protocol): which frames and samples come next, and which frames are kept.

Rules: no socket, no clock, no sink, no phase. Frames come in without gaps and within the credit; samples come from the
engine without gaps. The frames that another engine would need to continue are kept, and no others. Another engine can start
only where the source phase of the voice is known: where a message with samples ended.

    frames  0 ......... replay_from ... resume_at ...... samples_made / hop ...... frames_in ....... granted_frames
            freed       |  context     |  rendered again |  not yet rendered     |  the client may send these
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.beginning import AT_FIRST_FRAME, Beginning, GoingOn, Mark
from glowd.daemon.gateway.streams.metrics import FOREIGN_CLOCK_NS
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Array

MAX_REFUSALS = 16
REMEMBERED = 256
"""How many of the newest messages with frames are remembered, to find pauses of the client."""
CREDIT_STEP_FRAMES = 4
"""Credit is granted in steps of this size at least: one message for each frame would be too many."""
CREDIT_STEPS = 8
"""The most steps of a window: one message for each chunk would be too many."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What a voice and the settings allow each utterance of a stream."""

    hop: int
    bins: int
    window_frames: int
    max_frames: int
    history_frames: int
    lead_frames: int
    look_ahead_frames: int
    chunk_frames: int
    whole_utterance: bool

    @property
    def credit_step_frames(self) -> int:
        """How many frames are granted together."""
        return min(max(CREDIT_STEP_FRAMES, self.window_frames // CREDIT_STEPS), self.window_frames)


class Sent(NamedTuple):
    """When the client sent frames, and whether it could send more: it had credit, and the utterance had not ended."""

    ns: int
    may_follow: bool


class Arrived(NamedTuple):
    """The newest message with frames: when it came, of which samples, and whether the client could have sent more."""

    ns: int = 0
    first_sample: int = 0
    end_sample: int = 0
    freely: bool = False


NOTHING_ARRIVED = Arrived()


class MelChunk(NamedTuple):
    """Frames as they arrived: mel [frames, bins]."""

    first_frame: int
    mel: Array
    t_client_ns: int
    t_gateway_ns: int

    @property
    def end_frame(self) -> int:
        """The frame after its last one."""
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


def sent_ns(mel: wire.Mel, received_ns: int) -> int:
    """When its client sent a mel, by its own clock if that is this machine's, else when it was received."""
    is_ours = mel.t_client_ns and abs(received_ns - mel.t_client_ns) < FOREIGN_CLOCK_NS
    return mel.t_client_ns if is_ours else received_ns


class Utterance:
    """Counters and kept frames of one utterance. Owner: the state of its session."""

    def __init__(
        self,
        number: int,
        key: int,
        limits: StreamLimits,
        going_on: GoingOn | None = None,
        beginning: Beginning = AT_FIRST_FRAME,
    ) -> None:
        """`going_on`: how it could go on in another gateway, if its client wants to know."""
        self.number, self.key, self.limits, self.beginning = number, key, limits, beginning
        self.goes_on = beginning != AT_FIRST_FRAME
        """Whether it began in a gateway that is lost."""
        self.next_seq = self.refusals = 0
        self.attempt = -1
        """How often it was started again in an engine; -1: it was not started yet."""
        self.frames_in, self.samples_made = beginning.first_frame, beginning.first_sample
        self.granted_frames = min(beginning.heard_samples // limits.hop + limits.window_frames, limits.max_frames)
        self._credit_step = limits.credit_step_frames
        self.arrived = NOTHING_ARRIVED
        self.total_frames: int | None = None
        """All frames of the utterance; None until the client has ended it."""
        self.ended_ns = 0
        """When its client ended it."""
        self._kept: deque[MelChunk] = deque()
        self._sent: deque[Sent] = deque(maxlen=REMEMBERED)
        self._rendered: deque[tuple[int, int]] = deque()  # (sample after the last, when it fell due), not delivered yet
        self._marks, self._going_on = deque([beginning.mark]), going_on
        self._refused_seq: int | None = None  # the newest refused mel since the last accepted one

    @property
    def kept_frames(self) -> int:
        """How many frames are kept."""
        return sum(len(chunk.mel) for chunk in self._kept)

    @property
    def renderable_frames(self) -> int:
        """Frames that an engine could render now and has not."""
        held_back = self.limits.look_ahead_frames if self.total_frames is None else 0
        return max(0, self.frames_in - held_back - self.samples_made // self.limits.hop)

    # --------------------------------------------------------------- frames in

    def take(self, mel: wire.Mel, now_ns: int, convert: Callable[[wire.Mel], Array] = as_sent) -> MelChunk:
        """Accept the next frames, converted to the voice's. Raises WireError, and then uses none of them."""
        if mel.bins != self.limits.bins:
            raise WireError(
                Code.BAD_SHAPE, f"mel has {mel.bins} bins; this stream's mels have {self.limits.bins}", mel.stream
            )
        if (mel.seq, mel.first_frame) != (self.next_seq, self.frames_in):
            raise WireError(
                Code.GAP,
                f"mel has seq {mel.seq} and first_frame {mel.first_frame}; "
                f"expected seq {self.next_seq} and first_frame {self.frames_in}",
                mel.stream,
            )
        end = self.frames_in + mel.frames
        if end > self.limits.max_frames:
            raise WireError(
                Code.TOO_LONG, f"{end} frames; an utterance may have at most {self.limits.max_frames}", mel.stream
            )
        if end > self.granted_frames:
            raise WireError(
                Code.OVER_CREDIT,
                f"{mel.frames} frames sent with credit for {self.granted_frames - self.frames_in}; wait for more credit",
                mel.stream,
            )
        chunk = MelChunk(self.frames_in, convert(mel), mel.t_client_ns, now_ns)
        self._kept.append(chunk)
        self.frames_in, self.next_seq, self._refused_seq = end, self.next_seq + 1, None
        may_follow = self.granted_frames - end >= max(mel.frames, CREDIT_STEP_FRAMES)
        self._sent.append(Sent(sent_ns(mel, now_ns), may_follow))
        self.arrived = Arrived(now_ns, chunk.first_frame * self.limits.hop, end * self.limits.hop, may_follow)
        return chunk

    def end(self, message: wire.End, now_ns: int) -> None:
        """The client has no more frames. Raises WireError unless all have arrived."""
        if message.total_frames != self.frames_in:
            text = f"end has total_frames {message.total_frames}; {self.frames_in} frames arrived"
            raise WireError(Code.GAP, text, message.stream)
        self.total_frames, self.ended_ns = self.frames_in, now_ns
        if self._sent:
            self._sent[-1] = self._sent[-1]._replace(may_follow=False)

    def refuse(self, mel: wire.Mel | None = None) -> bool:
        """Count a refused mel (None: it could not be decoded). Returns whether there were too many.

        A mel that was sent behind a refused one, and is a gap for that reason alone, does not count.
        """
        behind = mel is not None and self._refused_seq is not None and mel.seq > self._refused_seq
        self._refused_seq = max(self._refused_seq or 0, self.next_seq if mel is None else mel.seq)
        self.refusals += not behind
        return self.refusals > MAX_REFUSALS

    def withhold(self) -> None:
        """Take back the credit that it begins with: it will be due."""
        self.granted_frames = self.frames_in

    def due_credit(self, delivered_samples: int) -> int:
        """How many frames are to be granted after so many samples were delivered."""
        delivered = max(delivered_samples, self.beginning.heard_samples)
        used = self.frames_in if self.limits.whole_utterance else delivered // self.limits.hop
        due = min(used + self.limits.window_frames, self.limits.max_frames) - self.granted_frames
        rest = self.limits.max_frames - self.granted_frames  # may be less than a step
        return due if due >= min(self._credit_step, max(1, rest)) else 0

    def credit(self, delivered_samples: int) -> int:
        """The frames that are to be granted after so many samples were delivered; they count as granted now."""
        due = self.due_credit(delivered_samples)
        self.granted_frames += due
        return due

    # ------------------------------------------------------------- samples out

    def is_of_earlier_attempt(self, message: ipc.Pcm | ipc.Failed) -> bool:
        """Whether an engine has sent this before the utterance was started again."""
        return message.attempt not in (-1, self.attempt)

    def accept_pcm(self, pcm: ipc.Pcm) -> Array:
        """Accept samples of the engine; returns those that are new.

        Raises ValueError, and accepts none, if samples before them are missing, or if there cannot be so many, or if the last
        ones do not complete the utterance.
        """
        known = self.samples_made - pcm.first_sample
        if known < 0:
            raise ValueError(f"samples begin at {pcm.first_sample}, expected {self.samples_made}")
        end = pcm.first_sample + len(pcm.audio)
        expected = self.frames_in * self.limits.hop
        if end > expected or (pcm.last and end != expected):
            raise ValueError(f"samples end at {end}, expected {expected}")
        if pcm.last and self.total_frames is None:
            raise ValueError(f"samples end at {end}, and the client has not ended the utterance")
        fresh = pcm.audio[known:]
        self.samples_made += len(fresh)
        self._rendered.append((self.samples_made, pcm.t_due_ns))
        self._mark(Mark(pcm.frames_done, pcm.phase))
        return fresh

    # ---------------------------------------------------------------- replay

    def _mark(self, mark: Mark) -> None:
        if mark.frame > self._marks[-1].frame:
            self._marks.append(mark)

    def _newest_mark(self, latest_frame: int) -> Mark:
        """The newest one that is not later than a frame; the first one in any case."""
        found = self._marks[0]
        for mark in self._marks:
            if mark.frame > latest_frame:
                break
            found = mark
        return found

    @property
    def resume_at(self) -> Mark:
        """Where another engine must start to continue exactly."""
        return self._newest_mark(self.samples_made // self.limits.hop - self.limits.history_frames)

    def go_on_at(self, heard_samples: int) -> Mark:
        """Where an engine must start in another gateway, so that the listener hears what follows exactly."""
        if self._going_on is None:
            return self.resume_at
        return self._newest_mark(self._going_on.latest_start(heard_samples))

    @property
    def replay_from(self) -> int:
        """The first frame that another engine must be given."""
        return max(0, self.resume_at.frame - self.limits.lead_frames)

    def replay(self) -> list[MelChunk]:
        """The frames from `replay_from` on, in order."""
        begin, chunks = self.replay_from, []
        for chunk in self._kept:
            cut = max(0, begin - chunk.first_frame)
            if cut < len(chunk.mel):
                chunks.append(MelChunk(chunk.first_frame + cut, chunk.mel[cut:], chunk.t_client_ns, chunk.t_gateway_ns))
        return chunks

    def forget(self, delivered_samples: int, sounded_samples: int | None = None) -> None:
        """Free what neither a replay nor the cause of an underrun needs, after so many samples were delivered.

        `sounded_samples`: how many of them have sounded, if the device holds some.
        """
        resume_at = self.resume_at.frame
        while self._kept and self._kept[0].end_frame <= resume_at - self.limits.lead_frames:
            self._kept.popleft()
        while self._rendered and self._rendered[0][0] <= delivered_samples:
            self._rendered.popleft()
        heard = delivered_samples if sounded_samples is None else sounded_samples
        oldest = min(self.go_on_at(heard).frame, resume_at)
        while self._marks[0].frame < oldest:
            self._marks.popleft()

    def due_ns(self, sample: int) -> int | None:
        """When the engine could have begun with the call that makes a sample: None if it cannot yet, or it was long ago.

        An engine waits for a whole chunk of frames (scheduler.py); what it holds back for that, it could not have rendered.
        """
        for end_sample, due_ns in self._rendered:
            if end_sample > sample:
                return due_ns
        needed = sample // self.limits.hop + self.limits.look_ahead_frames + self.limits.chunk_frames
        for chunk in self._kept:
            if chunk.end_frame >= needed or chunk.end_frame == self.total_frames:
                return chunk.t_gateway_ns
        return None

    def client_pause_ns(self, begin_ns: int, end_ns: int) -> int:
        """The longest time within these two in which the client sent nothing, though it could."""
        longest_ns, since_ns, may_follow = 0, begin_ns, True
        for sent in (*self._sent, Sent(end_ns, False)):
            at_ns = min(sent.ns, end_ns)
            if may_follow and at_ns > since_ns:
                longest_ns = max(longest_ns, at_ns - since_ns)
            since_ns, may_follow = max(since_ns, at_ns), sent.may_follow
        return longest_ns
