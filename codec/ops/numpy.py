"""The entropy path in int64: its definition. Every other executor must give these integers.

Arrays have shape (channels, height, width). Their numbers stand for value * 2^fractional bits; which of the formats of
codec.network an array has follows from the operation that made it. Rounding is always floor(x + 1/2), by shifts; then
the value saturates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from codec.network import HEAD, INDEX_PER_HEAD, NARROW, STEP, WIDE
from codec.tables import SCALES

Ints = NDArray[np.int64]
Format = tuple[int, int]


def shift_right(x: Ints, bits: Ints | int) -> Ints:
    """x * 2^-bits, rounded half up; negative bits multiply."""
    bits = np.asarray(bits)
    down, up = np.maximum(bits, 0), np.maximum(-bits, 0)
    return ((x << up) + ((1 << down) >> 1)) >> down


def saturate(x: Ints, form: Format) -> Ints:
    top = 1 << (form[1] - 1)
    return np.clip(x, -top, top - 1)


def divide(a: Ints, b: Ints | int) -> Ints:
    """a / b, rounded half up, b > 0."""
    return (2 * a + b) // (2 * b)


class NumpyOps:
    """arrays: the integer part of a bundle (codec.bundle says what is in it). qp arguments are rate levels 0..63."""

    def __init__(self, arrays: Mapping[str, NDArray]):
        self.arrays = arrays

    def get(self, name: str) -> Ints:
        return self.arrays[name].astype(np.int64)

    def column(self, name: str, qp: int, lo: int = 0, hi: int | None = None) -> Ints:
        return self.get(name)[qp, lo:hi, None, None]

    # -- layers -----------------------------------------------------------------------------------------------------
    def block(self, f: Callable[..., Ints], x: Ints, name: str) -> Ints:
        return f(self, x, name)

    def channels(self, x: Ints) -> int:
        return x.shape[0]

    def narrow(self, x: Ints) -> Ints:
        """From wide; narrow values that need nothing never come here."""
        return saturate(shift_right(x, WIDE[0] - NARROW[0]), NARROW)

    def requantize(self, total: Ints, name: str, form: Format) -> Ints:
        """Sum of products -> a format: the products of a row have the input's bits and the row's exponent."""
        return saturate(shift_right(total, (self.get(f"{name}/exponent") + NARROW[0] - form[0])[:, None, None]), form)

    def conv(self, x: Ints, name: str, out: int, form: Format = NARROW, bias: bool = True) -> Ints:
        total = np.tensordot(self.get(f"{name}/weight"), x, 1)
        if bias:
            total = total + self.get(f"{name}/bias")[:, None, None]
        return self.requantize(total, name, form)

    def depthwise(self, x: Ints, name: str) -> Ints:
        (_, h, w), padded = x.shape, np.pad(x, ((0, 0), (2, 2), (2, 2)))
        total = np.broadcast_to(self.get(f"{name}/bias")[:, None, None], x.shape)
        for tap, weight in enumerate(self.get(f"{name}/weight").T):
            row, column = divmod(tap, 5)
            total = total + weight[:, None, None] * padded[:, row : row + h, column : column + w]
        return self.requantize(total, name, NARROW)

    def act(self, x: Ints) -> Ints:
        return self.gated(x, x)

    def gated(self, u: Ints, v: Ints) -> Ints:
        return shift_right(u * (np.clip(v, -64, 64) + 64), 7)

    def add(self, a: Ints, b: Ints) -> Ints:
        return saturate(a + b, WIDE)

    def concat(self, *xs: Ints) -> Ints:
        return np.concatenate(xs)

    def split(self, x: Ints, at: int) -> tuple[Ints, Ints]:
        return x[:at], x[at:]

    def halves(self, x: Ints) -> tuple[Ints, Ints]:
        return self.split(x, len(x) // 2)

    def shuffle(self, x: Ints, r: int) -> Ints:
        c, h, w = x.shape
        return x.reshape(r, r, c // r // r, h, w).transpose(2, 3, 0, 4, 1).reshape(c // r // r, h * r, w * r)

    def pack(self, x: Ints, half: int) -> Ints:
        return np.concatenate((x[:, 0::2, 1 - half :: 2], x[:, 1::2, half::2]), 1)

    # -- global context ---------------------------------------------------------------------------------------------
    def linear_attention(self, q: Ints, k: Ints, v: Ints, heads: int) -> Ints:
        """softmax by a table of exp(-i/16); quotients carry 8 (context) and 12 (weights of a query) bits."""
        shape, (q, k, v) = q.shape, (t.reshape(heads, -1, t.shape[1] * t.shape[2]) for t in (q, k, v))
        table = self.get("exp")
        e = table[k.max(2, keepdims=True) - k]  # (heads, d, n)
        context = divide((v @ e.transpose(0, 2, 1)) << 8, e.sum(2)[:, None, :])  # (heads, d of v, d of k)
        p = table[q.max(1, keepdims=True) - q]
        p = divide(p << 12, p.sum(1, keepdims=True))
        return saturate(shift_right(context @ p, 20), NARROW).reshape(shape)

    def mean_positions(self, x: Ints) -> Ints:
        return divide(x.sum((1, 2), keepdims=True), x.shape[1] * x.shape[2])

    # -- per-QP vectors ---------------------------------------------------------------------------------------------
    def offset(self, x: Ints, name: str, qp: int) -> Ints:
        return x + (self.column(name, qp) << (WIDE[0] - NARROW[0]))

    def gain(self, x: Ints, name: str, qp: int, lo: int, hi: int, fraction: int, form: Format) -> Ints:
        """x with `fraction` fractional bits, times mantissa * 2^-exponent."""
        exponent = self.column(f"{name}/exponent", qp, lo, hi)
        return saturate(shift_right(x * self.column(name, qp, lo, hi), exponent + fraction - form[0]), form)

    def to_steps(self, mean: Ints, name: str, qp: int, lo: int, hi: int) -> Ints:
        return self.gain(mean, name, qp, lo, hi, HEAD[0], STEP)

    def to_signal(self, y_hat: Ints, name: str, qp: int, lo: int, hi: int) -> Ints:
        return self.gain(y_hat, name, qp, lo, hi, STEP[0], NARROW)

    def scale_index(self, head: Ints, name: str, qp: int, lo: int, hi: int) -> Ints:
        """Offsets have 4 fractional bits, a head 12 and INDEX_PER_HEAD indexes to the unit."""
        total = head * INDEX_PER_HEAD + (self.column(name, qp, lo, hi) << (HEAD[0] - 4))
        return np.clip(shift_right(total, HEAD[0]), 0, SCALES - 1)

    def halve_steps(self, z_hat: Ints) -> Ints:
        return saturate(shift_right(z_hat, 1 + STEP[0] - NARROW[0]), NARROW)
