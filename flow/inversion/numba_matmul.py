"""Matrix products of few rows in machine code (numba): the products of numba_backend.py.

A chunk's products have 4 to 64 rows, and a library packs their weights anew in each call. Here weights are packed once, in
panels of some vectors of columns, and a product runs in tiles: up to ROWS rows by the columns of a panel, whose sums stay in
registers while k runs (the inner kernel of Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
LLVM compiles a tile to the vector instructions of the machine (AVX-512, AVX2, NEON). A row's sums run over k in order, so
they do not depend on the rows beside it.

A chunk takes as long as reading its weights, which do not fit into the caches next to a core. Weights that float16 holds
without loss, as checkpoints often store them, are kept in float16 and widened in registers: the same bits in half the time.

Rules: arrays are C-contiguous, and nothing is allocated. numba keeps the machine code beside this file or in the user's
cache; where it can write to neither, it compiles at every start.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

LANES = 16
"""Columns of the narrowest panel."""
ROWS = 4
FEATURES = binding.get_host_cpu_features()
WIDTHS = (96, 64, LANES) if FEATURES.get("avx512f") else (LANES,)
"""Columns of panels: with 32 registers of 16 floats, ROWS rows of 96 sums stay in them; with 16 of 8, of 16."""
HALVES = bool(FEATURES.get("avx512f") or FEATURES.get("f16c"))
"""Whether this machine widens halves in one instruction."""


def jit(function: Callable[..., Any], signature: Any = None) -> Callable[..., Any]:
    """Compiled at once for signatures, else on the first call. Products may be fused with sums; nothing else is reordered."""
    options: dict[str, Any] = dict(fastmath={"contract", "nsz"}, error_model="numpy", nogil=True)
    try:
        return njit(signature, cache=True, **options)(function)
    except RuntimeError:  # no directory to keep machine code in
        return njit(signature, **options)(function)


class _Kinds:
    """The machine's types of one combination of arrays: sums in those of a and c, b widened to them."""

    def __init__(self, a: types.Array, b: types.Array) -> None:
        self.double, self.half = a.dtype == types.float64, b.dtype == types.uint16
        self.scalar = ir.DoubleType() if self.double else ir.FloatType()
        self.weight = ir.HalfType() if self.half else ir.FloatType()
        self.lanes = 8 if self.double else 16
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.sizes = 8 if self.double else 4, 2 if self.half else 4

    def widened(self, builder: Any, weights: Any) -> Any:
        """A vector of b as one of sums."""
        return builder.fpext(weights, self.vector) if self.scalar != self.weight else weights


def _tile(builder: Any, kinds: _Kinds, rows: int, width: int, operands: Sequence[Any], depth: Any) -> None:
    """Emit c += a @ b for so many rows and columns; `operands`: addresses of a, b, c, each with its stride in bytes."""
    (a, a_stride, b, b_stride, c, c_stride), word = operands, ir.IntType(64)
    size, weight_size = kinds.sizes
    columns = range(0, width, kinds.lanes)

    def load(base: Any, stride: Any, index: Any, offset: int, kind: Any, align: int) -> Any:
        address = builder.add(builder.add(base, builder.mul(stride, index)), ir.Constant(word, offset))
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)

    def place(r: int, column: int) -> Any:
        address = builder.add(
            builder.add(c, builder.mul(c_stride, ir.Constant(word, r))), ir.Constant(word, size * column)
        )
        return builder.inttoptr(address, kinds.vector.as_pointer())

    sums = [
        [cgutils.alloca_once_value(builder, builder.load(place(r, v), align=size)) for v in columns]
        for r in range(rows)
    ]
    undefined = ir.Constant(kinds.vector, ir.Undefined)
    spread = ir.Constant(ir.VectorType(ir.IntType(32), kinds.lanes), [0] * kinds.lanes)
    with cgutils.for_range(builder, depth) as loop:
        stored = ir.VectorType(kinds.weight, kinds.lanes)
        factors = [
            kinds.widened(builder, load(b, b_stride, loop.index, weight_size * v, stored, weight_size)) for v in columns
        ]
        for r, row in enumerate(sums):
            row_of_a = builder.add(a, builder.mul(a_stride, ir.Constant(word, r)))
            value = load(row_of_a, ir.Constant(word, size), loop.index, 0, kinds.scalar, size)
            first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            everywhere = builder.shuffle_vector(first, undefined, spread)
            for factor, sum_ in zip(factors, row):
                product = builder.fmul(everywhere, factor, flags=("contract",))
                builder.store(builder.fadd(builder.load(sum_), product, flags=("contract",)), sum_)
    for r, row in enumerate(sums):
        for v, sum_ in zip(columns, row):
            builder.store(builder.load(sum_), place(r, v), align=size)


