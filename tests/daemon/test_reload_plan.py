"""What a reload changes, and what it cannot."""

from dataclasses import fields

from glowd.daemon.config import Config
from glowd.daemon.config_reader import load
from glowd.daemon.reload_plan import RELOADABLE, TABLES, Plan, plan_reload

A, B = "a={engine='rtisi-la'}", "b={engine='griffinlim'}"


def config(*settings: str, voices: str = f"{A},{B}") -> Config:
    return load(None, [f"voices={{{voices}}}", *settings])


def plan(old: Config, new: Config) -> Plan:
    found = plan_reload(old, new)
    assert set(found.config.voices) == set(new.voices)
    return found


def test_equal_configurations_are_an_empty_plan() -> None:
    found = plan(config(), config())
    assert found.is_empty and found.config == config() and not found.needs_restart


def test_limits_and_log_level_take_effect() -> None:
    new = config("server.max_streams=3", "log.level=debug", "speaker.prefill_ms=5", "supervisor.grace_s=2")
    found = plan(config(), new)
    assert found.config == new and not found.needs_restart and not found.is_empty
    assert found.settings == ("server.max_streams", "speaker.prefill_ms", "supervisor.grace_s", "log.level")


def test_setting_that_needs_a_restart_is_named_and_kept() -> None:
    new = config(
        "speaker.enabled=false", "web.enabled=true", "server.endpoint=tcp://127.0.0.1:9", "server.max_clients=2"
    )
    found = plan(config(), new)
    assert found.needs_restart == ("server.endpoint", "speaker.enabled", "web.enabled")
    assert found.settings == ("server.max_clients",)
    assert found.config == config("server.max_clients=2")


def test_dialled_engines_change_where_there_are_some_already() -> None:
    none, one = config(), config("server.dial_engines=['tcp://a:1']")
    two = config("server.dial_engines=['tcp://a:1','tcp://b:1']")
    assert plan(none, one).needs_restart == ("server.dial_engines",)
    assert plan(one, two).settings == ("server.dial_engines",) and not plan(one, two).needs_restart
    assert plan(two, none).config.server.dial_engines == ()


def test_voices_are_added_removed_and_changed() -> None:
    old = config(voices=f"{A},{B},c={{engine='rtisi-la'}}")
    new = config(voices=f"a={{engine='rtisi-la',iterations=8}},{B},d={{engine='rtisi-la'}}")
    found = plan(old, new)
    assert (found.added, found.removed, found.changed) == (("d",), ("c",), ("a",))
    assert list(found.config.engines) == ["a@1", "b", "d"]


def test_engine_of_another_kind_is_a_change() -> None:
    assert plan(config(voices=A), config(voices="a={engine='griffinlim'}")).changed == ("a",)


def test_default_voice_changes_without_new_engines() -> None:
    found = plan(config(), config(voices="a={engine='rtisi-la'},b={engine='griffinlim',default=true}"))
    assert found.settings == ("the default voice",) and not found.changed
    assert list(found.config.engines) == ["a", "b"] and found.config.default_voice == "b"


def test_name_of_an_engine_is_never_used_again() -> None:
    """The engines of before may still have streams."""
    first, names = config(), []
    for voices in (B, f"{A},{B}", B, f"{A},{B}", f"a={{engine='rtisi-la',iterations=9}},{B}"):
        first = plan(first, config(voices=voices)).config
        names += [name for name, spec in first.engines.items() if spec.voice == "a"]
    assert names == ["a@1", "a@2", "a@3"]


def test_settings_that_can_be_reloaded_exist() -> None:
    assert set(RELOADABLE) <= set(TABLES)
    for table, keys in RELOADABLE.items():
        assert set(keys or ()) <= {field.name for field in fields(getattr(config(), table))}


def test_number_of_cluster_engines_changes_without_new_engines() -> None:
    plan = plan_reload(load(), load(None, ["voices.glow.cluster_max=3", "voices.rtisi.cluster_gpus=0.5"]))
    assert plan.settings == ("voices.glow.cluster_max", "voices.rtisi.cluster_gpus") and not plan.changed
    assert plan.config.voices["glow"].cluster_max == 3 and plan.config.revisions == {}
