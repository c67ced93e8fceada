"""Functions of one value or one row (numba), for the work between the products of numba_backend.py.

They are written out because the compiler vectorises loops over them; it cannot vectorise calls of a mathematical library.
"""

import numpy as np

from glowd.flow.inversion.numba_matmul import Array, jit


@jit
def exp(x):  # type: ignore[no-untyped-def]  # a float32 scalar
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


@jit
def exp64(x):  # type: ignore[no-untyped-def]  # a float64 scalar
    """The same in float64: the Taylor series to r^13, x held to +-700."""
    x = min(max(x, -700.0), 700.0)
    n = np.floor(x * (1 / np.log(2)) + 0.5)
    r = x - n * 0.693147180369123816490  # log(2) in two parts again (fdlibm's)
    r = r - n * 1.90821492927058770002e-10
    e = 1 / 6227020800
    e = e * r + 1 / 479001600
    e = e * r + 1 / 39916800
    e = e * r + 1 / 3628800
    e = e * r + 1 / 362880
    e = e * r + 1 / 40320
    e = e * r + 1 / 5040
    e = e * r + 1 / 720
    e = e * r + 1 / 120
    e = e * r + 1 / 24
    e = e * r + 1 / 6
    e = e * r + 1 / 2
    e = e * r + 1
    e = e * r + 1
    return e * np.int64((np.int64(n) + 1023) << 52).view(np.float64)


@jit
def sin_half_turns(w):  # type: ignore[no-untyped-def]  # a float32 scalar
    """sin(pi w): the nearest whole number taken off, then the Taylor series to the 11th power, below a float's last place."""
    n = np.floor(w + np.float32(0.5))
    x = (w - n) * np.float32(np.pi)
    odd = n - np.float32(2) * np.floor(n * np.float32(0.5))
    y = x * x
    s = np.float32(-1 / 39916800)
    s = s * y + np.float32(1 / 362880)
    s = s * y + np.float32(-1 / 5040)
    s = s * y + np.float32(1 / 120)
    s = s * y + np.float32(-1 / 6)
    return (x + x * y * s) * (np.float32(1) - np.float32(2) * odd)


@jit
def silu(values):  # type: ignore[no-untyped-def]  # a row
    """x / (1 + e^-x)."""
    for c in range(len(values)):
        values[c] = values[c] / (np.float32(1) + exp(-values[c]))


@jit
def silu64(values):  # type: ignore[no-untyped-def]  # a row in float64
    """The same."""
    for c in range(len(values)):
        values[c] = values[c] / (1.0 + exp64(-values[c]))


@jit
def bounded(values: Array, bound: float, middle: float) -> None:
    """middle + bound * tanh((v - middle) / bound) of a row, if there is a bound (not 0): tanh(x) = 1 - 2 / (e^2x + 1)."""
    if bound > 0:
        one, two = np.float32(1), np.float32(2)
        for c in range(len(values)):
            values[c] = middle + bound - two * bound / (one + exp((values[c] - middle) * (two / bound)))


@jit
def limited(samples: Array, knee: float) -> None:
    """A row bent beyond the knee, if there is one (not 0): see bounds.py."""
    if knee > 0:
        one, two = np.float32(1), np.float32(2)
        room = one - knee
        for t in range(len(samples)):
            size = abs(samples[t])
            bent = one - two * room / (one + exp((size - knee) * (two / room)))
            samples[t] = samples[t] if size <= knee else np.copysign(bent, samples[t])


@jit
def gate(gates: Array, gated: Array, column: int) -> None:
    """[S, 2C] -> C columns of `gated`: s_b - 2 s_a s_b."""
    one, width = np.float32(1), gates.shape[1] // 2
    for s in range(len(gates)):
        for c in range(width):
            s_a, s_b = one / (one + exp(-gates[s, c])), one / (one + exp(-gates[s, width + c]))
            gated[s, column + c] = s_b - (s_a + s_a) * s_b


@jit
def affine(x: Array, first: int, given: Array, n: int, bound: float) -> None:
    """Second half of n columns of x: (b - shift) * exp(minus log-scale)."""
    half = n // 2
    for s in range(len(x)):
        b, shift, minus_log = x[s, first + half : first + n], given[s, :half], given[s, half:n]
        bounded(minus_log, bound, np.float32(0))
        for c in range(half):
            b[c] = (b[c] - shift[c]) * exp(minus_log[c])


@jit
def harmonic_affine(x: Array, given: Array, bound: float) -> None:
    """x * exp(minus log-scale) + shift."""
    width = x.shape[1]
    for s in range(len(x)):
        minus_log = given[s, width:]
        bounded(minus_log, bound, np.float32(0))
        for c in range(width):
            x[s, c] = x[s, c] * exp(minus_log[c]) + given[s, c]


@jit
def copy(source: Array, into: Array) -> None:
    """into <- source, of one shape."""
    for s in range(len(into)):
        for c in range(into.shape[1]):
            into[s, c] = source[s, c]


@jit
def clear(rows: Array) -> None:
    """rows <- 0."""
    for s in range(len(rows)):
        for c in range(rows.shape[1]):
            rows[s, c] = 0


@jit
def fill(into: Array, row: Array) -> None:
    """Every row's first columns <- row."""
    for s in range(len(into)):
        for c in range(len(row)):
            into[s, c] = row[c]
