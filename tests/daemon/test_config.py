"""config.toml documents the settings, so it is compared with them. Each error names what is wrong."""

import dataclasses
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from glowd.clients.connection import Connection
from glowd.daemon.config import PING_EVERY_S, Config, ConfigError
from glowd.daemon.config_reader import TABLES, as_text, from_text, load
from glowd.daemon.config_voices import GriffinLimSettings, RtisiSettings, WaveGlowSettings
from glowd.flow.options import options

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config.toml"


def write(directory: Path, text: str) -> Path:
    path = directory / "config.toml"
    path.write_text(text)
    return path


def documented() -> dict[str, dict[str, str]]:
    """The comment of each key of config.toml, by table."""
    tables: dict[str, dict[str, str]] = {}
    for line in SHIPPED.read_text().splitlines():
        if match := re.match(r"\[(.+)\]", line):
            keys = tables.setdefault(match[1], {})
        elif match := re.match(r"(\w+) = \S+ +# (.+)", line):
            keys[match[1]] = match[2]
        else:
            assert not line or line.startswith("#"), f"a setting without a comment: {line}"
    return tables


def test_config_toml_has_every_setting_with_its_help() -> None:
    tables: dict[str, Any] = {part.name: part.type for part in fields(Config) if part.name in TABLES}
    del tables["voices"]
    tables |= {"voices.glow": WaveGlowSettings, "voices.rtisi": RtisiSettings, "voices.griffin-lim": GriffinLimSettings}
    declared = {
        name: {key: declared.help for key, declared in options(settings).items()} for name, settings in tables.items()
    }
    assert documented() == declared
    assert all(len(help) >= 10 for keys in declared.values() for help in keys.values())


