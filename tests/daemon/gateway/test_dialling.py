"""Why an engine that is dialled is not used: known for each place, and logged once as long as it is the same."""

import logging

import pytest
import zmq

from glowd.daemon.gateway.dialling import FOREIGN, NO_KEY, NO_NAME, NOBODY, Dialling

PLACE, OTHER = "tcp://gpu:7801", "tcp://gpu:7802"
BEGUN, CONNECTED, RETRIED = zmq.EVENT_CONNECT_DELAYED, zmq.EVENT_CONNECTED, zmq.EVENT_CONNECT_RETRIED
GONE, REFUSED, BROKEN = zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
FD = 17


@pytest.fixture
def dialling() -> Dialling:
    made = Dialling()
    made.begin(PLACE)
    made.begin(OTHER)
    return made


def tell(dialling: Dialling, *events: int) -> str:
    for event in events:
        dialling.take(event, FD, PLACE)
    return dialling.why_not[PLACE]


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        ([RETRIED], NO_NAME),
        ([BEGUN, RETRIED], NOBODY),
        ([BEGUN, CONNECTED, REFUSED, GONE, RETRIED], NO_KEY),
        ([BEGUN, CONNECTED, BROKEN, GONE, RETRIED], FOREIGN),
        ([BEGUN, CONNECTED], ""),
    ],
)
def test_reason_is_told_and_logged_once(
    dialling: Dialling, caplog: pytest.LogCaptureFixture, attempt: list[int], why: str
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert tell(dialling, *attempt) == why
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ([f"the engine at {PLACE} is not used: {why}"] if why else [])
    assert dialling.why_not[OTHER] == ""


def test_place_that_is_given_up_is_dialled_anew(dialling: Dialling) -> None:
    """A program that is no engine: its connection ends, and ZeroMQ does not dial again."""
    tell(dialling, BEGUN, CONNECTED, GONE)
    assert dialling.take_given_up() == [], "it has only just ended"
    assert dialling.take_given_up() == [PLACE] and dialling.why_not[PLACE] == FOREIGN
    assert dialling.take_given_up() == []
    tell(dialling, BEGUN, CONNECTED, GONE)
    dialling.take_given_up()
    tell(dialling, RETRIED)
    assert dialling.take_given_up() == []


def test_engine_that_joins_has_no_reason_any_more(dialling: Dialling, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell(dialling, BEGUN, RETRIED, BEGUN, CONNECTED)
        dialling.heard(FD)
        dialling.heard(FD)
        assert dialling.why_not[PLACE] == ""
        assert tell(dialling, GONE, RETRIED) == "", "it was reached: it may be back at once"
        assert tell(dialling, BEGUN, RETRIED) == NOBODY
    said = [record.getMessage().removeprefix(f"the engine at {PLACE} is ") for record in caplog.records]
    assert said == [f"not used: {NOBODY}", "used", f"not used: {NOBODY}"]


def test_gateway_that_has_the_engine_is_named(dialling: Dialling, caplog: pytest.LogCaptureFixture) -> None:
    tell(dialling, BEGUN, CONNECTED)
    for _ in range(3):
        dialling.heard(FD, "the daemon desk:/run/glowd at 192.0.2.7")
    assert dialling.why_not == {
        PLACE: "the daemon desk:/run/glowd at 192.0.2.7 has it; this one waits until that is gone", OTHER: "",
    }  # fmt: skip
    assert len(caplog.records) == 1
    dialling.heard(-1, "x")  # of no connection
    dialling.take(RETRIED, 0, "tcp://*:7800")  # where engines dial
    dialling.end(PLACE)
    assert set(dialling.why_not) == {OTHER}
