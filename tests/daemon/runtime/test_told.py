"""What happens again and again is said once."""

from glowd.daemon.runtime.told import FIRST, MOST, Told


def test_reason_is_new_until_it_was_said() -> None:
    told = Told()
    assert [told.is_new("a", reason) for reason in ("x", "x", "y", "y", "", "", "y")] == [
        True, False, True, False, True, False, True,
    ]  # fmt: skip
    assert told.is_new("b", "y"), "another subject"
    assert not told.is_new("c", ""), "nothing was ever wrong"


def test_endless_subjects_are_said_ever_more_seldom() -> None:
    told = Told()
    said = [number for number in range(100_000) if told.is_new(number, "unknown")]
    assert said[:FIRST] == list(range(FIRST)) and len(said) < FIRST + 20
    assert len(told._reasons) == MOST
