"""The token of the web process: private, lasting, and never weak."""

import stat
from pathlib import Path

import pytest

from glowd.daemon.web.token import FILE, TOKEN, web_token


def test_token_is_kept_in_a_private_file(tmp_path: Path) -> None:
    token = web_token(tmp_path)
    assert TOKEN.fullmatch(token) and web_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_two_run_directories_have_two_tokens(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert web_token(tmp_path) != web_token(tmp_path / "b")


@pytest.mark.parametrize("found", [b"", b"short", b"\xff\xfe" * 20, b"with a space in it", b"x" * 200])
def test_unusable_token_is_replaced(tmp_path: Path, found: bytes) -> None:
    (tmp_path / FILE).write_bytes(found)
    token = web_token(tmp_path)
    assert TOKEN.fullmatch(token) and (tmp_path / FILE).read_text().strip() == token


def test_chosen_token_is_used(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("chosen-by-the-user\n")
    assert web_token(tmp_path) == "chosen-by-the-user"


def test_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        web_token(tmp_path / "none")
