"""Where an utterance begins in this gateway: at its first frame, or where the gateway before it was lost.

Rules: no socket, no clock. The client states what the `position` of the lost gateway told it; it is checked here, because
samples made from a wrong place would not be those that the listener waits for. What cannot go on is a WireError.
"""

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from glowd.daemon import wire
from glowd.daemon.wire import Code, WireError

RUN_IN_MS = 200
"""How much earlier a resampler begins, so that its filter knows the past of the first sample that is needed."""


class Mark(NamedTuple):
    """A frame before which everything was rendered, and the phase of the voice's source there, in cycles."""

    frame: int
    phase: float | None
    """None: that of the seed."""


FIRST_MARK = Mark(0, None)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an utterance begins with. The default: nothing was sent, rendered or heard."""

    first_frame: int = 0
    """The first one that the client will send."""
    mark: Mark = FIRST_MARK
    """Where an engine starts."""
    first_sample: int = 0
    """The first one that the sinks are given."""
    heard_samples: int = 0
    """What a listener has heard already."""
    underruns: int = 0
    heard_ns: int = 0
    """When the next sample was to sound; 0: not known."""


AT_FIRST_FRAME = Beginning()


@dataclass(frozen=True, slots=True)
class GoingOn:
    """How utterances of a stream go on elsewhere: what its voice and its resampler need of the past."""

    hop: int
    history_frames: int
    lead_frames: int
    run_in_samples: int = 0
    aligned_to: int = 1
    """A resampler begins at a multiple of so many samples."""

    def first_sample(self, heard_samples: int) -> int:
        """The first sample that the sinks need again."""
        return max(0, heard_samples - self.run_in_samples) // self.aligned_to * self.aligned_to

    def latest_start(self, heard_samples: int) -> int:
        """The last frame at which an engine may start; at frame 0 it may in any case."""
        return max(0, self.first_sample(heard_samples) // self.hop - self.history_frames)

    def first_frame(self, start_frame: int) -> int:
        """The first frame that an engine needs which starts there."""
        return max(0, start_frame - self.lead_frames)

    def beginning(self, asked: wire.Open, max_frames: int) -> Beginning:
        """Where the utterance that `asked` names begins. Raises WireError if it cannot go on from there."""
        if not asked.key:
            return AT_FIRST_FRAME
        fits = (
            asked.samples <= max_frames * self.hop
            and asked.start_frame <= self.latest_start(asked.samples)
            and asked.first_frame == self.first_frame(asked.start_frame)
        )
        if not fits:
            raise WireError(
                Code.GAP,
                f"the utterance cannot go on after sample {asked.samples} from start_frame {asked.start_frame} and "
                f"first_frame {asked.first_frame}: this voice can start at frame {self.latest_start(asked.samples)} or "
                f"before, with {self.lead_frames} frames more; has it changed? Send the utterance from its beginning",
                asked.stream,
            )
        phase = None if asked.phase < 0 else asked.phase
        mark, first = Mark(asked.start_frame, phase), self.first_sample(asked.samples)
        return Beginning(asked.first_frame, mark, first, asked.samples, asked.underruns, asked.t_ns)


def run_in(from_hz: int, to_hz: int) -> tuple[int, int]:
    """Samples before the first needed one from which a resampler begins, and of which it begins at a multiple."""
    if to_hz in (0, from_hz):
        return 0, 1
    return RUN_IN_MS * from_hz // 1000, from_hz // gcd(from_hz, to_hz)
