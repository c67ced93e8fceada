"""The policy under overload: levels change in order and slowly, and always return to 0."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowd.daemon.engine.overload import HOLD_NS, MAX_HOLD_NS, PERIOD_NS, SETTLE_NS, Overload
from glowd.daemon.wire.telemetry import Degradation

S = 1_000_000_000
STEP_NS = S // 4


def run(overload: Overload, now_ns: int, until_ns: int, late: float = 0.0, chunks: int = 10) -> list[tuple[int, int]]:
    """Update every quarter of a second with `chunks`, a share of them late; the changes, as (time, level)."""
    changes = []
    while now_ns < until_ns:
        now_ns += STEP_NS
        for number in range(chunks):
            overload.add_chunk(5_000_000 if number < late * chunks else 0)
        if overload.update(now_ns):
            changes.append((now_ns, overload.level))
    return changes


def until_next_level(overload: Overload, now_ns: int, late: float) -> int:
    """The time at which the level changes."""
    while not run(overload, now_ns, now_ns + STEP_NS, late):
        now_ns += STEP_NS
    return now_ns + STEP_NS


def test_larger_chunks_come_before_refusing_new_streams() -> None:
    overload, now_ns = Overload(4, 16, 0), 0
    seen = [(overload.chunk_frames, overload.refuses)]
    while overload.level < overload.last_level:
        now_ns = until_next_level(overload, now_ns, late=1.0)
        seen.append((overload.chunk_frames, overload.refuses))
    assert seen == [(4, False), (8, False), (16, False), (16, True)]
    assert now_ns == 3 * SETTLE_NS, "each level has time to work before the next"
    assert run(overload, now_ns, now_ns + 30 * S, late=1.0) == []


@pytest.mark.parametrize(("chunk", "largest", "sizes"), [(4, 4, [4]), (3, 16, [3, 6, 12, 16]), (16, 16, [16])])
def test_chunks_double_up_to_the_largest(chunk: int, largest: int, sizes: list[int]) -> None:
    overload = Overload(chunk, largest, 0)
    found, now_ns = [overload.chunk_frames], 0
    while not overload.refuses:
        now_ns = until_next_level(overload, now_ns, late=1.0)
        found.append(overload.chunk_frames)
    assert found == [*sizes, sizes[-1]]


def test_describe_has_the_reason_and_since_when() -> None:
    overload = Overload(4, 16, 0)
    assert overload.describe() is None and overload.late_share is None
    ((at_ns, _),) = run(overload, 0, SETTLE_NS, late=0.6)
    assert overload.late_share == pytest.approx(0.6)
    reason = "60% of the chunks of 1 s were late, by up to 5 ms"
    assert overload.describe() == Degradation(
        level=1, last_level=3, chunk_frames=8, refuses=False, since_ns=at_ns, reason=reason
    )


def test_moderate_lateness_is_no_overload_and_idle_recovers() -> None:
    overload = Overload(4, 16, 0)
    assert run(overload, 0, 60 * S, late=0.4) == []
    run(overload, 60 * S, 62 * S, late=1.0)
    assert overload.level == 1
    assert run(overload, 62 * S, 90 * S, late=0.3) == [], "between the two shares the level stays"
    assert [level for _, level in run(overload, 90 * S, 90 * S + HOLD_NS, chunks=0)] == [0]
    assert overload.late_share is None, "without chunks there is no share"


def test_lasting_load_gets_a_lasting_level() -> None:
    """Small chunks are always too much and larger ones never: attempts to go back become rare."""
    overload, now_ns, raised = Overload(4, 16, 0), 0, list[int]()
    while now_ns < 600 * S:
        changes = run(overload, now_ns, now_ns + STEP_NS, late=1.0 if overload.level == 0 else 0.0)
        now_ns += STEP_NS
        raised += [at_ns for at_ns, level in changes if level == 1]
    gaps = [b - a for a, b in pairwise(raised)]
    assert gaps == sorted(gaps) and gaps[0] < 10 * S and gaps[-1] >= MAX_HOLD_NS
    assert run(overload, now_ns, now_ns + 2 * MAX_HOLD_NS)[-1][1] == 0
    # A long time later the history does not count: the first fall comes after the shortest hold again.
    now_ns += 10 * MAX_HOLD_NS
    up_ns = until_next_level(overload, now_ns, late=1.0)
    assert until_next_level(overload, up_ns, late=0.0) - up_ns == HOLD_NS


LOADS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 120), st.integers(0, 20)), max_size=30)


@given(LOADS, st.integers(1, 32), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_any_load_changes_levels_slowly_and_returns_to_0(
    loads: list[tuple[float, int, int]], chunk: int, doublings: int
) -> None:
    overload, now_ns, changes = Overload(chunk, chunk << doublings, 0), 0, [(0, 0)]
    for late, quarters, chunks in loads:
        changes += run(overload, now_ns, now_ns + quarters * STEP_NS, late, chunks)
        now_ns += quarters * STEP_NS
    calm_ns = now_ns
    changes += run(overload, now_ns, now_ns + (overload.last_level + 1) * (MAX_HOLD_NS + PERIOD_NS))
    for (before_ns, before), (at_ns, level) in pairwise(changes):
        assert abs(level - before) == 1 and 0 <= level <= overload.last_level
        assert at_ns - before_ns >= (SETTLE_NS if level > before else HOLD_NS)
    assert overload.level == 0 and overload.chunk_frames == chunk and overload.describe() is None
    after = [level for at_ns, level in changes if at_ns > calm_ns + PERIOD_NS]
    assert after == sorted(after, reverse=True), "without load the level only falls"
