"""PyTorch's reconstruction functions in numpy: storages, tensors, and the table of known calls.

Rules: numpy and standard library only; nothing here reads a file. Every size, stride and offset comes from a file and is
checked against the storage before an array is made. Arrays are read-only views; only bfloat16 is copied, to float32.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glowd.flow.torchfile.safe_pickle import CheckpointFileError, GlobalName, Known, Opaque

MAX_DIMENSIONS = 16

Array = NDArray[Any]
Dtype = np.dtype[Any]

BFLOAT16 = np.dtype("V2")
"""Two opaque bytes, because numpy has no bfloat16."""

_DTYPES: dict[str, Dtype] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "float16": np.dtype("<f2"),
    "bfloat16": BFLOAT16,
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_SCALARS = {"b1": np.dtype("?")} | {
    code: np.dtype(code) for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}


class Storages:
    """The storages of one file as flat arrays. `fetch(key)` gives a storage's bytes, or raises CheckpointFileError."""

    def __init__(self, fetch: Callable[[str], memoryview], big_endian: bool) -> None:
        self._fetch = fetch
        self._big_endian = big_endian
        self._arrays: dict[tuple[str, str], Array] = {}

    def get(self, key: str, kind: GlobalName, count: int) -> Array:
        """The first `count` elements of storage `key`, of type `kind`. Raises CheckpointFileError if it has fewer."""
        dtype = storage_dtype(kind)
        if (key, kind.name) not in self._arrays:
            self._arrays[key, kind.name] = self._decode(self._fetch(key), dtype)
        array = self._arrays[key, kind.name]
        if not 0 <= count <= len(array):
            raise CheckpointFileError(f"storage {key!r} has {len(array)} elements of {kind}; the file claims {count}")
        return array[:count]

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Array:
        """A tensor of shape `size`, viewing `storage` [n] as `torch._utils._rebuild_tensor_v2` does."""
        if not isinstance(storage, np.ndarray):
            raise CheckpointFileError(f"tensor on a {type(storage).__name__}; expected a storage")
        return _view(storage, offset, tuple(size), tuple(stride))

    def _decode(self, raw: memoryview, dtype: Dtype) -> Array:
        whole = raw[: len(raw) // dtype.itemsize * dtype.itemsize]
        if dtype == BFLOAT16:
            bits = np.frombuffer(whole, ">u2" if self._big_endian else "<u2").astype(np.uint32) << 16
            return bits.view(np.float32)
        array = np.frombuffer(whole, dtype.newbyteorder(">") if self._big_endian else dtype)
        return array.astype(dtype) if self._big_endian else array


def storage_dtype(kind: GlobalName) -> Dtype:
    """The element type of a storage class such as torch.FloatStorage. Raises CheckpointFileError for an unknown one."""
    if kind.module.partition(".")[0] != "torch" or kind.name not in _STORAGES:
        raise CheckpointFileError(f"storage of type {kind} is not supported; known: {', '.join(_STORAGES)}")
    return _DTYPES[_STORAGES[kind.name]]


def known_calls(tensor: Callable[..., Any]) -> Known:
    """The known calls by (module, name). `tensor` is called for those that make a tensor."""
    rebuild: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _unsupported_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    }

    def rebuild_subclass(function: GlobalName, _: Any, args: tuple[Any, ...], __: Any) -> Any:
        return rebuild[function.module, function.name](*args)

    return rebuild | _PLAIN | {("torch._tensor", "_rebuild_from_type_v2"): rebuild_subclass}


def _unsupported_tensor(*_: Any) -> None:
    raise CheckpointFileError(f"a tensor of a type that is not supported; known: {', '.join(_DTYPES)}")


def _view(storage: Array, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]) -> Array:
    if not all(type(number) is int and number >= 0 for number in (offset, *size, *stride)):
        raise CheckpointFileError("tensor whose offset, size and stride are not natural numbers")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise CheckpointFileError(
            f"tensor of {len(size)} sizes, {len(stride)} strides; equal, at most {MAX_DIMENSIONS}"
        )
    if 0 in size:
        return np.zeros(size, storage.dtype)
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count, last = count * length, last + (length - 1) * step
    if last >= len(storage) or count > len(storage):
        raise CheckpointFileError(f"tensor of size {list(size)} exceeds its storage of {len(storage)} elements")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _number(dtype: Any, raw: Any = b"") -> Any:
    """A numpy scalar, as a Python number."""
    match dtype:
        case Opaque("numpy", "dtype", (str() as code, *_), state) if code in _SCALARS and isinstance(raw, bytes):
            big_endian = isinstance(state, tuple) and state[1:2] == (">",)
            return np.frombuffer(raw, _SCALARS[code].newbyteorder(">" if big_endian else "<"))[0].item()
    raise CheckpointFileError(f"a numpy scalar of an unsupported type; known: {', '.join(_SCALARS)}")


