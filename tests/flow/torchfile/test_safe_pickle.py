"""Hostile PyTorch files: no code in them is run, and the user is told what they asked for."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from glowd.flow.torchfile.reader import UnsafeCheckpoint, read_pt
from tests.harness.torch_files import zip_with_pickle

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __call__(self, *_: Any) -> None:
        """Only what can be called may be pickled as a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def hostile(sentinel: Path) -> dict[str, Any]:
    """Objects which, if anything in their pickles ran, would leave a file behind."""
    import builtins
    import functools
    import importlib
    import operator
    import os

    command, program = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w').close()"
    return {
        "system": Calls(os.system, command),
        "exec": Calls(exec, program),
        "eval": Calls(eval, f"open({str(sentinel)!r}, 'w')"),
        "open": Calls(open, str(sentinel), "w"),
        "getattr": Calls(getattr, Calls(importlib.import_module, "os"), "system"),
        "nested": Calls(Calls(getattr, Calls(builtins.__import__, "os"), "system"), command),
        "popen": Calls(subprocess.Popen, ["touch", str(sentinel)]),
        "partial": Calls(functools.partial, os.system, command),
        "methodcaller": Calls(Calls(operator.methodcaller, "system", command)),
        "torch load": Calls(torch.load, str(sentinel)),
        "torch hub": Calls(torch.hub.load, "somebody/something", "model"),
        "deep in a state dict": {"state_dict": OrderedDict(w=torch.ones(2), x=[(Calls(os.system, command),)])},
        "in a module": _module_with(Calls(os.system, command)),
        "tensor on a call": Calls(
            torch._utils._rebuild_tensor_v2, Calls(os.system, command), 0, (1,), (1,), False, None
        ),
    }


def _module_with(item: Any) -> torch.nn.Module:
    module = torch.nn.ReLU()
    module.item = item
    return module


@FORMS
@pytest.mark.parametrize("case", list(hostile(Path("x"))))
def test_code_is_refused_and_not_run(tmp_path: Path, case: str, zipped: bool) -> None:
    sentinel = tmp_path / "it-ran"
    torch.save(hostile(sentinel)[case], tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpoint, match=r"file\.pt: the file .*Nothing was run"):
        read_pt(tmp_path / "file.pt")
    assert not sentinel.exists()


def test_hostile_files_run_code_in_pickle(tmp_path: Path) -> None:
    """The sentinel is left when the same file is loaded carelessly, so the test above can fail."""
    sentinel = tmp_path / "it-ran"
    torch.save(hostile(sentinel)["system"], tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert sentinel.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02cbuiltins\neval\nU\x031+1\x85R.",
        b"\x80\x02c__builtin__\neval\nU\x031+1\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x10object.__class__\x93.",
        b"\x80\x02cos\nsystem\nU\x04true\x85\x81.",
        b"\x80\x02csubprocess\nPopen\nU\x04true\x85\x81.",
        b"\x80\x04\x8c\x05torch\x8c\x0bos.getlogin\x93)R.",
        b"\x80\x02ctorch.nn.functional\nrelu\n)R.",
        b"\x80\x02ccopyreg\n_reconstructor\ncos\nsystem\ncbuiltins\nobject\nN\x87R.",
    ],
)
def test_each_call_opcode_is_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(UnsafeCheckpoint):
        read_pt(zip_with_pickle(tmp_path / "file.pt", program))


def test_classes_only_record_their_calls(tmp_path: Path) -> None:
    """A subclass of dict with a constructor, items, `append` and state is data, whatever its own methods would do."""
    program = b"\x80\x02cevil.mod\nDict\nU\x01a\x85\x81q\x00U\x01k\x88sK\x07a}U\x0c__setstate__U\x01xsb."
    found = read_pt(zip_with_pickle(tmp_path / "file.pt", program))
    assert (found.module, found.name, found.args) == ("evil.mod", "Dict", ("a",))
    assert found.items == [("k", True), 7] and found.state == {"__setstate__": "x"}


def test_names_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_lying_around.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = read_pt(zip_with_pickle(tmp_path / "file.pt", b"\x80\x02cleft_lying_around\nThing\n)\x81."))
    assert found.name == "Thing" and "left_lying_around" not in sys.modules
