"""Where `glowd engine` has the address from that it joins: a secret, which is shown to nobody."""

from pathlib import Path

import pytest

from glowd.daemon import app
from glowd.daemon.config import ConfigError
from glowd.daemon.engine.command import join_address

SECRET, SERVER = "ab" * 32, "cd" * 32
ADDRESS = f"glowd://pool:{SECRET}@10.0.0.5:7800#{SERVER}"


def private(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "join"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_address_is_in_a_variable_a_file_or_an_argument(tmp_path: Path) -> None:
    file = private(tmp_path, ADDRESS + "\n")
    found = [join_address("", ADDRESS), join_address(f"@{file}", ""), join_address(ADDRESS, "glowd://other")]
    assert [address.url for address in found] == ["tcp://10.0.0.5:7800"] * 3
    assert {address.secret.hex() for address in found} == {SECRET}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path, ADDRESS, mode)
    with pytest.raises(
        ConfigError, match=rf"^--join: {file} must belong to this user, and to nobody else: chmod 600 {file}"
    ):
        join_address(f"@{file}", "")


REFUSED = {
    "nothing": ("", "", "GLOWD_JOIN must be the address that .* printed .*; it is empty"),
    "without keys": ("tcp://10.0.0.5:7800", "", "--join must be the address .*; it is not such an address"),
    "cut": ("", ADDRESS[:-1], "GLOWD_JOIN: the address must be glowd://NAME:SECRET@HOST:PORT#SERVERKEY, whole"),
    "no file": ("@/nowhere/join", "", "--join: cannot read /nowhere/join: .*No such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_address_is_named_by_its_source_alone(case: str) -> None:
    argument, variable, said = REFUSED[case]
    with pytest.raises(ConfigError, match=said) as caught:
        join_address(argument, variable)
    assert SECRET not in str(caught.value)


def test_engine_without_an_address_says_where_it_may_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOWD_JOIN", raising=False)
    assert app.main(["engine", "--voice", "glow"]) == 2
    assert "GLOWD_JOIN must be the address that `glowctl key new NAME --role engine` printed" in capsys.readouterr().err
    assert app.main(["engine"]) == 2
    assert "needs --voice NAME, and the address to join in GLOWD_JOIN or --join @FILE" in capsys.readouterr().err
