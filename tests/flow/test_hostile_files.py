"""Hostile files: each is answered by a sentence, soon, and within a small multiple of its size."""

import io
import json
import pickle
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from glowd.flow import checkpoint
from glowd.flow.checkpoint import EMBEDDED, load_any, read_header
from glowd.flow.cli import main
from glowd.flow.importing.nvidia import import_checkpoint
from glowd.flow.recognition.kinds import recognise
from tests.harness.publishing import Geometry, Layout, as_module, glow_module, random_weights
from tests.harness.torch_files import zip_with_pickle
from tests.harness.voices import random_voice, tiny

SECONDS, LEAST_BYTES, MULTIPLE = 2.0, 100_000_000, 12
"""Processor time, and memory: so much in any case, or so many times the file."""


def answered(path: Path, how: Callable[[Path], Any]) -> str:
    """The sentence with which a file is refused, within time and memory."""
    before, began_s = peak_bytes(), time.process_time()
    with pytest.raises(ValueError, match=path.name) as caught:
        how(path)
    took_s, grown = time.process_time() - began_s, peak_bytes() - before
    said = str(caught.value)
    assert took_s < SECONDS, f"{took_s:.1f} s"
    assert grown < max(LEAST_BYTES, MULTIPLE * path.stat().st_size), f"{grown / 1e6:.0f} MB"
    assert len(said) < 2000
    return said


def peak_bytes() -> int:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """What is imported and prepared at first use is not the file's work."""
    load_any(EMBEDDED)


# Headers of safetensors files.


def metadata() -> dict[str, str]:
    with safe_open(EMBEDDED, "pt") as file:
        found: dict[str, str] = file.metadata()
    return found


def safetensors(path: Path, header: Any, data: bytes = b"\0\0\0\0") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DEEP = "[" * 100_000 + "]" * 100_000


def headers() -> dict[str, tuple[Any, str]]:
    meta = metadata()
    config = json.loads(meta["config"])

    def changed(**changes: Any) -> dict[str, Any]:
        return {"__metadata__": meta | {"config": json.dumps(config | changes)}, "x": ONE}

    def meta_with(**changes: str) -> dict[str, Any]:
        return {"__metadata__": meta | changes, "x": ONE}

    return {
        "weights missing": (changed(), "does not fit its own geometry: encoder.context.bias is missing"),
        "largest geometry": (
            changed(
                channels=1024, layers=10, flows=64, early_every=64, cond_channels=16384, look_ahead_frames=64, kernel=15
            ),
            "does not fit its own geometry",
        ),
        "deep config": (meta_with(config=DEEP), "it is nested too deep|config has"),
        "deep short config": (meta_with(config="[" * 30_000), "broken header: it is nested too deep"),
        "deep card": (meta_with(card=DEEP), "broken header: it is nested too deep"),
        "card of many levels": (meta_with(card='{"a":' * 50 + "1" + "}" * 50), "nested deeper than 16 levels"),
        "card that is a list": (meta_with(card="[1]"), "its card is no table"),
        "long config": (meta_with(config=" " * 70_000 + meta["config"]), "its config has .* characters; allowed"),
        "huge number": (meta_with(config='{"channels":' + "9" * 5000 + "}"), "broken header"),
        "NaN": (meta_with(config=json.dumps(config | {"sigma": float("nan")})), "sigma must be a number, .*; got nan"),
        "infinite": (meta_with(config=json.dumps(config | {"mel_std": float("inf")})), "mel_std must be"),
        "long value": (meta_with(config=json.dumps(config | {"squeeze": "x" * 50_000})), "squeeze must be one of"),
        "no config": ({"__metadata__": {"glowd_format": "2"}}, "broken header"),
        "other kind": (meta_with(kind="../../x"), "unknown kind of network"),
        "other version": (meta_with(glowd_format="2\x1b[31m"), r"has format 2\\x1b\[31m; this glowd reads"),
        "duplicate keys": (b'{"__metadata__":{"glowd_format":"2","config":"{}"},"x":1,"x":{}}', "without a shape"),
        "negative shape": ({"__metadata__": meta, "x": ONE | {"shape": [-1]}}, "an entry without a shape"),
        "offsets beyond the file": ({"__metadata__": meta, "x": ONE | {"data_offsets": [0, 1 << 60]}}, "is cut off"),
        "huge shape": (
            {"__metadata__": meta, "x": ONE | {"shape": [1 << 62, 1 << 62]}},
            "does not fit its own geometry",
        ),
        "metadata of other types": ({"__metadata__": {"glowd_format": ["2"]}}, "its metadata are no texts"),
        "many names": (
            {"__metadata__": meta, **{f"n{i}": ONE for i in range(8_000)}},
            "does not fit its own geometry",
        ),
        "billion laughs": (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "header is damaged|cut off|claims"),
    }


@pytest.mark.parametrize("name", headers())
def test_hostile_header_is_refused_by_every_reader(tmp_path: Path, name: str) -> None:
    header, said = headers()[name]
    path = safetensors(tmp_path / "h.safetensors", header)
    for how in (read_header, load_any):
        assert re.search(said, answered(path, how))


