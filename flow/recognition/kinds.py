"""What a file is, by its first bytes and its table of contents, and what to do with it. For files in place of weights.

Rules: standard library only, because clients use this too. Little of a file is read, whatever its size; nothing in it is run,
unpacked to disk, or believed beyond its own length. One place recognises, so no two commands disagree: what `glowlab import`
takes is `is_importable`, and everything else comes with its own advice.
"""

import re
import shlex
import struct
from dataclasses import dataclass
from pathlib import Path

from glowd.flow.recognition import archives, safetensors_header
from glowd.flow.recognition.printable import printable

HEAD_BYTES = 4096
LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""PyTorch before 1.6, after the opcodes that introduce it."""
AGAIN = "download it again"
NO_CONTENT = frozenset(("pointer", "html", "xml", "empty", "zeros", "cut", "damaged", "packed", "folder"))


@dataclass(frozen=True, slots=True)
class FileKind:
    """`what` completes "FILE is ..."; `advice` is what to do where weights are expected."""

    name: str
    what: str
    advice: str = ""

    @property
    def is_importable(self) -> bool:
        """Whether `glowlab import` can read it; what is in it is another question."""
        return self.name in ("torch", "safetensors", "npz", "nemo")

    @property
    def is_readable(self) -> bool:
        """Whether it can be the content that somebody meant: no pointer, no error page, no half of a file."""
        return self.name not in NO_CONTENT

    def instead_of(self, expected: str) -> str:
        """Completes "FILE is ..." where a program expects another kind of file than weights."""
        return f"{self.what}; expected {expected}" + ("" if self.is_readable else f"; {self.advice}")


NUMPY = FileKind("npy", "one numpy array", "give a file with all weights by their names, such as an .npz")
POINTER = FileKind("pointer", "a git-lfs pointer, not the file itself", "fetch the file: git lfs pull")
FIXED: dict[bytes, FileKind] = {
    b"version https://git-lfs.github.com/spec/": POINTER,
    b"\x93NUMPY": NUMPY,
    b"\x89HDF\r\n\x1a\n": FileKind("hdf5", "an HDF5 file, as Keras writes", "give a PyTorch state dict"),
    b"GGUF": FileKind("gguf", "a GGUF file, a language model", "give a WaveGlow"),
    b"\x7fELF": FileKind("program", "a program", "give a checkpoint"),
    b"\x89PNG": FileKind("picture", "a picture", "give a checkpoint"),
} | {
    magic: FileKind("audio", f"a recording ({name})", "give a checkpoint; recordings are for glowlab render")
    for magic, name in ((b"RIFF", "RIFF"), (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"))
} | {
    magic: FileKind("packed", f"packed by {name}", f"unpack it first: {command}")
    for magic, name, command in (
        (b"BZh", "bzip2", "bunzip2"), (b"\xfd7zXZ\x00", "xz", "unxz"), (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"), (b"Rar!", "RAR", "unrar x"),
    )
}  # fmt: skip
ONNX = FileKind("onnx", "an ONNX model", "its weights cannot be taken out by name; give the PyTorch checkpoint")
TFLITE = FileKind("tflite", "a TensorFlow Lite model", "give the PyTorch checkpoint that it was made from")
LEGACY = FileKind("torch", "a PyTorch checkpoint")
ANNEX = FileKind("pointer", "a git-annex pointer, not the file itself", "fetch the file: git annex get")
PICKLE = FileKind("pickle", "a pickle that torch.save did not write", "write it again with torch.save")
EMPTY = FileKind("empty", "empty", AGAIN)
ZEROS = FileKind("zeros", "nothing but zero bytes where it begins: a download that broke off", AGAIN)
FOLDER = FileKind("folder", "a folder", "give a file in it")
UNKNOWN = FileKind(
    "unknown", "of no kind that glowd knows", "give a PyTorch, safetensors, .npz or .nemo file with a WaveGlow in it"
)


def recognise(path: str | Path) -> FileKind:
    """The kind of a file. Raises OSError if it cannot be opened."""
    path = Path(path)
    if path.is_dir():
        return FOLDER
    with path.open("rb") as file:
        head, size = file.read(HEAD_BYTES), path.stat().st_size
        if not head:
            return EMPTY
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return FileKind(*archives.describe_zip(file, size))
        if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
            return FileKind(*archives.describe_tar(file, head, size))
        if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 56:
            return FileKind(*safetensors_header.describe(file, size))
    return _by_head(head)


def _by_head(head: bytes) -> FileKind:
    for magic, kind in FIXED.items():
        if head.startswith(magic):
            return kind
    if LEGACY_MAGIC in head[:32]:
        return LEGACY
    if head[4:8] == b"TFL3":
        return TFLITE
    if b"/annex/objects/" in head[:200]:
        return ANNEX
    if _is_onnx(head):
        return ONNX
    if re.match(rb"\x80[\x02-\x05]", head):
        return PICKLE
    if not head.strip(b"\0"):
        return ZEROS
    return _text(head) or UNKNOWN


def _is_onnx(head: bytes) -> bool:
    """A protobuf whose first field is the version of its format, and whose second is a text of ModelProto."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 32 and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A)


def _text(head: bytes) -> FileKind | None:
    """A page of a download site, an error message, or any other text."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        found = re.search(rb"<title[^>]*>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        title = f' ("{printable(found[1].decode("utf-8", "replace").strip())}")' if found else ""
        return FileKind("html", f"a web page{title}", "download the file itself")
    if start.startswith(b"<"):
        return FileKind("xml", "an XML text, as servers send in place of a file that they refuse", AGAIN)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if any(ord(char) < 32 and char not in "\t\r\n\f" for char in text):
        return None
    return FileKind(
        "text", f'a text that begins with "{printable(text.split(chr(10))[0])}"', "give the checkpoint itself"
    )


def import_command(path: str | Path) -> str:
    """The command that converts a file to a checkpoint of glowd, beside it."""
    path = Path(path)
    return (
        f"glowlab import {shlex.quote(str(path))} {shlex.quote(str(path.with_name(f'{path.stem}-glowd.safetensors')))}"
    )
