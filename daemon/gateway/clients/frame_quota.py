"""How many frames each peer sends: the credit of one that has sent as many as it may is held back, and nothing is lost.

A peer has a vessel, which each frame fills and which loses as many frames a second as its quota says. While it holds those of
BURST_S or more, no stream of the peer is granted credit; then each gets its own again. So over any long time a peer sends what
its quota says, and ahead of that not more than the first credit of its streams.

Rules: no socket; the time is passed in. Frames are counted when they are accepted, so that new utterances, which begin with
credit, count as well. A quota of 0 is none.
"""

BURST_S = 1


class FrameQuota:
    """The vessels of all peers. Owner: the gateway's only thread."""

    def __init__(self) -> None:
        self._frames: dict[str, float] = {}
        self._a_second: dict[str, int] = {}
        self._at_ns = 0

    def __len__(self) -> int:
        return len(self._frames)

    def take(self, peer: str, a_second: int, frames: int) -> None:
        """A peer has sent frames."""
        if a_second:
            self._frames[peer] = self._frames.get(peer, 0.0) + frames
            self._a_second[peer] = a_second

    def is_full(self, peer: str, a_second: int) -> bool:
        """Whether the peer gets no credit now."""
        return bool(a_second) and self._frames.get(peer, 0.0) >= a_second * BURST_S

    def tick(self, now_ns: int) -> None:
        """Time has passed; peers that have sent nothing for long enough are forgotten."""
        passed_s, self._at_ns = (now_ns - self._at_ns) / 1e9 if self._at_ns else 0.0, now_ns
        for peer, a_second in list(self._a_second.items()):
            self._frames[peer] -= a_second * passed_s
            if self._frames[peer] <= 0:
                del self._frames[peer], self._a_second[peer]
