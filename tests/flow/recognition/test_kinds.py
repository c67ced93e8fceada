"""What people bring in place of a checkpoint is recognised, and no advice leads in a circle."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glowd.daemon.config_voices import WaveGlowSettings
from glowd.daemon.doctor import check_checkpoint
from glowd.flow.checkpoint import EMBEDDED, CheckpointError, load, read_header
from glowd.flow.cli import main
from glowd.flow.importing.nvidia import import_checkpoint
from glowd.flow.recognition.kinds import import_command, recognise
from glowd.flow.recognition.printable import printable
from glowd.flow.torchfile.reader import CheckpointFileError
from tests.harness.publishing import Geometry, random_weights

GEOMETRY = Geometry(n_mel_channels=80)


def zipped(*names: str, content: bytes = b"x") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return made.getvalue()


def tarred(*names: str, mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def saved(content: object, legacy: bool = False) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, _use_new_zipfile_serialization=not legacy)
    return made.getvalue()


def tensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


PAGE = b"\n<!DOCTYPE html><html><head><title>Quota \x1b[31mexceeded</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2144723343\n"
FILES: list[tuple[bytes, str, str]] = [
    (b"", "empty", "it is empty; download it again"),
    (bytes(5000), "zeros", "download it again"),
    (PAGE, "html", r'a web page \("Quota \\x1b\[31mexceeded"\); download the file itself'),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "xml", "in place of a file that they refuse"),
    (POINTER, "pointer", "a git-lfs pointer.*git lfs pull"),
    (b"../.git/annex/objects/aa/bb/SHA256E-s1", "pointer", "a git-annex pointer.*git annex get"),
    (b"hello\nworld", "text", 'a text that begins with "hello"'),
    (b"\x08\x07\x12\x07pytorch\x1a\x061.13.0", "onnx", "an ONNX model; .* give the PyTorch checkpoint"),
    (b"\x20\0\0\0TFL3", "tflite", "TensorFlow Lite"),
    (b"\x89HDF\r\n\x1a\n\0\0", "hdf5", "HDF5"),
    (b"GGUF\3\0", "gguf", "GGUF"),
    (b"RIFF\0\0\0\0WAVE", "audio", "a recording"),
    (b"BZh91AY", "packed", "bunzip2"),
    (b"\x80\x04\x95\x05", "pickle", "torch.save"),
    (b"\xff\xfe\x01\x02" * 9, "unknown", "of no kind that glowd knows; give a PyTorch"),
    (gzip.compress(b"x" * 999), "packed", "packed by gzip; unpack it first: gunzip"),
    (tarred("sys_info", "pickle", "tensors", "storages"), "tar", "tar file of PyTorch 0.1"),
    (tarred("out/waveglow.pt", "README"), "tar", "with out/waveglow.pt inside; unpack it"),
    (tarred("a/waveglow.pt", mode="w:gz"), "tar", "with a/waveglow.pt inside"),
    (zipped("models/nvidia_waveglow256.pt"), "zip", r"nvidia_waveglow256\.pt inside; unpack it \(unzip\), and give"),
    (zipped("a.txt", "b.txt"), "zip", "2 files, with no checkpoint"),
    (zipped(f"{'a' * 70}\x1b]0;x\x07/w.pt"), "zip", r"aaa \.\.\. .*\\x07/w\.pt inside"),
    (zipped("m/data.pkl", "m/constants.pkl"), "torchscript", "TorchScript program; write the model's state_dict"),
    (saved({"a": torch.ones(9)})[:-200], "cut", "cut off.*download it again"),
    (tensors({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}) + bytes(9), "damaged", "is cut off"),
    (struct.pack("<Q", 1 << 40) + b'{"a"', "damaged", "claims 1099511627776 bytes; allowed: at most"),
    (tensors({"__metadata__": {"glowd_pitch": "1"}}), "pitch", "give it to glowlab train --pitch"),
    (tensors({"__metadata__": {"glowd_format": "2"}}), "glowd", "a checkpoint of glowd already; it needs no import"),
]


@pytest.mark.parametrize(("content", "name", "said"), FILES, ids=lambda value: value if isinstance(value, str) else "")
def test_kind_is_named_with_what_to_do(tmp_path: Path, content: bytes, name: str, said: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert recognise(path).name == name
    with pytest.raises((CheckpointError, CheckpointFileError), match=rf"file\.pt is .*{said.removeprefix('it is ')}"):
        import_checkpoint(path)


@pytest.mark.parametrize("name", [name for _, name, _ in FILES if name != "glowd"])
def test_voices_and_import_name_the_same_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(next(content for content, kind, _ in FILES if kind == name))
    with pytest.raises(CheckpointError) as of_voices:
        read_header(path)
    with pytest.raises(CheckpointError) as of_import:
        import_checkpoint(path)
    assert str(of_voices.value) == f"checkpoint {of_import.value}"


def weights_as(kind: str, path: Path) -> Path:
    raw = random_weights(GEOMETRY)
    if kind == "torch":
        torch.save({"model": raw}, path)
    elif kind == "legacy torch":
        path.write_bytes(saved(raw, legacy=True))
    elif kind == "safetensors":
        save_file({name: value.contiguous() for name, value in raw.items()}, path)
    elif kind == "npz":
        arrays: dict[str, Any] = {name: value.numpy() for name, value in raw.items()}
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif kind == "packed npz":
        arrays = {name: value.numpy().astype(np.float16) for name, value in raw.items()}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    else:
        torch.save({name: value.numpy() for name, value in raw.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["torch", "legacy torch", "safetensors", "npz", "packed npz", "numpy in torch"])
def test_foreign_weights_in_voices_are_told_what_works(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that `glowd check` advises converts the file, and the result needs no advice."""
    path = weights_as(kind, tmp_path / "some voice.pt")
    finding = check_checkpoint("v", WaveGlowSettings(checkpoint=str(path)))
    assert finding.state == "missing" and finding.text.endswith(f"convert it: {import_command(path)}")
    made = tmp_path / "some voice-glowd.safetensors"
    assert import_command(path) == f"glowlab import '{path}' '{made}'"
    assert main(["import", str(path), str(made)]) == 0
    assert check_checkpoint("v", WaveGlowSettings(checkpoint=str(made))).state == "ok"
    assert load(made).config.flows == GEOMETRY.n_flows
    assert main(["import", str(made), str(tmp_path / "again.safetensors")]) == 2
    assert "it needs no import: name it in a [voices.NAME] table" in capsys.readouterr().err


def test_own_voice_is_recognised() -> None:
    assert recognise(EMBEDDED).name == "glowd"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder; give a file in it"):
        read_header(tmp_path)


def test_long_names_are_cut_and_escaped() -> None:
    assert printable("a\x1b[31m\n" + "b" * 200, 20) == "a\\x1b[31m\\nb ... bbbbbbbb"
    assert printable("grün 音") == "grün 音"
