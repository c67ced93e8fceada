"""A stream whose sound follows that of another one of its client."""

from glowd.daemon import ipc, wire
from tests.harness.session import SessionHarness


def test_speaker_is_told_which_utterance_comes_first() -> None:
    harness = SessionHarness("device", after="before")
    harness.send(2)
    assert harness.only(ipc.Attach, harness.ports.speaker).after == 55
    other = SessionHarness("device", after="unknown")
    other.send(2)
    assert other.only(ipc.Attach, other.ports.speaker).after == 0


def test_utterance_that_the_device_dropped_is_flushed() -> None:
    harness = SessionHarness("device", after="before")
    harness.send(2)
    harness.faded(-1)
    assert harness.ending == wire.Flushed("s", 0, -1, 0)
    assert harness.sent(ipc.Drop, harness.ports.engine)
    assert harness.generation == 1
