"""The transition table: complete, and closed against everything that it does not name."""

import itertools

import pytest

from glowd.daemon.gateway.streams.phases import TRANSITIONS, Event, Phase, WrongPhaseError, next_phase


def test_every_phase_has_an_entry() -> None:
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_event_follows_the_table_or_is_refused(phase: Phase, event: Event) -> None:
    if event in TRANSITIONS[phase]:
        assert next_phase(phase, event) is TRANSITIONS[phase][event]
    else:
        with pytest.raises(WrongPhaseError, match=f"{event.name} cannot happen while {phase.name}; possible: "):
            next_phase(phase, event)


def test_every_phase_is_reached_from_idle() -> None:
    reached, todo = {Phase.IDLE}, [Phase.IDLE]
    while todo:
        new = set(TRANSITIONS[todo.pop()].values()) - reached
        reached |= new
        todo += new
    assert reached == set(Phase)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.CLOSED])
def test_open_phase_can_be_concluded_and_closed(phase: Phase) -> None:
    assert next_phase(phase, Event.CONCLUDE) is Phase.IDLE
    assert next_phase(phase, Event.CLOSE) is Phase.CLOSED


def test_closed_is_final() -> None:
    assert TRANSITIONS[Phase.CLOSED] == {}


def test_flush_never_leads_back_to_sending() -> None:
    for phase in (Phase.FLUSHING, Phase.SILENCED):
        assert set(TRANSITIONS[phase]) == {Event.CONCLUDE, Event.CLOSE}
