"""PyTorch files of every form are read as numpy arrays; damaged ones are refused."""

import io
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glowd.flow.torchfile.reader import CheckpointFileError, Opaque, read_pt
from glowd.flow.torchfile.safe_pickle import GlobalName
from tests.harness.torch_files import zip_with_pickle

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def save(content: Any, zipped: bool = True) -> Path:
        path = tmp_path / "file.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return path

    return save


# What is read.


@FORMS
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_tensor_of_each_type_round_trips(write: Callable[..., Path], zipped: bool, dtype: str) -> None:
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2 * 7).to(getattr(torch, dtype))
    found = read_pt(write({"t": tensor}, zipped))["t"]
    np.testing.assert_array_equal(found, tensor.numpy())
    assert found.dtype == tensor.numpy().dtype
    assert not found.flags.writeable


@FORMS
def test_bfloat16_becomes_float32(write: Callable[..., Path], zipped: bool) -> None:
    tensor = torch.tensor([1.0, -2.5, 3.140625, float("inf"), 1e-30], dtype=torch.bfloat16)
    found = read_pt(write(tensor, zipped))
    np.testing.assert_array_equal(found, tensor.float().numpy())
    assert found.dtype == np.float32


@FORMS
def test_views_share_storage_and_keep_strides(write: Callable[..., Path], zipped: bool) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    views = {
        "base": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2, 3],
        "none": base[:0],
        "one": base[1, 2, 3],
    }
    found = read_pt(write(views, zipped))
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view.numpy())


@FORMS
def test_containers_scalars_and_parameters_round_trip(write: Callable[..., Path], zipped: bool) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "kept with the parameter"  # type: ignore[attr-defined]
    content = {
        "list": [1, -2.5, None, True, "text", b"bytes", (2**70, {"set"})],
        "parameter": parameter,
        "numpy": [np.float64(2.5), np.int32(-3), np.bool_(True)],
        "torch": [torch.Size([2, 3]), torch.device("cuda:1"), torch.float16],
        "ordered": OrderedDict(a=1),
    }
    found = read_pt(write(content, zipped))
    assert found["list"] == content["list"]
    np.testing.assert_array_equal(found["parameter"], np.ones(3))
    assert found["numpy"] == [2.5, -3, True]
    assert found["torch"] == [(2, 3), "cuda:1", GlobalName("torch", "float16")]
    assert found["ordered"] == {"a": 1}


@FORMS
def test_training_state_is_read(write: Callable[..., Path], zipped: bool) -> None:
    layer = torch.nn.utils.weight_norm(torch.nn.Conv1d(2, 3, 1))
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2, 4)).sum().backward()
    optimizer.step()
    rng = np.random.RandomState(3).get_state()
    found = read_pt(write({"optimizer": optimizer.state_dict(), "rng": rng, "weights": layer.state_dict()}, zipped))
    moment = optimizer.state_dict()["state"][0]["exp_avg"]
    np.testing.assert_array_equal(found["optimizer"]["state"][0]["exp_avg"], moment.numpy())
    assert found["weights"].keys() == layer.state_dict().keys()


@FORMS
def test_module_becomes_a_record_of_its_state(write: Callable[..., Path], zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv1d(2, 3, 1)), torch.nn.ReLU())
    found = read_pt(write(module, zipped))
    assert isinstance(found, Opaque) and (found.module, found.name) == ("torch.nn.modules.container", "Sequential")
    convolution = found.state["_modules"]["0"]
    direction = module.state_dict()["0.weight_v"].numpy()
    np.testing.assert_array_equal(convolution.state["_parameters"]["weight_v"], direction)
    (hook,) = convolution.state["_forward_pre_hooks"].values()
    assert hook.name == "WeightNorm" and hook.state == {"name": "weight", "dim": 0}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    content = {"a": [1, -300, 2**40, 2**80, 1.5, None, False, ("x", (), "ü" * 300)], "b": {1, 2}, "c": frozenset([3])}
    program = pickle.dumps(content, protocol)
    assert read_pt(zip_with_pickle(tmp_path / "file.pt", program)) == content


def test_big_endian_file_is_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    with zipfile.ZipFile(write(torch.arange(5, dtype=torch.int32))) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        for name, content in records.items():
            swapped = np.frombuffer(content, "<i4").astype(">i4").tobytes() if name.endswith("data/0") else content
            archive.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    np.testing.assert_array_equal(read_pt(tmp_path / "big.pt"), np.arange(5))


def test_reading_needs_no_torch(write: Callable[..., Path]) -> None:
    path = write({"mel": torch.ones(2, 3)})
    program = (
        f"import sys, glowd.flow.torchfile.reader as p; p.read_pt({str(path)!r}); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


# What is refused: damage and false sizes.


def test_other_kind_of_file_is_named(tmp_path: Path) -> None:
    cases = {
        b"": "empty",
        b"hello world" * 99: "a text that begins with .*; expected a file that torch.save wrote",
        pickle.dumps([1, 2]): "a pickle that torch.save did not write",
        struct.pack("<Q", 100) + b'{"a":' + b" " * 600: "safetensors",
        b"\0" * 257 + b"ustar" + b"\0" * 600: "a tar archive",
    }
    for content, expected in cases.items():
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CheckpointFileError, match=rf"x\.pt: .*{expected}"):
            read_pt(tmp_path / "x.pt")


