"""How many engines a cluster should have, which are drained, and that a change loses no stream."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon.cluster.demand import Committed, Fixed, Predicted, Refusals, Rule, Seen, slope
from glowd.daemon.cluster.policy import (
    DRAINING,
    NOTHING_SEEN,
    Decision,
    EngineLoad,
    Limits,
    Memory,
    Observation,
    decide,
    engines_to_drain,
)
from glowd.daemon.runtime.status import LOADING, READY

LIMITS = Limits(floor=1, ceiling=8, hold_s=60.0, capacity=10)
LONG_AGO = Memory((), -math.inf)
"""Of somebody who has looked for long, and has nothing to remember."""


def engines(*streams: int, capacity: int = 10, state: str = READY) -> list[EngineLoad]:
    """Engines e0, e1, ... with so many streams each."""
    return [EngineLoad(name=f"e{n}", state=state, streams=count, capacity=capacity) for n, count in enumerate(streams)]


def at(
    now_s: float, found: Iterable[EngineLoad], refused: int = 0, start_s: float = 0.0, elsewhere: int = 0
) -> Observation:
    return Observation(now_s=now_s, engines=tuple(found), refused=refused, start_s=start_s, elsewhere=elsewhere)


def once(rule: Rule, found: Iterable[EngineLoad], refused: int = 0, limits: Limits = LIMITS) -> Decision:
    """The decision of somebody who has looked for long."""
    return decide(rule, limits, at(1000.0, found, refused), LONG_AGO)[0]


# ------------------------------------------------------------------ how many


@pytest.mark.parametrize(
    ("rule", "streams", "refused", "wanted"),
    [
        (Committed(0.7), (7, 7), 0, 2),
        (Committed(0.7), (8, 7), 0, 3),
        (Committed(0.7), (7, 7), 1, 3),
        (Refusals(1.25), (10, 10, 10, 10), 0, 4),
        (Refusals(1.25), (10, 10, 10, 10), 1, 5),
        (Refusals(1.25), (10, 10), 9, 3),
        (Refusals(1.25, low=0.5), (3, 3, 3), 0, 2),
        (Fixed(40), (0, 0), 0, 4),
        (Predicted(deviations=0, spare=0), (10, 6), 0, 2),
        (Predicted(deviations=1, spare=0), (10, 6), 0, 2),
        (Predicted(deviations=2, spare=0), (10, 6), 0, 3),
        (Predicted(deviations=2, spare=0.4), (10, 6), 0, 4),
    ],
)
def test_rule_says_how_many_engines(rule: Rule, streams: tuple[int, ...], refused: int, wanted: int) -> None:
    assert once(rule, engines(*streams), refused).wanted == wanted


def test_floor_and_ceiling_hold() -> None:
    assert once(Committed(), engines(0), limits=Limits(floor=3, ceiling=8)).start == 2
    found = engines(*[10] * 6)
    assert once(Committed(0.5), found) == Decision(wanted=8, start=2)


def test_prediction_looks_ahead_by_the_time_of_a_start() -> None:
    rule, memory = Predicted(window_s=300, deviations=0, spare=0), LONG_AGO
    for step in range(10):  # 0.1 streams more a second
        found = [replace(engines(10 + step)[0], capacity=40)]
        decision, memory = decide(rule, LIMITS, at(10.0 * step, found, start_s=240), memory)
    assert decision == Decision(wanted=2, start=1), "19 now, 43 in 240 s, at 40 for each engine"
    decision, _ = decide(rule, LIMITS, at(90.0, found, start_s=60), memory)
    assert decision.start == 0, "25 in 60 s"


def test_slope_is_that_of_the_line() -> None:
    seen = [Seen(float(t), 3 * t, t % 2) for t in (0, 2, 4, 6)]
    assert slope(seen) == pytest.approx(3.0)
    assert slope(seen[:1]) == 0.0


def test_first_engine_is_started_by_the_configured_capacity() -> None:
    assert once(Fixed(35), []) == Decision(wanted=4, start=4)
    assert once(Fixed(35), engines(0, capacity=20)) == Decision(wanted=2, start=1)


def test_engine_that_loads_is_not_started_twice() -> None:
    found = [*engines(10, 10), EngineLoad(name="new", state=LOADING)]
    assert once(Committed(0.7), found) == Decision(wanted=3)


# ------------------------------------------------------------------- fewer


def test_engines_are_drained_only_after_the_hold() -> None:
    memory, times = NOTHING_SEEN, list[float]()
    for now_s in range(0, 200, 10):
        streams = (7, 7) if now_s == 60 else (7, 0)
        decision, memory = decide(Committed(0.7), LIMITS, at(float(now_s), engines(*streams)), memory)
        times += [now_s] * bool(decision.drain)
    assert times[0] == 130, "two were needed at 60, and the hold is 60 s"


def test_whoever_begins_to_look_waits_for_the_hold() -> None:
    _, memory = decide(Committed(), LIMITS, at(0.0, engines(0, 0, 0)), NOTHING_SEEN)
    assert decide(Committed(), LIMITS, at(59.0, engines(0, 0, 0)), memory)[0].drain == ()
    assert decide(Committed(), LIMITS, at(60.0, engines(0, 0, 0)), memory)[0].drain == ("e2", "e1")


def test_memory_does_not_grow() -> None:
    memory, rule = NOTHING_SEEN, Predicted(window_s=120)
    for now_s in range(0, 10_000, 10):
        _, memory = decide(rule, LIMITS, at(float(now_s), engines(3)), memory)
    assert len(memory.seen) == 13


def test_fewest_streams_go_first_and_the_newest_of_equals() -> None:
    assert engines_to_drain(engines(3, 1, 4, 1), 3) == ("e3", "e1", "e0")
    loading = EngineLoad(name="new", state=LOADING)
    assert engines_to_drain([loading, *engines(0, 9)], 1) == ("new",), "what is warm stays"


def test_engine_is_drained_only_if_the_others_have_room() -> None:
    assert engines_to_drain(engines(6, 5), 1) == ()
    assert engines_to_drain(engines(5, 5), 1) == ("e1",)
    leaving = [EngineLoad(name="old", state=DRAINING, streams=1, capacity=10)]
    assert engines_to_drain([*leaving, *engines(5, 5)], 1) == (), "the streams of one that drains need room, too"


def test_streams_that_will_come_from_elsewhere_need_room() -> None:
    def decided(elsewhere: int, rule: Rule) -> Decision:
        return decide(rule, LIMITS, at(1000.0, engines(3, 2, 2), elsewhere=elsewhere), LONG_AGO)[0]

    assert decided(0, Committed(0.7)).wanted == 1 and decided(8, Committed(0.7)).wanted == 3
    assert decided(14, Committed(0.7)).start == 0 and decided(15, Committed(0.7)).start == 1
    assert decided(14, Fixed(10)).drain == () and decided(13, Fixed(10)).drain == ("e2",)


def test_capacity_that_still_loads_is_no_room() -> None:
    found = [*engines(6, 6), EngineLoad(name="new", state=LOADING, capacity=10)]
    assert engines_to_drain(found, 2) == ("new",)


def test_drained_engine_stops_when_its_last_stream_is_gone() -> None:
    draining = [EngineLoad(name="old", state=DRAINING, streams=2, capacity=10)]
    assert once(Committed(), [*engines(5), *draining]).stop == ()
    assert once(Committed(), [*engines(5), replace(draining[0], streams=0)]).stop == ("old",)


def test_draining_engine_is_taken_back_before_one_starts() -> None:
    old = EngineLoad(name="old", state=DRAINING, streams=0, capacity=10)
    older = replace(old, name="older", streams=4)
    decision = once(Committed(0.7), [older, old, *engines(10)])
    assert decision == Decision(wanted=2, take_back=("older",), stop=("old",))
    assert once(Committed(0.7), [older, old, *engines(10, 10, 10)]).start == 0


def test_draining_engines_count_for_the_ceiling() -> None:
    old = [EngineLoad(name="old", state=DRAINING, streams=4, capacity=10)]
    decision = once(Committed(0.5), [*old, *engines(*[10] * 7)])
    assert (decision.start, decision.take_back) == (0, ("old",))


# ------------------------------------------------------------------ mistakes


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="engine e: state must be one of loading, ready, draining; got 'away'"):
        EngineLoad(name="e", state="away")
    with pytest.raises(ValueError, match="got floor 3, ceiling 2"):
        Limits(floor=3, ceiling=2)


# ---------------------------------------------------------------- whatever comes

RULES = st.sampled_from([Committed(0.7), Committed(1.0), Refusals(), Predicted(), Fixed(30)])
LOADS = st.lists(
    st.builds(
        lambda state, capacity, share: (state, capacity, round(share * capacity) if state != LOADING else 0),
        st.sampled_from([LOADING, READY, DRAINING]), st.integers(1, 20), st.floats(0, 1),
    ),
    max_size=8,
)  # fmt: skip


@given(RULES, LOADS, st.integers(0, 30), st.integers(0, 3))
def test_decision_keeps_its_promises(rule: Rule, loads: list[tuple[str, int, int]], refused: int, floor: int) -> None:
    found = [
        EngineLoad(name=f"e{n}", state=state, streams=streams, capacity=capacity)
        for n, (state, capacity, streams) in enumerate(loads)
    ]
    decision = once(rule, found, refused, Limits(floor=floor, ceiling=8, hold_s=60.0, capacity=10))
    state = {engine.name: engine.state for engine in found}
    streams = {engine.name: engine.streams for engine in found}
    assert len(found) + decision.start <= 8 and floor <= decision.wanted <= 8
    assert all(state[name] == DRAINING for name in (*decision.take_back, *decision.stop))
    assert all(state[name] != DRAINING for name in decision.drain)
    assert all(streams[name] == 0 for name in decision.stop)
    assert not set(decision.take_back) & set(decision.stop)
    assert not (decision.drain and (decision.start or decision.take_back))
    if decision.drain:
        stay = [e for e in found if e.state == READY and e.name not in decision.drain]
        assert sum(e.capacity for e in stay) >= sum(streams.values()), "the streams that move have room"
