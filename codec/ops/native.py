"""The network on numpy arrays and the compiled loops of cpp_ext, shape (height, width, channels), float32.

On the entropy path values are real numbers, integers times a power of two, as in codec.models.ops: float32 holds them
and their sums without error. The same functions without rounding are the transforms.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.network import BOUND, HEAD, INDEX_PER_HEAD, NARROW, STEP, WIDE, limits
from codec.tables import SCALES
from cpp_ext import _layers

Floats = NDArray[Any]
Format = tuple[int, int]

_FORMS = {NARROW: 1, WIDE: 2, HEAD: 3}  # Form of layers.hpp
_NONE, _ACT, _GATE, _ADD = 0, 4, 5, 6
_FLOAT, _ROUND = 0, 2  # arithmetic of layers.hpp


def real(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The integer part of a bundle as real numbers: integers times their power of two, exact in float32."""
    found = {}
    for name, a in arrays.items():
        if name.startswith("tables/") or name.endswith("/exponent"):
            continue
        layer, _, kind = name.rpartition("/")
        value: Any = a.astype(np.float64 if name == "exp" else np.float32)
        if kind in ("weight", "bias"):
            scale = np.exp2(-arrays[f"{layer}/exponent"].astype(np.float32))
            value *= scale[:, None] if kind == "weight" else scale * np.float32(2.0 ** -NARROW[0])
        elif f"{name}/exponent" in arrays:
            value *= np.exp2(-arrays[f"{name}/exponent"].astype(np.float32))
        elif name in ("y/index", "h_s/offset"):
            value /= 16
        found[name] = value
    return found


