"""The marks by which `make test-fast` leaves tests out."""

import pytest

from tests.conftest import MARKED, TESTS, marks_of


def test_every_marked_place_has_tests() -> None:
    files = [path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")]
    places = [place for group in MARKED.values() for place in group]
    assert [place for place in places if not any(file.startswith(place) for file in files)] == []


@pytest.mark.parametrize(
    ("path", "fixtures", "marks"),
    [
        ("daemon/gateway/test_gateway_losses.py", ["rig"], {"process"}),
        ("daemon/gateway/streams/test_session.py", [], set()),
        ("daemon/speaker/test_speaker_loss.py", ["own_pulse"], {"process", "device"}),
        ("flow/training/test_train.py", ["tmp_path"], {"slow"}),
        ("e2e/test_device.py", ["daemon", "pulse"], {"process", "slow", "device"}),
    ],
)
def test_marks_follow_from_path_and_fixtures(path: str, fixtures: list[str], marks: set[str]) -> None:
    assert marks_of(path, fixtures) == marks


def test_collected_tests_carry_their_marks(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        marks = marks_of(item.path.relative_to(TESTS).as_posix(), getattr(item, "fixturenames", ()))
        assert marks <= {mark.name for mark in item.iter_markers()}
