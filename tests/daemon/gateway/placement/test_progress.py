"""Audio that does not move is noticed, and nothing else is taken for it."""

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.gateway.placement.progress import STALLED_NS
from glowd.daemon.runtime.status import AWAY, LOADING, RoleState
from glowd.daemon.wire import messages as wire
from tests.harness.router import HOP, RouterHarness, mel_message

STALL = "engine glow has made no audio for 6 s, and frames of 1 stream wait for it"


class Watched(RouterHarness):
    """A router whose progress is looked at, as the gateway's loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.connect(b"a")
        self.open(b"a", "talk")
        self.sent = 0

    def speak(self, chunks: int = 1, ended: bool = False) -> None:
        """Send chunks of 4 frames."""
        for _ in range(chunks):
            self.send(b"a", mel_message("talk", self.sent, 4 * self.sent))
            self.sent += 1
        if ended:
            self.send(b"a", wire.End("talk", 0, 4 * self.sent))

    def render(self, frames: int) -> None:
        """The engine renders so many more frames."""
        session = self.session("talk")
        utterance = session.state.utterance
        made = utterance.samples_made
        audio = np.zeros(frames * HOP, np.float32)
        pcm = ipc.Pcm(utterance.key, made, len(audio), frames_done=made // HOP + frames, audio=audio)
        self.progress.moved(self.engines["glow"])
        session.engine.pcm(pcm, self.now_ns)

    def look(self, after_s: float = 0.0) -> str:
        self.now_ns += int(after_s * 1e9)
        self.progress.look(self.engines.values(), self.now_ns)
        return self.progress.stall


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_frames_that_are_not_rendered_are_a_stall(watched: Watched) -> None:
    watched.speak(2)
    assert watched.look() == "" and watched.look(STALLED_NS / 1e9 - 0.1) == ""
    assert watched.look(1.1) == STALL
    watched.render(4)
    assert watched.look() == ""


def test_idle_stream_and_rendered_frames_are_no_stall(watched: Watched) -> None:
    assert watched.look() == "" and watched.look(100) == ""
    watched.speak(2)
    watched.look()
    watched.render(7)  # the look-ahead of a frame is held back until the end is known
    assert watched.look(100) == "" and watched.look(100) == ""


def test_last_frames_of_an_utterance_count(watched: Watched) -> None:
    watched.speak(2)
    watched.render(7)
    watched.speak(0, ended=True)
    watched.look()
    assert watched.look(6) == STALL


def test_engine_that_renders_slowly_moves(watched: Watched) -> None:
    watched.speak(8)
    for _ in range(4):
        assert watched.look(4) == ""
        watched.render(4)


def test_flushed_stream_is_no_work(watched: Watched) -> None:
    watched.speak(2)
    watched.look()
    watched.send(b"a", wire.Flush("talk", 0))
    assert watched.look(100) == ""


def test_engine_that_loads_is_no_stall_and_one_away_is(watched: Watched) -> None:
    watched.speak(2)
    watched.look()
    engine = watched.engines["glow"]
    engine.news = RoleState("engine:glow", LOADING, "it was killed")
    engine.last_seen_ns = None
    assert watched.look(6) == ""
    engine.news = RoleState("engine:glow", AWAY, "it was killed")
    assert watched.look() == STALL


def test_absence_of_the_gateway_is_no_stall(watched: Watched) -> None:
    watched.speak(2)
    watched.look()
    watched.progress.excuse()
    assert watched.look(100) == ""


def test_voice_of_whole_utterances_is_not_judged(watched: Watched) -> None:
    watched.engine_ready("slow", whole_utterance=True)
    watched.open(b"a", "long", voice="slow")
    watched.send(b"a", mel_message("long"))
    watched.look()
    assert watched.look(100) == ""


def test_stall_is_published_and_degrades_the_state(watched: Watched) -> None:
    watched.progress.stall = STALL
    found = watched.snapshots.take()
    assert found.stall == STALL and found.state != "ready"
