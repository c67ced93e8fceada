"""What the parts of a snapshot are made of."""

from glowd.daemon.gateway.snapshot import LOAD, combined


def test_engines_of_a_voice_are_told_as_one() -> None:
    slight, heavy = {"level": 1, "reason": "a"}, {"level": 3, "reason": "b"}
    one = {
        "streams": 2,
        "busy": 0.25,
        "stolen": None,
        "batches_per_s": 20.0,
        "audio_per_s": 2.0,
        "late": None,
        "level": 1,
    }
    two = {
        "streams": 1,
        "busy": 0.75,
        "stolen": 0.5,
        "batches_per_s": 10.0,
        "audio_per_s": 1.0,
        "late": 0.6,
        "level": 3,
    }
    assert combined([one | {"degraded": slight}, two | {"degraded": heavy}]) == {
        "streams": 3, "busy": 0.5, "stolen": 0.5, "batches_per_s": 30.0, "audio_per_s": 3.0, "late": 0.6, "level": 3,
        "degraded": heavy,
    }  # fmt: skip
    assert combined([one | {"degraded": slight}]) == one | {"degraded": slight}, "one alone is told as it is"
    assert combined([]) == combined([{}]) == dict.fromkeys(LOAD), "what is not known is not 0"
