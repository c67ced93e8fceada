"""One declaration is the validator, the reader of tables and the command line; each refusal names what is wrong."""

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from glowd.flow.options import Option, OptionError, Options, add_arguments, given, option, options


@dataclass(frozen=True, slots=True)
class Inner(Options):
    rate_hz: int = option(22050, "samples in a second", min=1)


@dataclass(frozen=True, slots=True)
class Outer(Options):
    data: str = option(help="folder of clips", metavar="FOLDER")
    minutes: float = option(60.0, "length of the run", above=0)
    batch: int = option(12, "segments in a step", min=1, max=64)
    average: float = option(0.999, "share that is kept", min=0, below=1)
    precision: str = option("auto", "of the convolutions", choices=("auto", "bf16"))
    samples: int = option(2, "samples compared, 100% of them", choices=(1, 2), flag="--compare")
    devices: tuple[str, ...] = option(("cpu",), "where it runs", min=1, max=2)
    compile: bool = option(False, "compile the network")
    inner: Inner = field(default_factory=Inner)
    extra: Inner | None = None

    def check(self) -> None:
        self.require("batch", self.batch % self.samples == 0, f"a multiple of samples = {self.samples}")


GIVEN = {"data": "clips"}


def test_dict_round_trip_keeps_every_value() -> None:
    outer = Outer("clips", minutes=0.5, devices=("cuda:0", "cpu"), inner=Inner(16000), extra=Inner(8000))
    assert Outer.from_dict(outer.to_dict()) == outer
    assert Outer.from_dict(json.loads(json.dumps(outer.to_dict()))) == outer
    assert Outer.from_dict(Outer("clips").to_dict()) == Outer("clips")


def test_whole_number_is_accepted_for_a_float_and_converted() -> None:
    minutes = Outer.from_dict(GIVEN | {"minutes": 3}).minutes
    assert minutes == 3.0 and isinstance(minutes, float)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"minuts": 1}, "unknown setting run.minuts; did you mean run.minutes? (known: data, minutes, batch, "),
        ({"zzz": 1}, "unknown setting run.zzz (known: data, "),
        ({"minutes": 0}, "run.minutes must be a number, above 0; got 0.0"),
        ({"minutes": float("nan")}, "run.minutes must be a number, above 0; got nan"),
        ({"minutes": float("inf")}, "run.minutes must be a number, above 0; got inf"),
        ({"minutes": "1"}, "run.minutes must be a number, above 0; got '1'"),
        ({"batch": 0}, "run.batch must be a whole number, from 1 to 64; got 0"),
        ({"batch": 65}, "run.batch must be a whole number, from 1 to 64; got 65"),
        ({"batch": 2.0}, "run.batch must be a whole number, from 1 to 64; got 2.0"),
        ({"batch": True}, "run.batch must be a whole number, from 1 to 64; got true"),
        ({"batch": 3}, "run.batch must be a multiple of samples = 2; got 3"),
        ({"average": 1.0}, "run.average must be a number, at least 0 and below 1; got 1.0"),
        ({"average": -0.1}, "run.average must be a number, at least 0 and below 1; got -0.1"),
        ({"precision": "half"}, "run.precision must be one of auto, bf16; got 'half'"),
        ({"precision": 1}, "run.precision must be one of auto, bf16; got 1"),
        ({"samples": 3}, "run.samples must be one of 1, 2; got 3"),
        ({"devices": []}, "run.devices must be a list of texts in quotes, from 1 to 2 of them; got []"),
        ({"devices": ["a"] * 3}, "run.devices must be a list of texts in quotes, from 1 to 2 of them; got ['a', 'a', 'a']"),
        ({"devices": [0]}, "run.devices must be a list of texts in quotes, from 1 to 2 of them; got [0]"),
        ({"devices": "cpu"}, "run.devices must be a list of texts in quotes, from 1 to 2 of them; got 'cpu'"),
        ({"data": 3}, "run.data must be text in quotes; got 3"),
        ({"compile": 1}, "run.compile must be true or false; got 1"),
        ({"inner": 3}, "run.inner must be a table; got 3"),
        ({"inner": None}, "run.inner must be a table; got None"),
        ({"extra": 3}, "run.extra must be a table; got 3"),
        ({"extra": {"rate_hz": 0}}, "run.extra.rate_hz must be a whole number, at least 1; got 0"),
        ({"inner": {"rate": 1}}, "unknown setting run.inner.rate; did you mean run.inner.rate_hz? (known: rate_hz)"),
        ({"inner": {"rate_hz": 0}}, "run.inner.rate_hz must be a whole number, at least 1; got 0"),
    ],
)  # fmt: skip
def test_wrong_table_names_option_allowed_and_value(change: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        Outer.from_dict(GIVEN | change, "run.")
    assert str(caught.value).startswith(text)


def test_missing_option_is_named_with_its_help() -> None:
    with pytest.raises(OptionError, match=r"run\.data is missing: folder of clips"):
        Outer.from_dict({}, "run.")


@pytest.mark.parametrize(("where", "named"), [("run.", "run"), ("", "the settings")])
def test_what_is_not_a_table_is_refused(where: str, named: str) -> None:
    with pytest.raises(OptionError, match=f"^{named} must be a table; got 3$"):
        Outer.from_dict(3, where)


def test_constructor_refuses_what_a_table_may_not_hold() -> None:
    with pytest.raises(OptionError, match=r"^batch must be a whole number, from 1 to 64; got 0$"):
        Outer("clips", batch=0)
    with pytest.raises(OptionError, match=r"^inner must be a table; got 3$"):
        Outer("clips", inner=3)  # type: ignore[arg-type]


def parsed(*argv: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Arguments)
    return given(parser.parse_args(argv), Arguments)


@dataclass(frozen=True, slots=True)
class Arguments(Options):
    data: str = option(help="folder of clips", metavar="FOLDER")
    minutes: float = option(60.0, "length of the run", above=0)
    segment_samples: int = option(512, "length of a segment", min=1, flag="--segment")
    precision: str = option("auto", "of the convolutions", choices=("auto", "bf16"))
    share: float = option(0.5, "at most 100% of it", min=0, max=1)
    compile: bool = option(False, "compile the network")
    favour: tuple[str, ...] = option((), "folders drawn more often", metavar="FOLDER=WEIGHT")


def test_arguments_give_only_what_was_typed() -> None:
    assert parsed() == {}
    assert parsed("--data", "a", "--minutes", "3", "--segment", "256", "--compile") == {
        "data": "a", "minutes": 3.0, "segment_samples": 256, "compile": True,
    }  # fmt: skip
    assert parsed("--favour", "many=2.2", "few=1") == {"favour": ["many=2.2", "few=1"]}


def test_argument_help_has_help_range_and_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Arguments)
    text = " ".join(parser.format_help().split())
    for line in (
        "--data FOLDER folder of clips --",
        "--minutes MINUTES length of the run (above 0; default 60) --",
        "--segment SEGMENT_SAMPLES length of a segment (at least 1; default 512) --",
        "of the convolutions (one of auto, bf16; default auto) --",
        "at most 100% of it (from 0 to 1; default 0.5) --",
        "--compile compile the network",
    ):
        assert line in text


def test_options_are_listed_in_their_order() -> None:
    assert list(options(Inner).values()) == [
        Option(name="rate_hz", kind=int, optional=False, default=22050, help="samples in a second", min=1)
    ]