def array_of(value: Any) -> Array | None:
    """The array that a value of a file is: a tensor, or a pickled numpy array of numbers; None for anything else.

    Raises CheckpointFileError for a numpy array whose bytes are not what its shape needs.
    """
    if isinstance(value, np.ndarray):
        return value
    match value:
        case Opaque("numpy", "ndarray", _, (_, tuple() as shape, dtype, turned, bytes() | str() as raw)):
            # Python 2 pickled bytes as text.
            content = raw.encode("latin1", "replace") if isinstance(raw, str) else raw
            return _numpy_array(content, dtype, shape, "F" if turned else "C")
    return None


def _numpy_array(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    """A numpy array of its bytes, as `numpy.core.numeric._frombuffer` and the state of a pickled array give them."""
    match dtype:
        case Opaque("numpy", "dtype", (str() as code, *_), state) if code in _SCALARS and isinstance(raw, bytes):
            big_endian = isinstance(state, tuple) and state[1:2] == (">",)
            kind = _SCALARS[code].newbyteorder(">" if big_endian else "<")
            sizes = shape if isinstance(shape, tuple) else (-1,)
            natural = len(sizes) <= MAX_DIMENSIONS and all(type(size) is int and size >= 0 for size in sizes)
            if natural and math.prod(sizes) * kind.itemsize == len(raw):
                return np.frombuffer(raw, kind).reshape(sizes, order="F" if order == "F" else "C")
    raise CheckpointFileError("a numpy array whose type is not supported, or whose bytes are not what its shape needs")


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, as pickles before protocol 3 write them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise CheckpointFileError("malformed pickle: bytes that are not encoded as latin1")
    return text.encode("latin1")


def _instance(cls: Any, *_: Any) -> Any:
    """An instance as copyreg makes it: without arguments, to be filled by items and state."""
    if not isinstance(cls, GlobalName):
        raise CheckpointFileError(f"malformed pickle: an instance of a {type(cls).__name__}")
    return _PLAIN.get((cls.module, cls.name), lambda: Opaque(cls.module, cls.name))()


def _device(kind: Any, index: Any = 0) -> str:
    if not isinstance(kind, str) or not isinstance(index, int):
        raise CheckpointFileError("malformed pickle: a device that is not a name and a number")
    return f"{kind}:{index}"


def _mapping(pairs: Any = ()) -> "OrderedDict[Any, Any]":
    """An OrderedDict. Python 2 gives its pairs as lists. Keys may be text and numbers only."""
    entries = OrderedDict[Any, Any]()
    for key, value in pairs:
        if not isinstance(key, str | int | float):
            raise CheckpointFileError(f"a {type(key).__name__} is used as a key; expected text or a number")
        entries[key] = value
    return entries


def _elements(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | int | float | None) for item in items):
        raise CheckpointFileError("malformed pickle: a set of other things than text and numbers")
    return set(items)


_PLAIN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): lambda *_: OrderedDict(),
    ("builtins", "dict"): _mapping,
    ("__builtin__", "dict"): _mapping,
    ("builtins", "set"): _elements,
    ("__builtin__", "set"): _elements,
    ("builtins", "frozenset"): lambda items=(): frozenset(_elements(items)),
    ("__builtin__", "frozenset"): lambda items=(): frozenset(_elements(items)),
    ("builtins", "bytes"): lambda: b"",
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "object"): lambda: None,
    ("__builtin__", "object"): lambda: None,
    ("_codecs", "encode"): _encoded,
    ("copyreg", "_reconstructor"): _instance,
    ("copy_reg", "_reconstructor"): _instance,
    ("numpy", "dtype"): lambda *args: Opaque("numpy", "dtype", args),
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Opaque("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: Opaque("numpy", "ndarray"),
    ("numpy.core.numeric", "_frombuffer"): lambda raw, *given: _numpy_array(bytes(raw), *given),
    ("numpy._core.numeric", "_frombuffer"): lambda raw, *given: _numpy_array(bytes(raw), *given),
    ("torch", "Size"): lambda size=(): size,
    ("torch", "device"): _device,
}