def _rows(builder: Any, kinds: _Kinds, width: int, rows: Any, operands: Sequence[Any], depth: Any) -> None:
    """Emit c += a @ b for any number of rows: whole tiles, then what is left row by row."""
    a, a_stride, b, b_stride, c, c_stride = operands
    tall = ir.Constant(rows.type, ROWS)
    whole = builder.mul(builder.sdiv(rows, tall), tall)

    def from_row(row: Any) -> list[Any]:
        at = builder.add(a, builder.mul(a_stride, row)), builder.add(c, builder.mul(c_stride, row))
        return [at[0], a_stride, b, b_stride, at[1], c_stride]

    with cgutils.for_range_slice(builder, ir.Constant(rows.type, 0), whole, tall, rows.type) as (row, _):
        _tile(builder, kinds, ROWS, width, from_row(row), depth)
    with cgutils.for_range_slice(builder, whole, rows, ir.Constant(rows.type, 1), rows.type) as (row, _):
        _tile(builder, kinds, 1, width, from_row(row), depth)


def _panel_of(_typing, a, b, c, width, rows, depth, a_at, a_stride, b_at, b_stride, c_at, c_stride):  # type: ignore[no-untyped-def]  # numba reads names
    """c += a @ b for a panel of `width` columns: arrays tell the types; addresses, and strides in bytes, where they are."""
    kinds = _Kinds(a, b)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        width, rows, depth, *operands = arguments[3:]
        for choice in WIDTHS:
            with builder.if_then(builder.icmp_signed("==", width, ir.Constant(width.type, choice))):
                _rows(builder, kinds, choice, rows, operands, depth)
        return context.get_dummy_value()

    return types.void(a, b, c, *[types.intp] * 9), generate


_panel: Any = intrinsic(_panel_of)


def _signature(a: Any, b: Any) -> Any:
    size = types.intp
    return types.void(a[:, ::1], size, b[:, :, ::1], size, size, a[:, ::1], size)


SIGNATURES = [_signature(a, b) for a in (types.float32, types.float64) for b in (types.float32, types.uint16)]


# Signatures are given: numba would compile it anew for every argument that is a constant zero.
@partial(jit, signature=SIGNATURES)
def accumulate(a: Array, first: int, b: Array, top: int, depth: int, c: Array, into: int) -> None:
    """c[:, into : into + N] += a[:, first : first + depth] @ b[top : top + depth] for packed b of N columns."""
    rows, (panels, _, width) = len(c), b.shape
    a_at, b_at, c_at = a.ctypes.data + first * a.itemsize, b.ctypes.data + top * b.strides[1], c.ctypes.data
    c_at += into * c.itemsize
    if width % LANES == 0:
        for panel in range(panels):
            _panel(
                a, b, c, width, rows, depth, a_at, a.strides[0], b_at + panel * b.strides[0], b.strides[1],
                c_at + panel * width * c.itemsize, c.strides[0],
            )  # fmt: skip
    else:
        for m in range(rows):
            for n in range(width):
                for k in range(depth):
                    c[m, into + n] += a[m, first + k] * b[0, top + k, n]


def packed(b: Tensor, widths: Sequence[int] | None = None) -> Array:
    """Weights [..., K, N] -> panels [..., N / w, K, w], as wide as the tiles that suit N; else one of N columns.

    Halves, as uint16, where these are the very weights.
    """
    columns = b.shape[-1]
    width = next((width for width in widths or WIDTHS if columns % width == 0), columns)
    panels = b.unflatten(-1, (-1, width)).transpose(-3, -2).contiguous()
    if HALVES and width % LANES == 0 and bool((panels.half().float() == panels).all()):
        return panels.half().numpy().view(np.uint16)
    return panels.numpy()
