"""What stands between the matrix products of a token-mixing block, on GPUs: one Triton kernel for one loop of
cpp_ext/layers.hpp, under the same names, with the same values and gradients.

Arrays are contiguous, channels last, float32 or bfloat16; sums are float32. Sums over positions are made in two steps,
in an order that never changes, so the same step gives the same bits again.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024  # of a program, where elements stand alone
ROWS, COLUMNS, TURNS = 32, 64, 4  # of a program that sums over positions: a tile, and how many of them
TAPS_TURNS = 16


@triton.jit
def _fix(x, kind: tl.constexpr, low: tl.constexpr, high: tl.constexpr, step: tl.constexpr):
    if kind >= 1:
        x = tl.minimum(tl.maximum(x, low), high)
    if kind == 2:
        x = tl.floor(x * step + 0.5) / step
    return x


@triton.jit
def _narrow(x, kind: tl.constexpr):
    return _fix(x, kind, -8.0, 7.9375, 16.0)


@triton.jit
def _wide(x, kind: tl.constexpr):
    return _fix(x, kind, -128.0, 127.99609375, 256.0)


@triton.jit
def _inside(x, kind: tl.constexpr, low: tl.constexpr, high: tl.constexpr):
    if kind == 0:
        inside = x == x
    else:
        inside = (x > low) & (x < high)
    return inside


@triton.jit
def _passes_narrow(x, kind: tl.constexpr):
    return _inside(x, kind, -8.0, 7.9375)


@triton.jit
def _passes_wide(x, kind: tl.constexpr):
    return _inside(x, kind, -128.0, 127.99609375)


@triton.jit
def _sigmoid(x):
    return tl.minimum(tl.maximum(x * 0.125 + 0.5, 0.0), 1.0)


@triton.jit
def _slope(x):
    return tl.where((x > -4.0) & (x < 4.0), 0.125, 0.0)


@triton.jit
def _narrow_kernel(x, h, n, kind: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(h + i, _narrow(tl.load(x + i, i < n).to(tl.float32), kind), i < n)


@triton.jit
def _act_kernel(t, h, n, kind: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    u = _narrow(tl.load(t + i, i < n).to(tl.float32), kind)
    tl.store(h + i, _narrow(u * _sigmoid(u), kind), i < n)


@triton.jit
def _gate_kernel(uv, h, n, c, kind: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    at = i + i // c * c
    u = _narrow(tl.load(uv + at, i < n).to(tl.float32), kind)
    v = _narrow(tl.load(uv + at + c, i < n).to(tl.float32), kind)
    tl.store(h + i, _narrow(u * _sigmoid(v), kind), i < n)


@triton.jit
def _add_kernel(x, r, y, h, n, kind: tl.constexpr, both: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    total = _wide(tl.load(x + i, i < n) + _wide(tl.load(r + i, i < n).to(tl.float32), kind), kind)
    tl.store(y + i, total, i < n)
    if both:
        tl.store(h + i, _narrow(total, kind), i < n)


@triton.jit
def _masked_kernel(y, dy, passed, n, kind: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    inside = _passes_narrow(tl.load(y + i, i < n).to(tl.float32), kind)
    tl.store(passed + i, tl.where(inside, tl.load(dy + i, i < n).to(tl.float32), 0.0), i < n)


@triton.jit
def _act_back_kernel(
    t, dh, dt, sums, n, c, kind: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, turns: tl.constexpr
):
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((rows, columns), tl.float32)
    for turn in range(turns):
        j = (tl.program_id(0) * turns + turn) * rows + tl.arange(0, rows)
        mask = (j[:, None] < n) & (k[None, :] < c)
        i = j[:, None] * c + k[None, :]
        raw = tl.load(t + i, mask, other=0.0).to(tl.float32)
        u = _narrow(raw, kind)
        s = _sigmoid(u)
        g = tl.load(dh + i, mask, other=0.0).to(tl.float32)
        inside = _passes_narrow(u * s, kind) & _passes_narrow(raw, kind)
        d = tl.where(inside, g * (s + u * _slope(u)), 0.0)
        tl.store(dt + i, d, mask)
        total += d
    tl.store(sums + tl.program_id(0) * c + k, tl.sum(total, 0), k < c)


@triton.jit
def _gate_back_kernel(
    uv, dh, duv, sums, n, c, kind: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, turns: tl.constexpr
):
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    total_u = tl.zeros((rows, columns), tl.float32)
    total_v = tl.zeros((rows, columns), tl.float32)
    for turn in range(turns):
        j = (tl.program_id(0) * turns + turn) * rows + tl.arange(0, rows)
        mask = (j[:, None] < n) & (k[None, :] < c)
        i = j[:, None] * c + k[None, :]
        at = j[:, None] * (2 * c) + k[None, :]
        u = tl.load(uv + at, mask, other=0.0).to(tl.float32)
        v = tl.load(uv + at + c, mask, other=0.0).to(tl.float32)
        a = _narrow(u, kind)
        b = _narrow(v, kind)
        s = _sigmoid(b)
        g = tl.where(_passes_narrow(a * s, kind), tl.load(dh + i, mask, other=0.0).to(tl.float32), 0.0)
        gu = tl.where(_passes_narrow(u, kind), g * s, 0.0)
        gv = tl.where(_passes_narrow(v, kind), g * a * _slope(b), 0.0)
        tl.store(duv + at, gu, mask)
        tl.store(duv + at + c, gv, mask)
        total_u += gu
        total_v += gv
    to = sums + tl.program_id(0) * (2 * c) + k
    tl.store(to, tl.sum(total_u, 0), k < c)
    tl.store(to + c, tl.sum(total_v, 0), k < c)


@triton.jit
def _add_back_kernel(
    x, r, dy, dh, dx, dr, sums, n, c,
    kind: tl.constexpr, both: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, turns: tl.constexpr
):  # fmt: skip
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((rows, columns), tl.float32)
    for turn in range(turns):
        j = (tl.program_id(0) * turns + turn) * rows + tl.arange(0, rows)
        mask = (j[:, None] < n) & (k[None, :] < c)
        i = j[:, None] * c + k[None, :]
        g = tl.load(dy + i, mask, other=0.0).to(tl.float32)
        if kind == 0:
            if both:
                g += tl.load(dh + i, mask, other=0.0).to(tl.float32)
            tl.store(dx + i, g, mask)
        else:
            part = tl.load(r + i, mask, other=0.0).to(tl.float32)
            raw = tl.load(x + i, mask, other=0.0) + _wide(part, kind)
            if both:
                inside = _passes_narrow(_wide(raw, kind), kind)
                g += tl.where(inside, tl.load(dh + i, mask, other=0.0).to(tl.float32), 0.0)
            g = tl.where(_passes_wide(raw, kind), g, 0.0)
            tl.store(dx + i, g, mask)
            g = tl.where(_passes_wide(part, kind), g, 0.0)
        tl.store(dr + i, g, mask)
        total += g
    tl.store(sums + tl.program_id(0) * c + k, tl.sum(total, 0), k < c)


@triton.jit
def _shifted(x, p, k, i, j, n, row, column, height, width, c):
    inside = (p < n) & (row + i >= 2) & (row + i < height + 2) & (column + j >= 2) & (column + j < width + 2)
    at = (p + (i - 2) * width + (j - 2))[:, None] * c + k[None, :]
    return tl.load(x + at, inside[:, None] & (k[None, :] < c), other=0.0).to(tl.float32)


@triton.jit
def _depthwise_kernel(
    x, taps, bias, y, n, height, width, c,
    kind: tl.constexpr, flipped: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    p = tl.program_id(0) * rows + tl.arange(0, rows)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    column = p % width
    row = p // width % height
    total = tl.zeros((rows, columns), tl.float32)
    for i in tl.static_range(5):
        for j in tl.static_range(5):
            value = _shifted(x, p, k, i, j, n, row, column, height, width, c)
            tap = tl.load(taps + (24 - 5 * i - j if flipped else 5 * i + j) * c + k, k < c, other=0.0)
            total += value * tap[None, :]
    if not flipped:
        total = _narrow(total + tl.load(bias + k, k < c, other=0.0)[None, :], kind)
    tl.store(y + p[:, None] * c + k[None, :], total, (p[:, None] < n) & (k[None, :] < c))


@triton.jit
def _taps_kernel(
    x, dy, sums, n, height, width, c, rows: tl.constexpr, columns: tl.constexpr, turns: tl.constexpr
):  # one row of taps; sums: (programs, 26, c), the last of which is the bias
    i = tl.program_id(2)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    s0 = tl.zeros((rows, columns), tl.float32)
    s1 = tl.zeros((rows, columns), tl.float32)
    s2 = tl.zeros((rows, columns), tl.float32)
    s3 = tl.zeros((rows, columns), tl.float32)
    s4 = tl.zeros((rows, columns), tl.float32)
    total = tl.zeros((rows, columns), tl.float32)
    for turn in range(turns):
        p = (tl.program_id(0) * turns + turn) * rows + tl.arange(0, rows)
        column = p % width
        row = p // width % height
        d = tl.load(dy + p[:, None] * c + k[None, :], (p[:, None] < n) & (k[None, :] < c), other=0.0).to(tl.float32)
        total += d
        s0 += d * _shifted(x, p, k, i, 0, n, row, column, height, width, c)
        s1 += d * _shifted(x, p, k, i, 1, n, row, column, height, width, c)
        s2 += d * _shifted(x, p, k, i, 2, n, row, column, height, width, c)
        s3 += d * _shifted(x, p, k, i, 3, n, row, column, height, width, c)
        s4 += d * _shifted(x, p, k, i, 4, n, row, column, height, width, c)
    to = sums + (tl.program_id(0) * 26 + 5 * i) * c + k
    tl.store(to, tl.sum(s0, 0), k < c)
    tl.store(to + c, tl.sum(s1, 0), k < c)
    tl.store(to + 2 * c, tl.sum(s2, 0), k < c)
    tl.store(to + 3 * c, tl.sum(s3, 0), k < c)
    tl.store(to + 4 * c, tl.sum(s4, 0), k < c)
    if i == 4:
        tl.store(to + 5 * c, tl.sum(total, 0), k < c)


def _programs(n: int) -> tuple[int]:
    return (triton.cdiv(n, ELEMENTS),)


def _positions(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def narrow(kind: int, _: int, x: Tensor, h: Tensor) -> None:
    """h = narrow(x)."""
    _narrow_kernel[_programs(x.numel())](x, h, x.numel(), int(kind), ELEMENTS)


def act(kind: int, _: int, t: Tensor, h: Tensor) -> None:
    """h = t * hardsigmoid(t), both narrow."""
    _act_kernel[_programs(t.numel())](t, h, t.numel(), int(kind), ELEMENTS)


def gate(kind: int, _: int, uv: Tensor, h: Tensor) -> None:
    """h = u * hardsigmoid(v); uv (..., 2c) -> h (..., c)."""
    _gate_kernel[_programs(h.numel())](uv, h, h.numel(), h.shape[-1], int(kind), ELEMENTS)


def add(kind: int, _: int, x: Tensor, r: Tensor, y: Tensor, h: Tensor | None) -> None:
    """y = wide(x + wide(r)), and h = narrow(y) where wanted."""
    _add_kernel[_programs(x.numel())](x, r, y, y if h is None else h, x.numel(), int(kind), h is not None, ELEMENTS)


def _summed(kernel: Any, arrays: tuple[Tensor, ...], n: int, c: int, dbias: Tensor, *kinds: int | bool) -> None:
    programs = triton.cdiv(n, ROWS * TURNS)
    sums = dbias.new_empty(programs, dbias.numel())
    kernel[(programs, triton.cdiv(c, COLUMNS))](*arrays, sums, n, c, *kinds, ROWS, COLUMNS, TURNS)
    torch.sum(sums, 0, out=dbias)


def act_back(kind: int, _: int, t: Tensor, dh: Tensor, dt: Tensor, dbias: Tensor) -> None:
    """dh -> dt and its sum over positions."""
    _summed(_act_back_kernel, (t, dh, dt), *_positions(t), dbias, int(kind))


def gate_back(kind: int, _: int, uv: Tensor, dh: Tensor, duv: Tensor, dbias: Tensor) -> None:
    """dh -> duv and its sum over positions."""
    _summed(_gate_back_kernel, (uv, dh, duv), *_positions(dh), dbias, int(kind))


def add_back(
    kind: int, _: int, x: Tensor, r: Tensor, dy: Tensor, dh: Tensor | None, dx: Tensor, dr: Tensor, dbias: Tensor
) -> None:
    """dy of y, dh of h -> dx, dr and its sum over positions."""
    given = (x, r, dy, dy if dh is None else dh, dx, dr)
    _summed(_add_back_kernel, given, *_positions(x), dbias, int(kind), dh is not None)


def depthwise(kind: int, _: int, x: Tensor, taps: Tensor, bias: Tensor, y: Tensor) -> None:
    """y = narrow(5x5 convolution of each channel + bias); x (batch, height, width, c), taps (25, c)."""
    _depthwise(kind, x, taps, bias, y, False)


def _depthwise(kind: int, x: Tensor, taps: Tensor, bias: Tensor, y: Tensor, flipped: bool) -> None:
    n, c = _positions(x)
    grid = (triton.cdiv(n, ROWS), triton.cdiv(c, COLUMNS))
    _depthwise_kernel[grid](x, taps, bias, y, n, x.shape[1], x.shape[2], c, int(kind), flipped, ROWS, COLUMNS)


def depthwise_back(
    kind: int, _: int, x: Tensor, taps: Tensor, y: Tensor, dy: Tensor, passed: Tensor, dx: Tensor,
    dtaps: Tensor | None, dbias: Tensor,
) -> None:  # fmt: skip
    """dy -> dx and, where wanted, dtaps and dbias. passed: where dy is put without what was clipped; may be dy."""
    if kind or passed.data_ptr() != dy.data_ptr():
        _masked_kernel[_programs(dy.numel())](y, dy, passed, dy.numel(), int(kind), ELEMENTS)
    _depthwise(0, passed, taps, taps, dx, True)
    if dtaps is None:
        return
    n, c = _positions(x)
    programs, columns = triton.cdiv(n, ROWS * TAPS_TURNS), COLUMNS // 2
    sums = dbias.new_empty(programs, 26, c)
    grid = (programs, triton.cdiv(c, columns), 5)
    _taps_kernel[grid](x, passed, sums, n, x.shape[1], x.shape[2], c, ROWS, columns, TAPS_TURNS)
    total = sums.sum(0)
    dtaps.copy_(total[:25])
    dbias.copy_(total[25])
