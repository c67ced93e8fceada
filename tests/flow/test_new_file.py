"""A new file beside files of other people: claimed at once, named when complete, never in place of another."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from glowd.flow.new_file import NameTakenError, NewFile, claim_output, make_folder, reason


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def written(path: Path, content: bytes = b"ours", **given: bool | int) -> Path:
    with NewFile(path, **given) as new:  # type: ignore[arg-type]
        new.file.write(content)
    return path


def test_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "a.wav")
    new.file.write(b"ours")
    assert names(tmp_path) == ["a.wav.glowd-part"]
    new.publish()
    assert names(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == b"ours" and new.closed


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(1, "no links here")))
    new = NewFile(tmp_path / "a")
    new.file.write(b"ours")
    (tmp_path / "a").write_text("theirs")
    with pytest.raises(NameTakenError, match=r"made or changed by somebody else meanwhile; ours is .*a\.glowd-part"):
        new.publish()
    assert (tmp_path / "a").read_text() == "theirs" and (tmp_path / "a.glowd-part").read_bytes() == b"ours"


def test_file_system_without_links_gives_the_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(1, "no links here")))
    assert written(tmp_path / "a").read_bytes() == b"ours" and names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("dear"), "exists already; choose another name"),
        (lambda path: path.symlink_to("nowhere"), "is a link"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: os.mkfifo(path), "is no regular file"),
    ],
    ids=["file", "dangling link", "folder", "pipe"],
)
def test_taken_name_is_refused_at_the_claim(tmp_path: Path, make: object, said: str) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(NameTakenError, match=said):
        NewFile(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_name_that_is_claimed_is_refused_to_others(tmp_path: Path) -> None:
    first = NewFile(tmp_path / "a")
    with pytest.raises(NameTakenError, match="is being written already"):
        NewFile(tmp_path / "a")
    first.discard()
    assert written(tmp_path / "a").read_bytes() == b"ours"


def test_part_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal; from glowd.flow.new_file import NewFile; new = NewFile(pathlib.Path('a'));"
        "new.file.write(b'half'); new.file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, timeout=600)
    assert names(tmp_path) == ["a.glowd-part"]
    assert written(tmp_path / "a").read_bytes() == b"ours" and names(tmp_path) == ["a"]


def test_part_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear")
    (tmp_path / "a.glowd-part").symlink_to(tmp_path / "victim")
    (tmp_path / "b.glowd-part").symlink_to(tmp_path / "new")
    for name in ("a", "b"):
        with pytest.raises(NameTakenError, match="is in the way"):
            NewFile(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "dear" and not (tmp_path / "new").exists()


def test_hard_link_as_a_part_costs_its_other_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear")
    os.link(tmp_path / "victim", tmp_path / "a.glowd-part")
    written(tmp_path / "a")
    assert (tmp_path / "victim").read_text() == "dear"


def test_part_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.glowd-part").write_text("dear")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(NameTakenError, match="is in the way, and not ours"):
        NewFile(tmp_path / "a")
    assert (tmp_path / "a.glowd-part").read_text() == "dear"


def test_kept_part_stays_until_the_next_claim(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "a")
    new.file.write(b"half")
    new.keep()
    assert (tmp_path / "a.glowd-part").read_bytes() == b"half"
    written(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_empty_part_is_not_kept(tmp_path: Path) -> None:
    NewFile(tmp_path / "a").keep()
    assert names(tmp_path) == []


def test_exception_removes_the_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), NewFile(tmp_path / "a"):
        raise ValueError("x")
    assert names(tmp_path) == []


def test_replaced_is_the_file_of_the_claim_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    assert written(tmp_path / "a", replace=True).read_bytes() == b"ours"
    new = NewFile(tmp_path / "a", replace=True)
    (tmp_path / "a").write_text("theirs, and longer")
    with pytest.raises(NameTakenError, match="changed by somebody else"):
        new.publish()
    assert (tmp_path / "a").read_text() == "theirs, and longer"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "x" / "y")
        assert mode(written(tmp_path / "x" / "y" / "a")) == 0o600
        assert mode(written(tmp_path / "b", mode=0o644)) == 0o644
    finally:
        os.umask(before)
    assert mode(tmp_path / "x") == 0o700 and mode(tmp_path / "x" / "y") == 0o700


def test_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o755)
    make_folder(tmp_path / "x")
    assert mode(tmp_path / "x") == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        make_folder(tmp_path / "file")


def test_reason_is_a_sentence_of_either_error() -> None:
    assert reason(NameTakenError("a exists already")) == "a exists already"
    assert reason(OSError(28, "No space left on device")) == "No space left on device"


def test_output_of_a_command_replaces_only_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("dear")
    with pytest.raises(
        NameTakenError, match=r"exists already, and is a text .*choose another name, or give --overwrite"
    ):
        claim_output(tmp_path / "a", "audio", overwrite=False)
    (tmp_path / "b").write_bytes(b"RIFF")
    (tmp_path / "c").touch()
    for name, makes, overwrite in (
        ("a", "text", False),
        ("a", "audio", True),
        ("b", "audio", False),
        ("c", "audio", False),
    ):
        with claim_output(tmp_path / name, makes, overwrite) as new:
            new.file.write(b"ours")
    with pytest.raises(OSError, match=r"cannot write .*none/a: No such file or directory"):
        claim_output(tmp_path / "none" / "a", "text", overwrite=True)
    (tmp_path / "d").symlink_to("a")
    with pytest.raises(NameTakenError, match="is a link"):
        claim_output(tmp_path / "d", "text", overwrite=True)
    assert names(tmp_path) == ["a", "b", "c", "d"] and (tmp_path / "b").read_bytes() == b"ours"


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    new = NewFile(tmp_path / "a", replace=True)
    new.file.close()
    new.file = open("/dev/full", "w+b")  # noqa: PTH123, SIM115
    new.file.write(b"new")
    with pytest.raises(OSError, match="No space left"):
        new.publish()
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]