def test_torchscript_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/constants.pkl", b"N.")
        archive.writestr("x/data.pkl", b"N.")
    with pytest.raises(CheckpointFileError, match="TorchScript"):
        read_pt(tmp_path / "x.pt")


@FORMS
def test_truncated_file_is_refused(write: Callable[..., Path], zipped: bool) -> None:
    path = write({"weights": torch.arange(50.0), "n": 1}, zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 11):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointFileError):
            read_pt(path)


@FORMS
def test_damaged_bytes_raise_no_other_exception(write: Callable[..., Path], zipped: bool) -> None:
    path = write({"m": torch.nn.utils.weight_norm(torch.nn.Conv1d(1, 1, 1)), "o": OrderedDict(a=np.float64(1))}, zipped)
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 20])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_pt(path)
        except CheckpointFileError:
            refused += 1
    assert refused > 50


def test_damaged_weights_fail_their_checksum(write: Callable[..., Path]) -> None:
    path = write(torch.arange(50.0))
    whole = bytearray(path.read_bytes())
    whole[whole.index(np.arange(50, dtype=np.float32).tobytes()) + 90] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointFileError, match="data/0 does not match its checksum"):
        read_pt(path)


def test_compressed_record_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**8)
    with pytest.raises(CheckpointFileError, match="compressed"):
        read_pt(tmp_path / "bomb.pt")


def tensor_program(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of one tensor on storage 0 with whatever sizes."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 2)
    pickler.dump(("storage", "?", "0", "cpu", count))
    reference = out.getvalue()[2:-1].replace(b"X\x01\x00\x00\x00?", b"ctorch\nFloatStorage\n")
    rest = b"".join(pickle.dumps(item, 2)[2:-1] for item in (offset, size, stride, False, None))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"Q" + rest + b"tR."


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride"),
    [
        (11, 0, (10,), (1,)),
        (-1, 0, (10,), (1,)),
        (10, 1, (10,), (1,)),
        (10, -1, (5,), (1,)),
        (10, 0, (-5,), (1,)),
        (10, 9, (5,), (-1,)),
        (10, 0, (5,), (3,)),
        (10, 0, (2**40, 2**40), (0, 0)),
        (10, 0, (11,), (0,)),
        (10, 0, (5,), (1, 1)),
        (10, 0, (1,) * 40, (1,) * 40),
        (2**62, 0, (10,), (1,)),
        (10, 0, (2**63, 1), (1, 1)),
        (10, 0, (0, 2**63), (1, 1)),
    ],
)
def test_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_program(count, offset, size, stride))
        archive.writestr("archive/data/0", np.arange(10, dtype=np.float32).tobytes())
    with pytest.raises(CheckpointFileError, match=r"tensor|storage|dimension|malformed"):
        read_pt(path)


def test_tensor_within_its_storage_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("archive/data.pkl", tensor_program(10, 1, (3, 3), (3, 1)))
        archive.writestr("archive/data/0", np.arange(10, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(read_pt(tmp_path / "file.pt"), np.arange(1.0, 10).reshape(3, 3))


@pytest.mark.parametrize(
    "program",
    {
        "deep lists": b"]" * 150_000 + b"a" * 149_999 + b".",
        "deep tuples": b")" + b"\x85" * 150_000 + b".",
        "deep tuple as key": b"}" + b")" + b"\x85" * 150_000 + b"Ns.",
        "deep tuple in a set": b"cbuiltins\nset\n(" + b")" + b"\x85" * 150_000 + b"tt" + b"R.",
        "marks without end": b"(" * 150_000 + b".",
        "empty": b".",
        "nothing on the stack": b"a.",
        "no such memo": b"h\x07.",
        "call of a number": b"K\x01)R.",
        "list as key": b"}]Ns.",
        "length beyond the file": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "long length beyond the file": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        "extension registry": b"\x80\x02\x82\x01.",
        "odd items": b"}(K\x01K\x02K\x03u.",
        "many copies of one list": b"\x80\x02](" + b"K\x01" * 70_000 + b"eq\x000" + b"ccollections\nOrderedDict\nq\x010"
        + b"h\x01h\x00\x85R0" * 70_000 + b"N.",
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_malformed_or_huge_pickle_is_refused_quickly(tmp_path: Path, program: tuple[str, bytes]) -> None:
    began = time.process_time()
    with pytest.raises(CheckpointFileError, match=r"file\.pt: "):
        read_pt(zip_with_pickle(tmp_path / "file.pt", program[1]))
    assert time.process_time() - began < 60


def test_shared_object_is_built_once(tmp_path: Path) -> None:
    """Sixty lists, each holding the one before twice: 2^60 paths, sixty objects."""
    program = b"\x80\x02]q\x00" + b"0" + b"".join(b"](h%ch%ceq%c0" % (i, i, i + 1) for i in range(60)) + b"h\x3c."
    assert len(read_pt(zip_with_pickle(tmp_path / "file.pt", program))) == 2