def test_config_toml_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load(SHIPPED) == load()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("server.max_strems=3", ["server.max_strems", "did you mean server.max_streams?", "idle_timeout_s"]),
        ("cluster.ray=auto", ["cluster.ray", "server.engines"]),
        ("cluster.ray=head", ["cluster.ray", "HOST:PORT"]),
        ("sever.max_streams=3", ["unknown setting sever", "did you mean server?"]),
        ("server.max_streams=0", ["server.max_streams must be a whole number, from 1 to 1024; got 0"]),
        ("server.max_streams=1.5", ["server.max_streams must be a whole number, from 1 to 1024; got 1.5"]),
        ("server.max_streams=true", ["server.max_streams must be a whole number, from 1 to 1024; got true"]),
        ("server.idle_timeout_s=nan", ["server.idle_timeout_s must be a number, from 0.1 to 86400; got nan"]),
        ("server.allow_remote=1", ["server.allow_remote must be true or false; got 1"]),
        ("server.endpoint=nonsense", ["server.endpoint must be ipc://PATH, tcp://HOST:PORT", "nonsense"]),
        ("server.endpoint=tcp://127.0.0.1:70000", ["server.endpoint must be ", "a port up to 65535", "got 'tcp://127.0.0.1:70000'"]),
        ('server={endpoint="tcp://0.0.0.0:5",plain_tcp=true}', ["must be an address of this", "allow_remote = true"]),
        ("server.endpoint=ipc:///" + "x" * 120, ["at most 107 bytes"]),
        ("server.max_chunk_frames=4096", ["server.max_chunk_frames must be at most 3276", "max_message_bytes", "got 4096"]),
        ("speaker.device=3", ["speaker.device must be text in quotes; got 3"]),
        ("speaker.block_ms=100", ["speaker.block_ms must be at most latency_ms = 60.0; got 100.0"]),
        ("speaker.rate_hz=50", ["speaker.rate_hz must be 0", "got 50"]),
        ("web.host=0.0.0.0", ["web.host must be 127.0.0.1, [::1] or localhost", "web.allow_remote = true; got '0.0.0.0'"]),
        ("web={allow_remote=true,host='a b'}", ["web.host must be NAME, IP or [IPv6]; got 'a b'"]),
        ("web.port=70000", ["web.port must be a whole number, from 0 to 65535; got 70000"]),
        ("wyoming.host=0.0.0.0", ["wyoming.host must be 127.0.0.1, [::1] or localhost", "wyoming.allow_remote = true"]),
        ("wyoming.languages=[]", ["wyoming.languages", "got []"]),
        ("log.level=loud", ["log.level must be one of debug, info, warning, error; got 'loud'"]),
        ("voices.glow.engine=tacotron", ["voices.glow.engine must be one of waveglow, rtisi-la, griffinlim; got 'tacotron'"]),
        ("voices.glow.backend=fast", ["voices.glow.backend", "auto, compiled, torch, triton", "'fast'"]),
        ("voices.glow.precision=half", ["voices.glow.precision", "auto, float32, bf16", "'half'"]),
        ("voices.glow.devices=['cpu', 'gpu']", ["are each auto, cpu, cuda or cuda:N; got ['cpu', 'gpu']"]),
        ("voices.glow.devices=['cuda:01']", ["got ['cuda:01']"]),
        ("voices.glow.devices=[]", ["voices.glow.devices is empty", 'set server.engines = "tcp://HOST:PORT"']),
        ("server.dial_engines=['ipc:///x']", ["server.dial_engines must be a list", "tcp://HOST:PORT"]),
        ("server.dial_engines=['tcp://*:7800']", ["server.dial_engines must be a list", "of a machine"]),
        ("server.dial_engines=['tcp://gpu:70000']", ["server.dial_engines must be a list", "a port up to 65535"]),
        ("server.engines=ipc:///x", ["server.engines must be tcp://HOST:PORT", "got 'ipc:///x'"]),
        (f"voices.glow.devices={['cpu'] * 65}", ["a list of texts in quotes, from 0 to 64 of them; got ['cpu', "]),
        ("voices.glow.devices=cpu", ["a list of texts in quotes, from 0 to 64 of them; got 'cpu'"]),
        ("voices.glow.devices=[0, 1]", ["a list of texts in quotes, from 0 to 64 of them; got [0, 1]"]),
        ("voices.glow.device=cuda:0", ["unknown setting voices.glow.device; did you mean voices.glow.devices? (known: "]),
        ("voices.rtisi.devices=['cuda']", ["voices.rtisi.devices must be a list whose entries are each cpu; got ['cuda']"]),
        ("voices.glow.chunk_frames=17", ["voices.glow.chunk_frames must be at most max_chunk_frames = 16; got 17"]),
        ("voices.glow.sigma=-0.5", ["voices.glow.sigma must be -1", "got -0.5"]),
        ("voices.rtisi.iterations=0", ["voices.rtisi.iterations must be a whole number, from 1 to 200; got 0"]),
        ("voices.rtisi.look_ahead_frames=17", ["voices.rtisi.look_ahead_frames must be a whole number, from 0 to 16; got 17"]),
        ("voices.rtisi.context_frames=4", ["unknown setting voices.rtisi.context_frames", "look_ahead_frames"]),
        ("voices.griffin-lim.sigma=1", ["unknown setting voices.griffin-lim.sigma", "iterations"]),
        ("voices.griffin-lim.default=true", ["only one voice can be the default; glow and griffin-lim have"]),
        ("voices.new.threads=1", ["voices.new.engine must be one of"]),
        ("voices.b ad.engine=griffinlim", ["the name of a voice must be 1 to 64 characters", "got 'b ad'"]),
        ("max_streams=4", ["--set must be TABLE.KEY=VALUE", "max_streams=4"]),
        ("server.max_streams", ["--set must be TABLE.KEY=VALUE"]),
        ("server.max_streams.x=1", ["server.max_streams must be a whole number"]),
    ],
)  # fmt: skip
def test_wrong_setting_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, [override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = 3", ["server must be a table; got 3"]),
        ("voices = 3", ["voices must be a table"]),
        ("[voices]", ["no voice is configured"]),
        ("[voices]\nglow = 3", ["voices.glow must be a table"]),
        ("[server\n", ["config.toml is not valid TOML"]),
        (
            '[server]\nendpoint = "ipc:///a"\ntelemetry = "ipc:///a"',
            ["server.telemetry must be another address than endpoint", "ipc:///a"],
        ),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)


def test_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML"):
        load(tmp_path / "binary.toml")


def test_omitted_keys_keep_defaults_and_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "[server]\nmax_streams = 4\n[speaker]\nlatency_ms = 80\n")
    config = load(path, ["server.max_streams=5", "speaker.device=USB", "log.level=debug"])
    assert (config.server.max_streams, config.server.max_clients) == (5, 64)
    assert (config.speaker.latency_ms, config.speaker.device, config.log.level) == (80.0, "USB", "debug")
    assert isinstance(config.speaker.latency_ms, float)
    assert list(config.voices) == ["glow", "rtisi", "griffin-lim"] and config.default_voice == "glow"


def test_file_with_voices_has_only_those(tmp_path: Path) -> None:
    path = write(tmp_path, '[voices.a]\nengine = "griffinlim"\n[voices.b]\nengine = "waveglow"\nsigma = 0.5\n')
    config = load(path)
    assert config.voices == {"a": GriffinLimSettings(), "b": WaveGlowSettings(sigma=0.5)}
    assert config.default_voice == "a"
    assert load(path, ["voices.b.default=true"]).default_voice == "b"