def panels(w: Floats) -> Floats:
    """Weights (rows, k) as cpp_ext wants them: (panels, k, PANEL), zeros at the end."""
    rows, k = w.shape
    packed = np.empty((-(-rows // _layers.PANEL), k, _layers.PANEL), np.float32)
    _layers.pack(np.ascontiguousarray(w), packed)
    return packed


def gate_panels(w: Floats) -> Floats:
    """The same for a gate's weights: u's and v's apart."""
    u, v = np.split(w, 2)
    return np.concatenate((panels(u), panels(v)))


class NativeOps:
    """arrays: values by name, from `real` or a bundle's float part; they are laid out for the loops as they are used.
    exact: entropy path, else transforms. qp arguments are rate levels 0..63; threads 0: all."""

    def __init__(self, arrays: Mapping[str, NDArray], exact: bool, threads: int):
        self.arrays, self.exact, self.threads = arrays, exact, threads
        self.kind = _ROUND if exact else _FLOAT
        self.laid_out: dict[str, Floats] = {}
        self.of_thread = threading.local()

    def buffer(self, name: str, *shape: int) -> Floats:
        """Memory for what a block forgets: the kernel clears pages it hands out, which costs as much as a layer. Each
        thread has its own, of the largest size that it has needed."""
        kept, size = vars(self.of_thread), prod(shape)
        if name not in kept or kept[name].size < size:
            kept[name] = np.empty(size, np.float32)
        found: Floats = kept[name][:size].reshape(shape)
        return found

    def layout(self, name: str, how: Callable[[Floats], Floats]) -> Floats:
        if name not in self.laid_out:
            self.laid_out[name] = how(self.arrays[name].astype(np.float32, copy=False))
        return self.laid_out[name]

    # -- layers -----------------------------------------------------------------------------------------------------
    def fix(self, x: Floats, form: Format) -> Floats:
        if not self.exact:
            return x
        one, (low, high) = np.float32(1 << form[0]), limits(form)
        return np.floor(np.clip(x, np.float32(low), np.float32(high)) * one + np.float32(0.5)) / one

    def narrow(self, x: Floats) -> Floats:
        if not self.exact:
            return x
        h = np.empty_like(x)
        _layers.narrow(self.kind, self.threads, x, h)
        return h

    def product(self, form: int, x: Floats, name: str, y: Floats, bias: bool = True, **after: Floats | None) -> Floats:
        w = self.layout(f"{name}/weight", gate_panels if form == _GATE else panels)
        b = self.layout(f"{name}/bias", np.ascontiguousarray) if bias else None
        _layers.linear(self.kind, self.threads, form, np.ascontiguousarray(x), w, b, y, **after)
        return y

    def conv(self, x: Floats, name: str, out: int, form: Format = NARROW, bias: bool = True) -> Floats:
        y = np.empty((*x.shape[:-1], out), np.float32)
        return self.product(_FORMS[form] if self.exact else _NONE, x, name, y, bias)

    def depthwise(self, x: Floats, name: str, y: Floats | None = None) -> Floats:
        taps = self.layout(f"{name}/weight", lambda w: np.ascontiguousarray(w.T))
        y = np.empty_like(x) if y is None else y
        bias = self.layout(f"{name}/bias", np.ascontiguousarray)
        _layers.depthwise(self.kind, self.threads, x[None], taps, bias, y[None])
        return y

    def block(self, f: Callable[..., Floats], x: Floats, name: str) -> Floats:
        """A token-mixing block, step by step what codec.network says, each step one pass over memory."""
        x = np.ascontiguousarray(x)
        h, w, c = x.shape
        one, two, narrow, half = (self.buffer(*b) for b in (
            ("one", h, w, c), ("two", h, w, c), ("narrow", h, w, c), ("half", h, w, 3 * c // 2)
        ))  # fmt: skip
        before = x
        if self.exact:
            before = narrow
            _layers.narrow(self.kind, self.threads, x, before)
        self.product(_ACT, before, f"{name}/in", one)
        self.depthwise(one, f"{name}/mix", two)
        middle = self.product(_ADD, two, f"{name}/out", one, residual=x, narrow=narrow if self.exact else None)
        self.product(_GATE, narrow if self.exact else middle, f"{name}/gate", half)
        return self.product(_ADD, half, f"{name}/back", np.empty_like(x), residual=middle)

    def act(self, x: Floats) -> Floats:
        h, x = np.empty_like(x), np.ascontiguousarray(x)
        _layers.act(self.kind, self.threads, x, h)
        return h

    def gated(self, u: Floats, v: Floats) -> Floats:
        gate = np.clip(v, np.float32(-4), np.float32(4)) * np.float32(0.125) + np.float32(0.5)
        return self.fix(u * gate, NARROW)

    def channels(self, x: Floats) -> int:
        return int(x.shape[-1])

    def concat(self, *xs: Floats) -> Floats:
        return np.concatenate(xs, -1)

    def split(self, x: Floats, at: int) -> tuple[Floats, Floats]:
        return x[..., :at], x[..., at:]

    def unshuffle(self, x: Floats, r: int) -> Floats:
        h, w, c = x.shape
        return x.reshape(h // r, r, w // r, r, c).transpose(0, 2, 1, 3, 4).reshape(h // r, w // r, c * r * r)

    def shuffle(self, x: Floats, r: int) -> Floats:
        h, w, c = x.shape
        return x.reshape(h, w, r, r, c // r // r).transpose(0, 2, 1, 3, 4).reshape(h * r, w * r, c // r // r)

    def pack(self, x: Floats, half: int) -> Floats:
        return np.concatenate((x[0::2, 1 - half :: 2], x[1::2, half::2]))

    # -- global context ---------------------------------------------------------------------------------------------
    def linear_attention(self, q: Floats, k: Floats, v: Floats, heads: int) -> Floats:
        out, table = np.empty_like(q), self.arrays["exp"].astype(np.int32)
        q, k, v = (np.ascontiguousarray(t) for t in (q, k, v))
        _layers.attention(self.threads, heads, q, k, v, table, out)
        return out

    def mean_positions(self, x: Floats) -> Floats:
        n = x.shape[0] * x.shape[1]
        total = x.sum((0, 1), dtype=np.float64, keepdims=True) * 16
        mean: Floats = (np.floor((2 * total + n) / (2 * n)) / 16).astype(np.float32)
        return mean

    # -- per-QP vectors ---------------------------------------------------------------------------------------------
    def vector(self, name: str, qp: int, lo: int = 0, hi: int | None = None) -> Floats:
        return self.arrays[name][qp, lo:hi].astype(np.float32, copy=False)

    def scale(self, x: Floats, name: str, qp: int) -> Floats:
        return x * self.vector(name, qp)

    from_steps = scale

    def offset(self, x: Floats, name: str, qp: int) -> Floats:
        return x + self.vector(name, qp)

    def to_steps(self, mean: Floats, name: str, qp: int, lo: int, hi: int) -> Floats:
        return self.fix(mean * self.vector(name, qp, lo, hi), STEP)

    def to_signal(self, y_hat: Floats, name: str, qp: int, lo: int, hi: int) -> Floats:
        return self.fix(y_hat * self.vector(name, qp, lo, hi), NARROW)

    def scale_index(self, head: Floats, name: str, qp: int, lo: int, hi: int) -> Floats:
        raw = np.floor(head * np.float32(INDEX_PER_HEAD) + self.vector(name, qp, lo, hi) + np.float32(0.5))
        return np.clip(raw, 0, SCALES - 1)

    def halve_steps(self, z_hat: Floats) -> Floats:
        return self.fix(z_hat * np.float32(0.5), NARROW)

    # -- transforms only --------------------------------------------------------------------------------------------
    def bounded(self, y: Floats, name: str) -> Floats:
        limit = np.float32(BOUND) * self.arrays[name].astype(np.float32, copy=False)
        return np.clip(y, -limit, limit)

    def standardize(self, y: Floats, name: str) -> Floats:
        return y / self.arrays[name].astype(np.float32, copy=False)

    def energy(self, y: Floats, name: str) -> Floats:
        v = self.standardize(y, name)
        return np.concatenate((np.clip(v, np.float32(-8), np.float32(8)), np.log1p(np.abs(v))), -1)

    def residual(self, y_hat: Floats, r: Floats) -> Floats:
        return y_hat + np.float32(0.5) * np.tanh(r)
