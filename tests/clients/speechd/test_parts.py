"""The parts of the module of speech-dispatcher: lines, settings, what is said, its files."""

import io
import tomllib
from pathlib import Path

import pytest

from glowd.clients.speechd import install
from glowd.clients.speechd.protocol import Command, Lines
from glowd.clients.speechd.settings import ModuleSettings, Parameters, SettingsError, read_settings
from glowd.clients.speechd.texts import said


def conversation(sent: bytes) -> tuple[list[Command], str]:
    """The commands in what speech-dispatcher sends, and what was said to it."""
    outgoing = io.BytesIO()
    commands = list(Lines(io.BytesIO(sent), outgoing).commands())
    return commands, outgoing.getvalue().decode()


def test_data_ends_at_a_dot_and_loses_its_stuffing() -> None:
    commands, replies = conversation(b"SPEAK\nOne\n..two\n...\n.\nSTOP\nDEBUG ON /tmp/x \n\nKEY\na")
    assert commands == [
        Command("SPEAK", "", ("One", ".two", "..")),
        Command("STOP"),
        Command("DEBUG", "ON /tmp/x"),
        Command("KEY", "", ("a",)),
    ]
    assert replies == "202 OK RECEIVING MESSAGE\n" * 2


def test_bytes_that_are_no_text_are_read() -> None:
    commands, _ = conversation(b"SPEAK\n\xff\xfe\r\n.\n")
    assert commands == [Command("SPEAK", "", ("\ufffd\ufffd\r",))]


def test_settings_of_a_command_are_names_and_values() -> None:
    assert Command("SET", "", ("rate=5", "x==")).settings() == {"rate": "5", "x": "="}
    with pytest.raises(ValueError, match="expected NAME=VALUE, got 'rate'"):
        Command("SET", "", ("rate",)).settings()


@pytest.mark.parametrize(
    ("settings", "rate", "semitones", "gain_db"),
    [
        ({}, 1.0, 0.0, 0.0),
        ({"rate": "100", "pitch": "100", "volume": "100"}, 3.0, 12.0, 0.0),
        ({"rate": "-100", "pitch": "-50", "volume": "0"}, 1 / 3, -6.0, -6.02),
        ({"volume": "-100"}, 1.0, 0.0, -60.0),
        ({"rate": "50", "voice": "MALE1", "pitch_range": "0"}, 3**0.5, 0.0, 0.0),
    ],
)
def test_parameters_become_a_manner(settings: dict[str, str], rate: float, semitones: float, gain_db: float) -> None:
    found = Parameters().with_settings(settings)
    assert found.manner.rate == pytest.approx(rate) and found.manner.semitones == pytest.approx(semitones)
    assert found.gain_db == pytest.approx(gain_db, abs=0.01)


@pytest.mark.parametrize("settings", [{"rate": "101"}, {"pitch": "x"}, {"volume": "-1e3"}])
def test_parameter_out_of_range_raises(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Parameters().with_settings(settings)


@pytest.mark.parametrize(
    ("name", "text", "parameters", "spoken"),
    [
        ("SPEAK", "<speak>Hello <mark name='__spd_0'/>there.</speak>", {}, "Hello there."),
        ("SPEAK", "a &lt; b", {}, "a &lt; b"),
        ("SPEAK", "<speak>?</speak>", {}, "question"),
        ("SPEAK", "<speak>Hi</speak>", {"spelling_mode": "on"}, "H, i"),
        ("CHAR", "space", {}, "space"),
        ("CHAR", "é", {}, "é"),
        ("CHAR", "B", {"cap_let_recogn": "none"}, "B"),
        ("CHAR", "B", {"cap_let_recogn": "spell"}, "capital b"),
        ("CHAR", "…", {}, "horizontal ellipsis"),
        ("CHAR", ";", {}, "semicolon"),
        ("CHAR", "question mark", {}, "question mark"),
        ("KEY", "control_alt_a", {}, "control alt a"),
        ("KEY", "KP_Enter", {}, "keypad Enter"),
        ("KEY", "_", {}, "underline"),
        ("SOUND_ICON", "window-close", {}, "window close"),
        ("SPEAK", "<speak> </speak>", {}, ""),
    ],
)
def test_message_is_said_by_its_kind(name: str, text: str, parameters: dict[str, str], spoken: str) -> None:
    assert said(Command(name, "", (text,)), Parameters().with_settings(parameters)) == spoken


def test_files_are_where_speech_dispatcher_looks(tmp_path: Path) -> None:
    assert install.places({"HOME": "/h"}) == install.Installed(
        Path("/h/.local/libexec/speech-dispatcher-modules/sd_glowd"),
        Path("/h/.config/speech-dispatcher/modules/glowd.conf"),
    )
    found = install.places({"XDG_DATA_HOME": f"{tmp_path}/share", "XDG_CONFIG_HOME": f"{tmp_path}/config"})
    install.install(found, {"tts": 'program:say "it" \\', "tts_voice": ""})
    assert found.program == tmp_path / "libexec/speech-dispatcher-modules/sd_glowd"
    assert found.config.stat().st_mode & 0o077 == 0, "an address may have a secret"
    assert found.program.stat().st_mode & 0o111 and "glowd.clients.speechd" in found.program.read_text()
    assert tomllib.loads(found.config.read_text()) == {"tts": 'program:say "it" \\'}
    assert read_settings(found.config) == ModuleSettings(tts='program:say "it" \\')


@pytest.mark.parametrize(
    ("text", "words"), [("tts = 3", "tts must be text"), ("tss = ''", "tss"), ("x", "Expected"), ("seed = -1", "seed")]
)
def test_settings_that_cannot_be_used_raise(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "glowd.conf").write_text(text)
    with pytest.raises(SettingsError, match=rf"glowd\.conf: .*{words}"):
        read_settings(tmp_path / "glowd.conf")


def test_missing_file_means_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none.conf") == read_settings(None) == ModuleSettings()
