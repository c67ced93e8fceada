"""Whose gap it was: that of the client that paused, or of the engine that was late."""

from dataclasses import replace

import pytest

from glowd.daemon import ipc, wire
from tests.harness.session import HOP, RATE, SessionHarness, mel_message

MS = 1_000_000
GAP_MS = 1000


def after_a_gap(arrivals_ms: list[int], ended: bool = False, frames: int = 1, clock: str = "unknown") -> str:
    """The cause of a gap of a second at a sample that the engine had long been able to render.

    `arrivals_ms`: when messages of `frames` frames were sent after the gap had begun. `clock` "client": they are read at
    its end.
    """
    harness = SessionHarness("device")
    harness.send(10)
    gap_ns = harness.now_ns + 500 * MS
    for number, at_ms in enumerate(arrivals_ms, start=1):
        mel = mel_message(number, 10 + frames * (number - 1), frames)
        # Its client's clock is known, or (0) not: then it counts when it was received.
        sent = replace(mel, t_client_ns=0 if clock == "unknown" else gap_ns + at_ms * MS)
        received_ms = GAP_MS if clock == "client" else at_ms
        harness.session.client.mel(sent, gap_ns + received_ms * MS)
    if ended:
        harness.session.client.end(wire.End("s", 0, 10 + frames * len(arrivals_ms)), gap_ns)
    gap = ipc.Underrun(key=harness.key, sample=4 * HOP, missing_samples=GAP_MS * RATE // 1000, t_ns=gap_ns)
    harness.session.sinks.underrun(gap)
    counts = harness.session.state.meter.underruns
    (cause,) = [cause for cause in ("client", "engine", "device") if getattr(counts, cause)]
    return cause


@pytest.mark.parametrize(
    ("arrivals_ms", "cause"),
    [
        ([], "client"),  # it sent nothing more, though it had credit
        ([900], "client"),
        ([100, 200, 900], "client"),
        ([100, 300, 500, 700, 900], "engine"),
        ([450, 900], "engine"),
        ([2000], "client"),
    ],
)
@pytest.mark.parametrize("clock", ["unknown", "client"])
def test_gap_is_of_whom_most_of_it_was_waited_for(arrivals_ms: list[int], cause: str, clock: str) -> None:
    assert after_a_gap(arrivals_ms, clock=clock) == cause


def test_client_without_credit_did_not_pause() -> None:
    assert after_a_gap([10], frames=10) == "engine"


def test_client_that_has_sent_all_did_not_pause() -> None:
    assert after_a_gap([10], ended=True) == "engine"
