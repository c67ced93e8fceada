"""The flows of one step with every layer of a WN as one kernel (Triton), for CUDA.

The arithmetic is that of torch_backend.py.

A layer in torch is seven calls whose intermediate results (window, gathered taps, gates) go through memory. Here it is one:

    past [B, reach, C] |                  tile by tile of ROWS rows, a row being one group of one stream
    h    [B * S, C]    +-> taps @ gates + cond -> s_b - 2 s_a s_b -> gated -+-> [B * S, L * C], what the flow's end reads
                       |                                                    |
                       +------------------------- h + gated @ residual <----+-> the other h, which the next layer reads
                       +-> the newest `reach` inputs ---------------------------> moved, which becomes the past at the end

The residual product needs all C gated channels of a row, and only the program that made them may read them back: no
program can wait for another. So a program owns whole rows. It walks over COLUMNS of the gates, each time over all taps
and all channels DEPTH at a time; stores the gated values where the end of the flow reads them; and, behind a barrier of
its threads, reads its own rows again, from the cache, for the residual product. The alternative, sums of the residual
product in registers beside those of the gates, saves that reading but bounds C: [128, 512] float32 is a whole register
file. Rows are those of all streams, one after the other, so that short chunks of many streams fill a tile: a program
fetches all weights of the layer, and fewer programs fetch them less often. Few rows are cut into small tiles instead, for
a layer lasts as long as its slowest program.

No program reads what another one writes in the same launch: h has two buffers that take turns, as a tap reaches into rows
of other tiles; and the past is moved into a buffer of its own, by programs that do only that, and copied back in one go
after the last layer. So programs may run in any order, and every launch is the same for each call: a CUDA graph can hold it.

The least that a device has to do for a layer: 2 * (k * 2C * C + C * C) FLOP for a row; in bytes, for weights of w bytes,
w * (k * 2C * C + C * C) once, and for a row w * (C read, 2C conditioning, C gated, C written), and w * 2 * reach * C for
a stream's past. tests/bench/backends.py holds the measured time against that.

Operands are float32, bf16 or fp16; sums, conditioning and gate are float32 here, where torch rounds after each call.
Voices that are not causal run too: what lies outside the chunk is then the layer's padding, one row for every place.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from glowd.flow.inversion.folding import Folded, LayerWeights, WNWeights
from glowd.flow.inversion.state import State
from glowd.flow.inversion.step import EagerStep

# ------------------------------------------------------------------ the kernel


@triton.jit
def _product(x, weight, total, WIDEN: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton reads names
    """total + x @ weight, in float32. Triton's interpreter knows no bf16, so there it is widened, which changes no value."""
    if WIDEN:
        x, weight = x.to(tl.float32), weight.to(tl.float32)
    return tl.dot(x, weight, total, input_precision="ieee")


