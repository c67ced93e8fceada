"""Whether a stream is heard later than it should be, and by how much it may be shortened.

Rules: arithmetic only; lengths are in samples of the stream. How it is shortened: time_compressor.py.

A gap delays all that follows it. The lead is the audio that waits in the speaker; while the client sends at the pace of
speech, the lead is the delay. So after a gap the stream is shortened while its lead is larger than it was before, and
never by more than the gaps were long: it is never heard earlier than it would have been without them.
"""

from collections import deque
from enum import StrEnum
from statistics import median

LEADS = 64  # about three seconds of chunks
PACED_S = 1.5
PACED = 1.2
"""A client that sends at most so many seconds of audio in a second speaks live."""


class Policy(StrEnum):
    """Which streams are shortened after a gap."""

    AUTO = "auto"
    """Those whose frames arrive at the pace of speech."""
    LIVE = "live"
    NEVER = "never"


class CatchUp:
    """How late one stream is. `least_lead`: what it keeps in any case. `max_lead`: what it is shortened to, 0: no limit."""

    def __init__(self, rate_hz: int, policy: Policy = Policy.AUTO, least_lead: int = 0, max_lead: int = 0) -> None:
        self._rate_hz, self._policy, self._least_lead, self._max_lead = rate_hz, policy, least_lead, max_lead
        self._usual = least_lead
        self._behind = 0  # the length of all gaps, without what was caught up
        self._leads: deque[int] = deque(maxlen=LEADS)  # of late, while nothing is behind
        self._arrivals: deque[tuple[int, int]] = deque()  # (ns, samples so far), of the last PACED_S and one before
        self._samples = 0
        self.skipped = 0
        """Samples that were left out."""

    def arrived(self, samples: int, t_ns: int) -> None:
        """So many samples were pushed, whose frames had reached the daemon at `t_ns` (0: not known)."""
        self._samples += samples
        if not t_ns:
            return
        self._arrivals.append((t_ns, self._samples))
        while len(self._arrivals) > 2 and t_ns - self._arrivals[1][0] > PACED_S * 1e9:
            self._arrivals.popleft()

    def note_lead(self, lead: int) -> None:
        """The stream is playing, and has this lead."""
        if not self._behind:
            self._leads.append(lead)

    def gap(self, missing: int) -> None:
        """The stream was silent for the time of so many samples, and continues."""
        if self._policy is Policy.LIVE or (self._policy is Policy.AUTO and self._is_paced):
            if self._leads:
                self._usual = max(self._least_lead, round(median(self._leads)))
                self._leads.clear()
            self._behind += missing

    def excess(self, lead: int) -> int:
        """By how many samples the stream may be shortened now."""
        if self._policy is Policy.NEVER:
            return 0
        excess = min(self._behind, lead - self._usual)
        if self._max_lead:
            excess = max(excess, lead - max(self._max_lead, self._least_lead))
        return max(0, excess)

    def skip(self, samples: int) -> None:
        """So many samples were left out."""
        self.skipped += samples
        self._behind = max(0, self._behind - samples)

    @property
    def _is_paced(self) -> bool:
        if len(self._arrivals) < 2:
            return False
        (begin_ns, begin), (end_ns, end) = self._arrivals[0], self._arrivals[-1]
        took_s = (end_ns - begin_ns) / 1e9
        return took_s >= PACED_S and (end - begin) / self._rate_hz <= PACED * took_s
