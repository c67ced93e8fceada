"""The parts of a step as compiled loops (numba), for all streams of a thread: the same arithmetic as step.py.

A flow is one call that allocates nothing:

    for each layer, for each stream (so a layer's weights are fetched once for all streams)
        window <- past | h                    the taps of a dilated convolution are rows of it, shifted by the dilation,
        gates  <- bias + sum of taps @ W      so they need no gathering
        gated  <- s_b - 2 s_a s_b             s = sigmoid(gates)
        h      <- h + gated @ residual

Rules: arrays are C-contiguous; everything here is told its memory, so that calls may run side by side without the
interpreter's lock. Sizes are those of step.py, F being the frames of a window.
"""

import numpy as np

from glowd.flow.inversion.numba_math import (
    affine,
    bounded,
    clear,
    copy,
    exp,
    fill,
    gate,
    harmonic_affine,
    limited,
    silu,
    silu64,
    sin_half_turns,
)
from glowd.flow.inversion.numba_matmul import accumulate, jit
from glowd.flow.network.source import SMALLEST

# ------------------------------------------------------------- frames to groups


@jit
def normalise(windows, lowest, highest, mean, std, into):  # type: ignore[no-untyped-def]
    """Frames [B, F, M], held in a range -> normalised, in the precision of `into`."""
    for b in range(len(windows)):
        for f in range(windows.shape[1]):
            for m in range(windows.shape[2]):
                value = min(max(windows[b, f, m], lowest), highest)
                into[b, f, m] = (into.dtype.type(value) - into.dtype.type(mean)) / into.dtype.type(std)


