"""The flows of one step as one compiled loop (numba), for causal voices in float32 on a CPU.

The arithmetic is that of torch_backend.py.

A chunk's products have 4 to 64 rows. Run one by one, as a library's calls, they take as long to be called as to be
computed, and their weights are packed anew each time. Here a flow is one call that allocates nothing:

    for each layer, for each stream (so a layer's weights are fetched once for all streams)
        window <- past | h                    the taps of a dilated convolution are rows of it, shifted by the dilation,
        gate   <- bias + sum of taps @ W      so they need no gathering
        gated  <- s_b - 2 s_a s_b             s = sigmoid(gate)
        h      <- h + gated @ residual

Products run in tiles: ROWS rows by some vectors of columns whose sums stay in registers while k runs, over weights that were
packed once, in panels of as many columns (the inner kernel of Goto & van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008). LLVM compiles a tile's vectors of 16 floats to whatever the machine has (AVX-512, AVX2, NEON).

Rules: arrays are C-contiguous float32; everything here is told its memory, so that calls may run side by side without the
interpreter's lock. Machine code is kept beside this file or in the user's cache (numba's rules), compiled where neither can be.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from glowd.flow.inversion.folding import FlowWeights, Folded
from glowd.flow.inversion.torch_backend import State
from glowd.flow.mel import Floats

LANES = 16
"""Floats of one vector in the source."""
ROWS = 4
VECTORS = 6 if binding.get_host_cpu_features().get("avx512f") else 1
"""Vectors of a wide tile: with 32 registers of 16 floats, ROWS * 6 sums stay in them; with 16 of 8, ROWS * 1."""
WIDE = LANES * VECTORS


def _jit(function: Callable[..., Any], signature: Any = None) -> Callable[..., Any]:
    """Compiled at once for a signature, else on the first call. Products may be fused with sums; nothing else is reordered."""
    options: dict[str, Any] = dict(fastmath={"contract", "nsz"}, error_model="numpy", nogil=True)
    try:
        return njit(signature, cache=True, **options)(function)
    except RuntimeError:  # no directory to keep machine code in
        return njit(signature, **options)(function)


# ------------------------------------------------------------------ products


def _tile(rows: int, vectors: int) -> Any:
    """An intrinsic (a, a_stride, b, b_stride, c, c_stride, depth): c += a @ b for `rows` rows by `vectors` * LANES columns.

    Arrays are given as addresses, strides in bytes from row to row. The sums stay in registers over all of `depth`.
    """
    scalar, vector, word = ir.FloatType(), ir.VectorType(ir.FloatType(), LANES), ir.IntType(64)
    undefined, lanes = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, a_stride, b, b_stride, c, c_stride, depth = arguments

        def pointer(base: Any, stride: Any, index: Any, column: int, kind: Any) -> Any:
            index = ir.Constant(word, index) if isinstance(index, int) else index
            address = builder.add(builder.add(base, builder.mul(stride, index)), ir.Constant(word, 4 * column))
            return builder.inttoptr(address, kind.as_pointer())

        def load(where: Any) -> Any:
            return builder.load(where, align=4)

        places = [[pointer(c, c_stride, r, LANES * v, vector) for v in range(vectors)] for r in range(rows)]
        sums = [[cgutils.alloca_once_value(builder, load(place)) for place in row] for row in places]
        with cgutils.for_range(builder, depth) as loop:
            factors = [load(pointer(b, b_stride, loop.index, LANES * v, vector)) for v in range(vectors)]
            for r, row in enumerate(sums):
                row_of_a = builder.add(a, builder.mul(a_stride, ir.Constant(word, r)))
                value = load(pointer(row_of_a, ir.Constant(word, 4), loop.index, 0, scalar))
                first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(first, undefined, lanes)
                for factor, sum_ in zip(factors, row):
                    product = builder.fmul(spread, factor, flags=("contract",))
                    builder.store(builder.fadd(builder.load(sum_), product, flags=("contract",)), sum_)
        for row, row_places in zip(sums, places):
            for sum_, place in zip(row, row_places):
                builder.store(builder.load(sum_), place, align=4)
        return context.get_dummy_value()

    @intrinsic
    def tile(_context, a, a_stride, b, b_stride, c, c_stride, depth):  # type: ignore[no-untyped-def]  # numba reads names
        return types.void(*[types.intp] * 7), generate

    return tile


_wide, _wide_row = _tile(ROWS, VECTORS), _tile(1, VECTORS)
_narrow, _narrow_row = _tile(ROWS, 1), _tile(1, 1)


MATRIX, PANELS = types.float32[:, ::1], types.float32[:, :, ::1]


# One signature: numba would compile it anew for every argument that is a constant zero.
@partial(_jit, signature=types.void(MATRIX, types.intp, PANELS, types.intp, types.intp, MATRIX))
def _accumulate(a: Floats, first: int, b: Floats, top: int, depth: int, c: Floats) -> None:
    """c[:, :N] += a[:, first : first + depth] @ b[top : top + depth] for packed b; a and c may have more columns."""
    rows, (panels, _, width) = len(c), b.shape
    a_at, a_stride, b_stride, c_stride = a.ctypes.data + 4 * first, a.strides[0], b.strides[1], c.strides[0]
    for panel in range(panels):
        b_at, c_at = b.ctypes.data + panel * b.strides[0] + top * b_stride, c.ctypes.data + 4 * panel * width
        if width == WIDE:
            for m in range(0, rows - ROWS + 1, ROWS):
                _wide(a_at + m * a_stride, a_stride, b_at, b_stride, c_at + m * c_stride, c_stride, depth)
            for m in range(rows - rows % ROWS, rows):
                _wide_row(a_at + m * a_stride, a_stride, b_at, b_stride, c_at + m * c_stride, c_stride, depth)
        elif width == LANES:
            for m in range(0, rows - ROWS + 1, ROWS):
                _narrow(a_at + m * a_stride, a_stride, b_at, b_stride, c_at + m * c_stride, c_stride, depth)
            for m in range(rows - rows % ROWS, rows):
                _narrow_row(a_at + m * a_stride, a_stride, b_at, b_stride, c_at + m * c_stride, c_stride, depth)
        else:
            for m in range(rows):
                for n in range(width):
                    for k in range(depth):
                        c[m, panel * width + n] += a[m, first + k] * b[panel, top + k, n]


def _packed(b: Tensor) -> Floats:
    """Weights [..., K, N] -> panels [..., N / w, K, w], as wide as the tiles that suit N; else one of N columns."""
    columns = b.shape[-1]
    width = next((w for w in (WIDE, LANES) if columns % w == 0), columns)
    return b.unflatten(-1, (-1, width)).transpose(-3, -2).contiguous().numpy()


# ----------------------------------------------------------- one value at a time


@_jit
def _exp(x):  # type: ignore[no-untyped-def]  # a float32 scalar
    """e^x = 2^n e^r, |r| <= log(2) / 2: the Taylor series to r^7 is below a float's last place. x is held to +-87."""
    x = min(max(x, np.float32(-87)), np.float32(87))
    n = np.floor(x * np.float32(1 / np.log(2)) + np.float32(0.5))
    r = x - n * np.float32(0.693359375)  # log(2) in two parts: the first has few bits, so n times it is exact
    r = r - n * np.float32(np.log(2) - 0.693359375)
    e = np.float32(1 / 5040)
    e = e * r + np.float32(1 / 720)
    e = e * r + np.float32(1 / 120)
    e = e * r + np.float32(1 / 24)
    e = e * r + np.float32(1 / 6)
    e = e * r + np.float32(1 / 2)
    e = e * r + np.float32(1)
    e = e * r + np.float32(1)
    return e * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@_jit