@triton.jit
def _gate(  # type: ignore[no-untyped-def]
    row, live, h, past, cond, gates, gated, groups, dilation, past_stream, past_row, cond_row, gated_row,
    C: tl.constexpr, TAPS: tl.constexpr, CAUSAL: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """gated[row] <- the gate of the rows' taps and conditioning."""
    stream = row // groups
    now = row - stream * groups
    left = (TAPS - 1) * dilation if CAUSAL else (TAPS - 1) * dilation // 2
    here, before = h + row.to(tl.int64) * C, past + stream.to(tl.int64) * past_stream
    cond += row.to(tl.int64)[:, None] * cond_row
    gated += row.to(tl.int64)[:, None] * gated_row
    steps: tl.constexpr = (C + DEPTH - 1) // DEPTH
    for first in range(0, C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        wanted = live[:, None] & (column < C)[None, :]
        a = tl.load(cond + column[None, :], mask=wanted, other=0.0).to(tl.float32)
        b = tl.load(cond + C + column[None, :], mask=wanted, other=0.0).to(tl.float32)
        for step in range(TAPS * steps):  # one loop, so that loads run ahead over the taps' borders
            tap, channel = step // steps, step % steps * DEPTH + tl.arange(0, DEPTH)
            at = now + tap * dilation - left
            source = tl.where(
                (at >= 0) & (at < groups), here + (tap * dilation - left) * C, before + (at + left) * past_row
            )
            x = tl.load(source[:, None] + channel[None, :], mask=live[:, None] & (channel < C)[None, :], other=0.0)
            weight = gates + (tap * C + channel)[:, None] * (2 * C) + column[None, :]
            inside = (channel < C)[:, None] & (column < C)[None, :]
            a = _product(x, tl.load(weight, mask=inside, other=0.0), a, WIDEN)
            b = _product(x, tl.load(weight + C, mask=inside, other=0.0), b, WIDEN)
        s_a, s_b = tl.sigmoid(a), tl.sigmoid(b)
        tl.store(gated + column[None, :], (s_b - 2 * s_a * s_b).to(gated.dtype.element_ty), mask=wanted)


@triton.jit
def _add_residual(  # type: ignore[no-untyped-def]
    row, live, h, h_next, gated, residual, gated_row,
    C: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """h_next[row] <- h[row] + gated[row] @ residual."""
    here = row.to(tl.int64)[:, None] * C
    gated += row.to(tl.int64)[:, None] * gated_row
    for first in range(0, C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        wanted = live[:, None] & (column < C)[None, :]
        total = tl.load(h + here + column[None, :], mask=wanted, other=0.0).to(tl.float32)
        for begin in range(0, C, DEPTH):
            channel = begin + tl.arange(0, DEPTH)
            x = tl.load(gated + channel[None, :], mask=live[:, None] & (channel < C)[None, :], other=0.0)
            weight = residual + channel[:, None] * C + column[None, :]
            inside = (channel < C)[:, None] & (column < C)[None, :]
            total = _product(x, tl.load(weight, mask=inside, other=0.0), total, WIDEN)
        tl.store(h_next + here + column[None, :], total.to(h_next.dtype.element_ty), mask=wanted)


@triton.jit
def _move_past(  # type: ignore[no-untyped-def]
    slot, h, past, moved, streams, groups, reach, past_stream, past_row, C: tl.constexpr, COLUMNS: tl.constexpr
):
    """Rows `slot` of [B * reach] <- what lies S groups further on in past | h."""
    stream, live = slot // reach, slot < streams * reach
    to = slot - stream * reach
    at = to + groups
    wide = stream.to(tl.int64)
    source = tl.where(at < reach, past + wide * past_stream + at * past_row, h + (wide * groups + at - reach) * C)
    goal = moved + wide * past_stream + to * past_row
    for first in range(0, C, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        wanted = live[:, None] & (column < C)[None, :]
        value = tl.load(source[:, None] + column[None, :], mask=wanted, other=0.0)
        tl.store(goal[:, None] + column[None, :], value, mask=wanted)


# The numbers that differ from layer to layer and bucket to bucket are no reason to compile anew.
@triton.jit(do_not_specialize=["rows", "groups", "dilation"])
def _layer(  # type: ignore[no-untyped-def]
    h, h_next, past, moved, cond, gates, gated, residual,
    rows, groups, dilation, past_stream, past_row, cond_row, gated_row,
    C: tl.constexpr, TAPS: tl.constexpr, CAUSAL: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One layer of a WN for all rows; the first programs compute, the others move the past on."""
    program, tiles = tl.program_id(0), tl.cdiv(rows, ROWS)
    if program < tiles:
        row = program * ROWS + tl.arange(0, ROWS)
        live = row < rows
        _gate(
            row, live, h, past, cond, gates, gated, groups, dilation, past_stream, past_row, cond_row, gated_row,
            C, TAPS, CAUSAL, COLUMNS, DEPTH, WIDEN,
        )  # fmt: skip
        if not LAST:
            tl.debug_barrier()  # what other threads of this program have gated can be read from here on
            _add_residual(row, live, h, h_next, gated, residual, gated_row, C, COLUMNS, DEPTH, WIDEN)
    else:
        slot = (program - tiles) * ROWS + tl.arange(0, ROWS)
        reach = (TAPS - 1) * dilation
        _move_past(slot, h, past, moved, rows // groups, groups, reach, past_stream, past_row, C, COLUMNS)


INTERPRETED = not isinstance(_layer, triton.JITFunction)
"""Whether kernels run in Triton's interpreter, on any device; the environment decided it when triton was imported."""


# -------------------------------------------------------------------- the step


class Tiles(NamedTuple):
    """The part of the rows and columns that one program computes at a time; powers of two, at least 16, as tensor cores require.

    Chosen by counting, not by timing: the widest tile of 128 rows needs 48 KiB of shared memory and no more registers than
    there are on sm_80 and sm_90. A GPU may prefer others.
    """

    rows: int
    columns: int
    depth: int
    warps: int

    @classmethod
    def of(cls, rows: int, channels: int, itemsize: int, processors: int) -> "Tiles":
        """As many programs as the device has processors, then larger ones; columns that waste the fewest."""
        tall = next((size for size in (16, 32, 64) if rows <= size * processors), 128)
        wide = min((64, 32, 16), key=lambda size: -channels % size)
        return cls(tall, wide, max(16, 64 // itemsize), 8 if tall == 128 else 4)


class _BoundWN(NamedTuple):
    """The layers of one WN, ready to be called: their arguments never change."""

    h: Tensor  # [B * S, C], what the first one reads
    gated: Tensor  # [B * S, L * C]
    launches: list[Callable[[], Any]]


class TritonStep(EagerStep):
    """See EagerStep. All memory and every launch is made once; the state is moved on in place, by the last of them."""

    def __init__(self, weights: Folded, state: State, groups: int) -> None:
        super().__init__(weights, state, groups)
        cuda = weights.device.type == "cuda"
        self._processors = torch.cuda.get_device_properties(weights.device).multi_processor_count if cuda else 4
        self._moved = torch.empty_like(state.past)
        self._moved_harmonic = torch.empty_like(state.harmonic_past)
        memory = self._memory(self.config.channels, self.config.layers)
        self._wns = [self._bound(flow.wn, *memory, state.past, self._moved) for flow in weights.flows]
        if self.config.source is not None and weights.harmonic is not None:
            memory = self._memory(self.config.source.harmonic_channels, self.config.source.harmonic_layers)
            self._wns.append(self._bound(weights.harmonic, *memory, state.harmonic_past, self._moved_harmonic))

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """See Step."""
        with torch.cuda.device_of(z):  # Triton launches on the current device, whatever its arguments lie on
            audio = super().__call__(windows, z)
        if self.config.causal:
            self.state.past.copy_(self._moved)
            self.state.harmonic_past.copy_(self._moved_harmonic)
        return audio

    def layers(self, number: int, own: Tensor) -> Tensor:
        """See EagerStep."""
        weights, bound = self.weights.wns[number], self._wns[number]
        torch.addmm(self._driven[:, weights.source], own, weights.start, out=bound.h)
        for launch in bound.launches:
            launch()
        return bound.gated

    def _memory(self, width: int, layers: int) -> tuple[Tensor, Tensor]:
        """What WNs of one shape share: h [2, B * S, C], and what is gated [B * S, L * C]."""
        return torch.stack([self.scratch(width)] * 2), self.scratch(layers * width)

    def _bound(self, wn: WNWeights, h: Tensor, gated: Tensor, past: Tensor, moved: Tensor) -> "_BoundWN":
        conds, parts = self._cond[:, wn.cond].split(2 * h.shape[2], 1), gated.split(h.shape[2], 1)
        launches = [
            self._launch(layer, (h[i % 2], h[1 - i % 2]), past, moved, conds[i], parts[i])
            for i, layer in enumerate(wn.layers)
        ]
        return _BoundWN(h[0], gated, launches)

    def _launch(
        self, layer: LayerWeights, h: tuple[Tensor, Tensor], past: Tensor, moved: Tensor, cond: Tensor, gated: Tensor
    ) -> Callable[[], Any]:
        config, (rows, width) = self.config, gated.shape
        reach, causal = (config.kernel - 1) * layer.dilation, config.causal
        tiles = Tiles.of(rows, width, self.weights.dtype.itemsize, self._processors)
        before = past[:, layer.past] if causal else layer.padding
        stream, row = before.stride()[:2] if causal else (0, 0)  # one row, wherever a tap leaves the chunk
        programs = triton.cdiv(rows, tiles.rows)
        if causal:
            programs += triton.cdiv(self.batch * reach, tiles.rows)
        return partial(
            _layer[(programs,)],
            *h, before, moved[:, layer.past], cond, layer.gates, gated,
            layer.gates if layer.residual is None else layer.residual,
            rows, self.groups, layer.dilation,
            stream, row, cond.stride(0), gated.stride(0),
            C=width, TAPS=config.kernel, CAUSAL=causal, LAST=layer.residual is None,
            ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
            WIDEN=INTERPRETED and self.weights.dtype == torch.bfloat16, num_warps=tiles.warps,
        )  # fmt: skip