@jit
def context(frames, first, weights, bias, out):  # type: ignore[no-untyped-def]
    """Windows of frames [B, F, M], the first beginning at frame `first` -> bias + their products [B, n, N]."""
    for b in range(len(frames)):
        fill(out[b], bias)
        for tap in range(weights.shape[1] // frames.shape[2]):
            top = tap * frames.shape[2]
            seen = frames[b, first + tap : first + tap + out.shape[1]]
            accumulate(seen, 0, weights, top, frames.shape[2], out[b], 0)


@jit
def dense(h, weights, bias, out):  # type: ignore[no-untyped-def]
    """Rows h [n, K or more] -> bias + their products [n, N]."""
    fill(out, bias)
    accumulate(h, 0, weights, 0, weights.shape[1], out, 0)


@jit
def activate(h):  # type: ignore[no-untyped-def]
    """SiLU of rows, in place."""
    for row in h:
        silu(row)


@jit
def activate64(h):  # type: ignore[no-untyped-def]
    """The same in float64."""
    for row in h:
        silu64(row)


@jit
def add(h, into):  # type: ignore[no-untyped-def]
    """into += h, of one shape."""
    for i in range(len(h)):
        for c in range(h.shape[1]):
            into[i, c] += h[i, c]


@jit
def spread(found, into):  # type: ignore[no-untyped-def]
    """Conditioning of the groups of whole frames [B, n, C] -> of S groups [B, S, C], S <= n + 1: the last may be repeated."""
    last, groups = found.shape[1] - 1, into.shape[1]
    skip = 0 if groups > 1 else last
    for b in range(len(into)):
        for s in range(groups):
            row, wanted = into[b, s], found[b, min(s + skip, last)]
            for c in range(len(row)):
                row[c] = wanted[c]


# ------------------------------------------------------------------- the source


@jit
def _turns(log_f0, phase, rate_hz, hop, turn, f0_hz):  # type: ignore[no-untyped-def]
    """Fraction of the phase in cycles, and f0, of the samples of n frames [n * hop]; returns the phase behind them."""
    for frame in range(len(log_f0) - 1):
        start = np.float64(log_f0[frame])
        hz, growth = np.exp(start), np.exp((np.float64(log_f0[frame + 1]) - start) / hop)
        turns = 0.0
        for t in range(frame * hop, (frame + 1) * hop):
            turns += hz / rate_hz
            cycles = phase + turns
            f0_hz[t] = hz
            turn[t] = cycles - np.floor(cycles + 0.5)
            hz *= growth
        phase += turns
    return phase


@jit
def _pulses(logit, turn, f0_hz, top_hz, most, hop, p, q):  # type: ignore[no-untyped-def]
    """The pulse trains of n frames [n * hop] each: see source.py."""
    one, least = np.float32(1), np.float32(SMALLEST / np.pi)
    for frame in range(len(logit) - 1):
        start, slope = logit[frame], (logit[frame + 1] - logit[frame]) / np.float32(hop)
        for j in range(hop):
            t = frame * hop + j
            k = np.float32(min(max(np.floor(top_hz / f0_hz[t]), 1.0), most))
            w = turn[t]
            w = least if abs(w) < least else w
            voicing = one / (one + exp(-(start + slope * np.float32(j))))
            level = voicing * np.sqrt(np.float32(2) / k) * sin_half_turns(k * w) / sin_half_turns(w)
            angle = (k + one) * w
            p[t] = level * sin_half_turns(angle + np.float32(0.5))
            q[t] = level * sin_half_turns(angle)


@jit
def drive(  # type: ignore[no-untyped-def]
    log_f0, logit, phase, before, blocks, turn, f0_hz, rows, basis, rate_hz, hop, top_hz, most
):
    """The source of one stream: pitches [n + 1] -> rows [S, 2G]; its phase [1] and last block `before` [2, G] move on.

    blocks: [2, S + 1, G], the block before and those of S groups; behind the last frame is silence.
    """
    group, groups = blocks.shape[2], len(turn) // blocks.shape[2]
    phase[0] = _turns(log_f0, phase[0], rate_hz, hop, turn, f0_hz)
    p, q = blocks[0, 1:], blocks[1, 1:]
    _pulses(logit, turn, f0_hz, top_hz, most, hop, p.reshape(-1), q.reshape(-1))
    clear(p[groups:])
    clear(q[groups:])
    clear(rows)
    for train in range(2):
        copy(before[train : train + 1], blocks[train, :1])
        accumulate(blocks[train, :-1], 0, basis, 0, group, rows, train * group)
        accumulate(blocks[train, 1:], 0, basis, group, group, rows, train * group)
        copy(blocks[train, -1:], before[train : train + 1])


# ----------------------------------------------------------------------- a WN


@jit
def _layer(wn, i, window, groups, cond, past, gates, gated):  # type: ignore[no-untyped-def]
    """Layer i for one stream: h, the last S rows of its window, and its past [reach, C] move on; it writes its C columns of
    `gated` [S, L * C]."""
    reach, dilation, weights, width = len(past), 1 << i, wn.gates[i], window.shape[1]
    window = window[len(window) - groups - reach :]
    copy(past, window[:reach])
    copy(window[groups:], past)
    fill(gates, wn.gate_bias[i])
    for tap in range(reach // dilation + 1):
        accumulate(window[tap * dilation : tap * dilation + groups], 0, weights, tap * width, width, gates, 0)
    accumulate(cond, 0, weights, (reach // dilation + 1) * width, cond.shape[1], gates, 0)
    gate(gates, gated, i * width)
    if i < len(wn.residual):
        accumulate(gated, i * width, wn.residual[i], 0, width, window[reach:], 0)


@jit
def _wn(wn, x, first, own, source, cond, past, at, windows, gates, gated):  # type: ignore[no-untyped-def]
    """A WN for all streams: `own` columns of x [B, S, G] from `first`, and the source [B, S, Q] -> gated [B, S, L * C]."""
    groups, (longest, width) = x.shape[1], windows.shape[1:]
    for b in range(len(x)):
        h = windows[b, longest - groups :]
        fill(h, wn.start_bias)
        accumulate(x[b], first, wn.start, 0, own, h, 0)
        accumulate(source[b], 0, wn.start, own, source.shape[2], h, 0)
    taps = (wn.gates.shape[2] - cond.shape[2]) // width
    for i in range(len(wn.gates)):
        reach = (taps - 1) << i
        for b in range(len(x)):
            _layer(wn, i, windows[b], groups, cond[b], past[b, at : at + reach], gates, gated[b])
        at += reach


@jit
def flow(wn, unmix, x, cond, source, past, first, at, bound, windows, gates, gated, ends):  # type: ignore[no-untyped-def]
    """One flow backwards, in place: x [B, S, G] from column `first`; the flow's past begins at row `at`."""
    n = len(wn.end_bias)
    _wn(wn, x, first, n // 2, source, cond, past, at, windows, gates, gated)
    for b in range(len(x)):
        fill(ends, wn.end_bias)
        accumulate(gated[b], 0, wn.end, 0, gated.shape[2], ends, 0)
        affine(x[b], first, ends, n, bound)
        clear(ends)
        accumulate(x[b], first, unmix, 0, n, ends, 0)
        for s in range(x.shape[1]):
            row = x[b, s, first:]
            for c in range(n):
                row[c] = ends[s, c]


@jit
def harmonic(wn, x, cond, source, past, bound, windows, gates, gated, ends):  # type: ignore[no-untyped-def]
    """The harmonic layer backwards, in place: x [B, S, G]."""
    _wn(wn, x, 0, 0, source, cond, past, 0, windows, gates, gated)
    for b in range(len(x)):
        fill(ends, wn.end_bias)
        accumulate(gated[b], 0, wn.end, 0, gated.shape[2], ends, 0)
        harmonic_affine(x[b], ends, bound)


# -------------------------------------------------------------- groups to audio


@jit
def rescale(x, minus_log, bound, middle):  # type: ignore[no-untyped-def]
    """x [B, S, G] * exp(bounded minus_log [B, S, G]), in place."""
    for b in range(len(x)):
        for s in range(x.shape[1]):
            row, minus = x[b, s], minus_log[b, s]
            bounded(minus, bound, middle)
            for c in range(len(row)):
                row[c] *= exp(minus[c])


@jit
def overlap_add(x, basis, tail, both, audio):  # type: ignore[no-untyped-def]
    """Lapped groups [B, S, G] -> audio [B, S, G], one group late; keeps the new tail [B, G]."""
    group = x.shape[2]
    for b in range(len(x)):
        clear(both)
        accumulate(x[b], 0, basis, 0, group, both, 0)
        for s in range(x.shape[1]):
            out, first, second = audio[b, s], both[s], tail[b] if s == 0 else both[s - 1, group:]
            for c in range(group):
                out[c] = first[c] + second[c]
        copy(both[-1:, group:], tail[b : b + 1])


@jit
def limit(audio, knee):  # type: ignore[no-untyped-def]
    """See bounds.py: audio [B, S, G], in place."""
    for b in range(len(audio)):
        for s in range(audio.shape[1]):
            limited(audio[b, s], knee)