def _gate(gate: Floats, gated: Floats, column: int) -> None:
    """[S, 2C] -> C columns of `gated`: s_b - 2 s_a s_b."""
    one, width = np.float32(1), gate.shape[1] // 2
    for s in range(len(gate)):
        for c in range(width):
            s_a, s_b = one / (one + _exp(-gate[s, c])), one / (one + _exp(-gate[s, width + c]))
            gated[s, column + c] = s_b - (s_a + s_a) * s_b


@_jit
def _affine(x: Floats, first: int, affine: Floats, n: int) -> None:
    """Second half of n columns of x: (b - shift) * exp(minus log-scale)."""
    half = n // 2
    for s in range(len(x)):
        for c in range(half):
            x[s, first + half + c] = (x[s, first + half + c] - affine[s, c]) * _exp(affine[s, half + c])


@_jit
def _copy(source: Floats, into: Floats, column: int) -> None:
    """into[:, column : ] <- the first columns of source, as many as fit."""
    for s in range(len(into)):
        for c in range(into.shape[1] - column):
            into[s, column + c] = source[s, c]


@_jit
def _fill(into: Floats, row: Floats) -> None:
    """Every row's first columns <- row."""
    for s in range(len(into)):
        for c in range(len(row)):
            into[s, c] = row[c]


# -------------------------------------------------------------------- the flow