def test_override_replaces_a_whole_table() -> None:
    assert load(None, ['voices={only={engine="griffinlim"}}']).voices == {"only": GriffinLimSettings()}


def test_relative_paths_follow_the_file_or_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = '[server]\nrun_dir = "run"\n[voices.a]\nengine = "waveglow"\ncheckpoint = "a.safetensors"\n'
    config = load(write(tmp_path / "etc", text), ["files.directory=out"])
    assert config.server.run_dir == str(tmp_path / "etc/run")
    assert config.voices["a"].checkpoint == str(tmp_path / "etc/a.safetensors")  # type: ignore[attr-defined]
    assert config.files.directory == str(tmp_path / "here/out")
    assert load().files.directory == str(tmp_path / "here/recordings")


def test_each_device_has_an_engine_named_after_its_voice() -> None:
    config = load(None, ["voices.glow.devices=['cuda', 'cuda:1', 'cpu']", "voices.rtisi.devices=['cpu', 'cpu']"])
    assert [(spec.name, spec.voice, spec.device, spec.cuda) for spec in config.engines.values()] == [
        ("glow/0", "glow", "cuda:0", 0),
        ("glow/1", "glow", "cuda:1", 1),
        ("glow/2", "glow", "cpu", None),
        ("rtisi/0", "rtisi", "cpu", None),
        ("rtisi/1", "rtisi", "cpu", None),
        ("griffin-lim", "griffin-lim", "cpu", None),
    ]
    assert next((spec.name, spec.device) for spec in load().engines.values()) == ("glow", "auto")
    assert len(load(None, [f"voices.glow.devices={['cpu'] * 64}"]).engines) == 66


@pytest.mark.parametrize("other", ["devices=['cpu', 'cuda:1']", "precision=bf16"])
def test_compiled_backend_on_cuda_or_in_bf16_is_refused(other: str) -> None:
    allowed = (
        r"voices\.glow\.backend must be auto or torch .*, because compiled runs in float32 on a CPU; got 'compiled'"
    )
    with pytest.raises(ConfigError, match=allowed):
        load(None, ["voices.glow.backend=compiled", f"voices.glow.{other}"])


def test_triton_backend_on_a_cpu_is_refused() -> None:
    allowed = (
        r"voices\.glow\.backend must be auto or torch with devices = \['cuda:0', 'cpu'\], because triton runs on CUDA"
    )
    with pytest.raises(ConfigError, match=allowed):
        load(None, ["voices.glow.backend=triton", "voices.glow.devices=['cuda:0', 'cpu']"])


def test_wait_that_ends_before_a_hang_is_found_is_refused() -> None:
    match = (
        r"server\.role_wait_s must be at least supervisor\.watchdog_s \+ 5 = 15; got 12\. .* Raise role_wait_s or lower"
    )
    with pytest.raises(ConfigError, match=match):
        load(None, ["server.role_wait_s=12"])
    load(None, ["server.role_wait_s=12", "supervisor.watchdog_s=7"])
    with pytest.raises(ConfigError, match=r"watchdog_s \+ 5 = 45; got 30"):
        load(None, ["supervisor.watchdog_s=40"])


def test_idle_time_shorter_than_two_pings_is_refused() -> None:
    """A client that lives would be disconnected between two pings."""
    match = (
        r"server\.idle_timeout_s must be at least 10, because a client that is idle sends a ping every 5 s; got 9\.9"
    )
    with pytest.raises(ConfigError, match=match):
        load(None, ["server.idle_timeout_s=9.9"])
    assert load(None, ["server.idle_timeout_s=10"]).server.idle_timeout_s == 10
    assert PING_EVERY_S == Connection.PING_EVERY_S


def test_watchdog_shorter_than_a_report_is_refused() -> None:
    """A role reports once a second: with less it would be killed always."""
    with pytest.raises(ConfigError, match=r"supervisor\.watchdog_s"):
        load(None, ["supervisor.watchdog_s=1"])


def test_text_for_processes_is_read_as_the_same_settings(tmp_path: Path) -> None:
    path = write(
        tmp_path, "[voices.a]\nengine = 'rtisi-la'\n[voices.b]\nengine = 'waveglow'\ncheckpoint = 'x.safetensors'\n"
    )
    config = dataclasses.replace(load(path, ["web.hosts=['a.b']"]), revisions={"a": 2})
    assert from_text(as_text(config)) == config
    assert list(config.engines) == ["a@2", "b"]


def test_revisions_are_no_table_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting revisions"):
        load(write(tmp_path, "[revisions]\na = 1\n"))
