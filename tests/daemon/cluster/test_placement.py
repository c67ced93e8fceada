"""Names of engines that Ray runs, and where it is to put them."""

from dataclasses import replace

import pytest

from glowd.daemon.cluster.naming import LONGEST_KEY, EngineName, digest_of, members, next_name
from glowd.daemon.cluster.placement import place_of
from glowd.daemon.config_voices import WaveGlowSettings
from glowd.flow.options import OptionError

NAME = EngineName("glow", 3, "1f0c9a")


def test_name_is_read_as_it_was_written() -> None:
    assert str(NAME) == "glow/ray-3-1f0c9a" and EngineName.parse(str(NAME)) == NAME
    assert EngineName.parse("glow/ray-3-1f0c9a-2") == NAME  # as the gateway calls a second one
    assert EngineName.parse("glow/0") is None and EngineName.parse("glow/one") is None


def test_key_of_a_long_voice_is_no_longer_than_allowed() -> None:
    assert NAME.key == "ray-3-1f0c9a.glow"
    assert len(replace(NAME, voice="v" * 64).key) == LONGEST_KEY


def test_next_name_takes_the_smallest_free_number() -> None:
    taken = [EngineName("glow", number, "1f0c9a") for number in (0, 2)] + [EngineName("other", 1, "1f0c9a")]
    assert next_name("glow", "aaaaaa", taken) == EngineName("glow", 1, "aaaaaa")


def test_digest_differs_with_what_an_engine_or_its_place_is() -> None:
    voice = WaveGlowSettings()
    same = [replace(voice, default=True), replace(voice, cluster_min=1, cluster_max=9)]
    other = [replace(voice, sigma=0.5), replace(voice, max_streams=3), replace(voice, cluster_gpus=1.0)]
    assert {digest_of(one) for one in same} == {digest_of(voice)}
    assert len({digest_of(one) for one in [voice, *other]}) == 4


def test_single_engine_is_placed_by_its_own_options() -> None:
    voice = WaveGlowSettings(cluster_cpus=2.0, cluster_gpus=0.25, cluster_labels=("gpu=h100", "rack=7"))
    place = place_of(NAME, voice)
    assert place.group is None
    assert place.options() == {"num_cpus": 2.0, "num_gpus": 0.25, "label_selector": {"gpu": "h100", "rack": "7"}}


def test_engines_of_one_host_share_a_placement_group() -> None:
    voice = WaveGlowSettings(cluster_gpus=0.5, cluster_per_host=2, cluster_labels=("gpu=h100",))
    groups = [place_of(replace(NAME, number=number), voice).group for number in range(4)]
    assert [group and group.bundle for group in groups] == [0, 1, 0, 1]
    assert groups[0] and groups[1] and groups[2]
    assert groups[0].name == groups[1].name != groups[2].name
    assert groups[0].bundles == ({"CPU": 1.0, "GPU": 0.5},) * 2
    assert members(groups[2].name) == {replace(NAME, number=2), replace(NAME, number=3)} and members("else") == set()
    assert "label_selector" not in place_of(NAME, voice).options()  # the group has it


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cluster_min": 2, "cluster_max": 1}, ["cluster_max", "at least cluster_min = 2"]),
        ({"cluster_gpus": 1.5}, ["cluster_gpus", "whole number"]),
        ({"cluster_labels": ("h100",)}, ["cluster_labels", "NAME=VALUE"]),
    ],
)
def test_settings_that_ray_would_refuse_are_refused(settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        WaveGlowSettings(**settings)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)