@_jit
def _layer(flow, i, h, cond, past, window, gate, gated):  # type: ignore[no-untyped-def]
    """Layer i for one stream: h [S, C] and its past [reach, C] move on; it writes its C columns of `gated` [S, L * C]."""
    (groups, width), reach, dilation, weights = h.shape, len(past), 1 << i, flow.gates[i]
    window = window[: reach + groups]
    _copy(past, window[:reach], 0)
    _copy(h, window[reach:], 0)
    _copy(window[groups:], past, 0)
    _fill(gate, flow.gate_bias[i])
    for tap in range(reach // dilation + 1):
        _accumulate(window[tap * dilation : tap * dilation + groups], 0, weights, tap * width, width, gate)
    _accumulate(cond, 0, weights, (reach // dilation + 1) * width, cond.shape[1], gate)
    _gate(gate, gated, i * width)
    if i < len(flow.residual):
        _accumulate(gated, i * width, flow.residual[i], 0, width, h)


@_jit
def _flow(flow, x, cond, past, first, at, window, gate, h, gated, affine):  # type: ignore[no-untyped-def]
    """One flow backwards, in place: x [B, S, G] from column `first`; the flow's past begins at row `at`."""
    n = len(flow.end_bias)
    for b in range(len(x)):
        _fill(h[b], flow.start_bias)
        _accumulate(x[b], first, flow.start, 0, n // 2, h[b])
    taps = (flow.gates.shape[2] - cond.shape[2]) // h.shape[2]
    for i in range(len(flow.gates)):
        reach = (taps - 1) << i
        for b in range(len(x)):
            _layer(flow, i, h[b], cond[b], past[b, at : at + reach], window, gate, gated[b])
        at += reach
    for b in range(len(x)):
        _fill(affine, flow.end_bias)
        _accumulate(gated[b], 0, flow.end, 0, gated.shape[2], affine)
        _affine(x[b], first, affine, n)
        affine[:, :n] = 0
        _accumulate(x[b], first, flow.unmix, 0, n, affine)
        _copy(affine, x[b], first)


class _FlowArrays(NamedTuple):
    """The weights of a flow as `_flow` reads them, products packed."""

    start: Floats  # [n / 2, C]
    start_bias: Floats  # [C]
    gates: Floats  # [L] of [k * C + C_cond, 2C]: taps, then conditioning
    gate_bias: Floats  # [L, 2C]
    residual: Floats  # [L - 1] of [C, C]
    end: Floats  # [L * C, n]
    end_bias: Floats  # [n]
    unmix: Floats  # [n, n]


class _Part(NamedTuple):
    """What one thread works on."""

    streams: slice
    past: Floats
    scratch: tuple[Floats, ...]


class CompiledFlows:
    """The weights of a voice, and the threads that share a batch: as many as torch might use when it was made."""

    def __init__(self, weights: Folded) -> None:
        config = weights.config
        self.config = config
        wide = 2 * config.channels
        conds = weights.cond_weight.split(wide * config.layers, 1), weights.cond_bias.split(wide * config.layers)
        self.flows = [
            (config.group - rows, flow.layers[0].past.start, _arrays(flow, cond, bias))
            for rows, flow, cond, bias in zip(config.rows, weights.flows, *conds)
        ]
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads, "flows") if self.threads > 1 else None

    def step(self, state: State, groups: int) -> "CompiledStep":
        """The step of as many streams as the state has, by S groups."""
        return CompiledStep(self, state, groups)


class CompiledStep:
    """See steps.FlowsStep. With more than one thread each takes a part of the streams."""

    def __init__(self, flows: CompiledFlows, state: State, groups: int) -> None:
        self.flows = flows
        batch = len(state.tail)
        size = -(-batch // flows.threads)
        past = state.past.numpy()
        parts = [slice(at, min(at + size, batch)) for at in range(0, batch, size)]
        self._parts = [_Part(part, past[part], self._scratch(part.stop - part.start, groups)) for part in parts]

    def __call__(self, z: Tensor, cond: Tensor) -> Tensor:
        """See FlowsStep."""
        x = z.clone(memory_format=torch.contiguous_format)
        arrays = x.numpy(), cond.contiguous().numpy()
        if self.flows.pool and len(self._parts) > 1:
            list(self.flows.pool.map(lambda part: self._run(part, *arrays), self._parts))
        else:
            self._run(self._parts[0], *arrays)
        return x

    def _run(self, part: "_Part", x: Floats, cond: Floats) -> None:
        x, cond = x[part.streams], cond[part.streams]
        for first, at, flow in reversed(self.flows.flows):
            _flow(flow, x, cond, part.past, first, at, *part.scratch)

    def _scratch(self, batch: int, groups: int) -> tuple[Floats, ...]:
        """What `_flow` works in: window, gate and affine for one stream at a time, h and gated for all."""
        config = self.flows.config
        longest = (config.kernel - 1) * 2 ** (config.layers - 1)
        shapes = [
            (longest + groups, config.channels),
            (groups, 2 * config.channels),
            (batch, groups, config.channels),
            (batch, groups, config.layers * config.channels),
            (groups, config.group),
        ]
        return tuple(np.zeros(shape, np.float32) for shape in shapes)


def _arrays(flow: FlowWeights, cond: Tensor, bias: Tensor) -> _FlowArrays:
    layers, width = len(flow.layers), len(flow.start_bias)
    conds = cond.unflatten(1, (layers, 2 * width)).unbind(1)
    residual = [layer.residual for layer in flow.layers if layer.residual is not None]
    return _FlowArrays(
        start=_packed(flow.start),
        start_bias=flow.start_bias.numpy(),
        gates=_packed(torch.stack([torch.cat([layer.gates, c]) for layer, c in zip(flow.layers, conds)])),
        gate_bias=bias.view(layers, 2 * width).contiguous().numpy(),
        residual=_packed(torch.cat([*residual, torch.zeros(0, width)]).view(-1, width, width)),
        end=_packed(flow.end),
        end_bias=flow.end_bias.numpy(),
        unmix=_packed(flow.unmix),
    )