def test_overlapping_weights_are_refused(tmp_path: Path) -> None:
    voice = random_voice(tiny())
    table, at = {}, 0
    for name, value in voice.state_dict().items():
        table[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [0, 4 * value.numel()]}
        at = max(at, 4 * value.numel())
    meta = metadata() | {"config": json.dumps(voice.config.to_dict())}
    path = safetensors(tmp_path / "o.safetensors", {"__metadata__": meta, **table}, bytes(at))
    assert "is damaged" in answered(path, load_any)


def test_names_from_a_file_reach_no_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads(metadata()["config"]) | {"chan\x1b[31mnels\nOK: fine": 1}
    path = safetensors(
        tmp_path / "e.safetensors", {"__metadata__": metadata() | {"config": json.dumps(config)}, "x": ONE}
    )
    assert main(["card", str(path)]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and said.count("\n") == 1 and r"chan\x1b[31mnels\nOK: fine" in said
    voice = random_voice(tiny())
    checkpoint.save(path, voice.config, voice.state_dict(), {"na\x1b[1mme": {"x": "\x1b]0;title\x07"}, "curve": 3})
    assert main(["card", str(path)]) == 0
    assert "\x1b" not in (said := capsys.readouterr().out) and r"na\x1b[1mme" in said and r"\x1b]0;title\x07" in said


# PyTorch files.


def looped(path: Path) -> Path:
    with glow_module() as glow:
        model = as_module(glow, random_weights(Geometry()), Geometry(), Layout())
        model._modules["module"] = model
        del model._modules["WN"]
        torch.save(model, path)
    return path


def stored(path: Path, names: list[str], shape: tuple[int, ...], count: int) -> Path:
    """Weights that all are views of one storage of `count` numbers, as torch.save keeps them."""
    whole = torch.zeros(count)
    torch.save({name: whole.as_strided(shape, torch.empty(shape).stride()) for name in names}, path)
    return path


def test_module_that_is_its_own_child_ends(tmp_path: Path) -> None:
    assert "holds no WaveGlow" in answered(looped(tmp_path / "loop.pt"), import_checkpoint)


def test_thousands_of_flows_by_name_end(tmp_path: Path) -> None:
    names = [f"WN.{flow}.{part}" for flow in range(5000) for part in ("start.weight", "cond_layers.0.weight")]
    said = answered(stored(tmp_path / "flows.pt", names, (2, 2, 1), 4), import_checkpoint)
    assert "weights have" in said or "is missing" in said


def test_views_of_one_storage_take_no_memory(tmp_path: Path) -> None:
    """Each weight is as large as the whole file; together they would be 300 times as large."""
    names = [f"WN.{flow}.in_layers.{layer}.weight" for flow in range(30) for layer in range(10)]
    path = stored(tmp_path / "views.pt", ["WN.0.start.weight", *names], (1000, 1000, 1), 10**6)
    assert "bytes; allowed:" in answered(path, import_checkpoint)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("instructions", b"\x80\x02]" + b"N0" * 600_000 + b"N."),
        ("memo", b"\x80\x02" + b"".join(b"]q" + bytes([i % 256]) + b"0" for i in range(340_000)) + b"N."),
        (
            "doubling",
            b"\x80\x02]q\x00" + b"0" + b"".join(b"](h%ch%ceq%c0" % (i, i, i + 1) for i in range(200)) + b"h\xc8.",
        ),
    ],
)
def test_long_pickles_end(tmp_path: Path, name: str, program: bytes) -> None:
    answered(zip_with_pickle(tmp_path / f"{name}.pt", program), import_checkpoint)


def test_numpy_array_of_a_false_size_is_refused(tmp_path: Path) -> None:
    array = pickle.dumps({"WN.0.start.weight": np.zeros((2, 3), np.float32)}, 2)
    lies = array.replace(b"K\x02K\x03\x86", b"K\x02K\x7f\x86")
    assert lies != array
    assert "not what its shape needs" in answered(zip_with_pickle(tmp_path / "n.pt", lies), import_checkpoint)


# numpy's files, and archives.


def npy(shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy("(1 << 40,)"), "no header of a numpy array"),
        (npy(f"({2**50},)"), "claims .*cut off, or false"),
        (npy("(0, 3)").replace(b"<f4", b"|O8"), "Python objects|no header"),
        (b"\x93NUMPY\x07\x00", "no header of a numpy array"),
        (npy("(" * 5000), "no header"),
    ],
)
def test_false_numpy_header_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", content)
    assert re.search(said, answered(tmp_path / "w.npz", import_checkpoint))


def test_npz_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy("(7500000,)", bytes(30_000_000)))
    assert "bytes unpacked; allowed" in answered(tmp_path / "bomb.npz", import_checkpoint)


def test_zip_of_many_members_is_recognised_without_reading_them(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(18_000):
            archive.writestr(f"{'n' * 200}{number}", b"")
    (tmp_path / "many.pt").write_bytes(made.getvalue())
    assert "a table of contents of" in recognise(tmp_path / "many.pt").what
    assert "a table of contents of" in answered(tmp_path / "many.pt", import_checkpoint)
