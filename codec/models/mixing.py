"""Training: the token-mixing block and the depthwise convolution with gradients by compiled loops.

The matrix products are torch's; everything between them is one pass each: in cpp_ext (layers.hpp) on CPUs, in
codec.models.gpu_loops on GPUs. The same values as codec.network._token_mixing with codec.models.ops gives, to rounding
errors: tests/codec/test_mixing.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codec.models.ops import rounded_products
from codec.network import NARROW, limits

Grads = tuple[Tensor | None, ...]


def _storage(kind: int, x: Tensor) -> tuple[Any, torch.dtype, torch.dtype]:
    """The loops; the type of what lies between them and the matrix products: bfloat16 where products round to it
    anyway, unless their sums must be exact; and the type around the depthwise convolution, which a CPU wants wide."""
    dtype = torch.bfloat16 if kind < 2 and rounded_products() else torch.float32
    if x.is_cpu:
        from cpp_ext import _layers

        return (_layers if dtype == torch.float32 else _layers.half), dtype, torch.float32
    from codec.models import gpu_loops

    return gpu_loops, dtype, dtype


def _like(x: Tensor, channels: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    return x.new_empty(*x.shape[:-1], channels or x.shape[-1], dtype=dtype)


def _linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b.to(x.dtype), x.flatten(0, -2), w.t()).view(*x.shape[:-1], -1)


def _linear_back(x: Tensor, w: Tensor, g: Tensor, learns: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of the input and, where they are wanted, the weights."""
    rows = g.flatten(0, -2)
    return (rows @ w).view(x.shape), (rows.t() @ x.flatten(0, -2)).float() if learns else None


class Depthwise(torch.autograd.Function):
    """narrow(5x5 convolution of each channel); x (batch, height, width, channels), w (channels, 25)."""

    @staticmethod
    def forward(ctx: Any, kind: int, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        loops, taps, y = _storage(2, x)[0], w.t().contiguous(), _like(x)
        loops.depthwise(kind, 0, x, taps, b.detach(), y)
        ctx.kind, ctx.loops = kind, loops
        ctx.save_for_backward(x, taps, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Grads:
        x, taps, y = ctx.saved_tensors
        dtaps = torch.empty_like(taps) if ctx.needs_input_grad[2] else None
        dx, db = _like(x), x.new_empty(x.shape[-1])
        ctx.loops.depthwise_back(ctx.kind, 0, x, taps, y, g.contiguous(), _like(x), dx, dtaps, db)
        return None, dx, None if dtaps is None else dtaps.t(), db


class TokenMixing(torch.autograd.Function):
    """A whole block: x (batch, height, width, c); arrays as codec.models.ops.BLOCK_ARRAYS names them, rounded already
    where the arithmetic rounds."""

    @staticmethod
    def forward(ctx: Any, kind: int, x: Tensor, *arrays: Tensor) -> Tensor:
        w_in, b_in, w_mix, b_mix, w_out, b_out, w_gate, b_gate, w_back, b_back = (a.detach() for a in arrays)
        loops, dtype, around = _storage(kind, x)
        w_in, w_out, w_gate, w_back = (w.to(dtype) for w in (w_in, w_out, w_gate, w_back))
        taps, same = w_mix.t().contiguous(), kind == 0 and dtype == torch.float32
        h = x
        if not same:
            h = _like(x, dtype=dtype)
            loops.narrow(kind, 0, x, h)
        t = _linear(h, w_in, b_in)
        a, d = _like(x, dtype=around), _like(x, dtype=dtype)
        loops.act(kind, 0, t, a)
        loops.depthwise(kind, 0, a, taps, b_mix, d)
        o = _linear(d, w_out, b_out)
        mid = _like(x)
        mid_h = mid if same else _like(x, dtype=dtype)
        loops.add(kind, 0, x, o, mid, None if same else mid_h)
        uv = _linear(mid_h, w_gate, b_gate)
        m = _like(x, uv.shape[-1] // 2, dtype)
        loops.gate(kind, 0, uv, m)
        r, y = _linear(m, w_back, b_back), _like(x)
        loops.add(kind, 0, mid, r, y, None)
        ctx.kind, ctx.loops = kind, loops
        ctx.save_for_backward(x, h, t, a, d, o, mid, mid_h, uv, m, r, w_in, taps, w_out, w_gate, w_back)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Grads:
        x, h, t, a, d, o, mid, mid_h, uv, m, r, w_in, taps, w_out, w_gate, w_back = ctx.saved_tensors
        kind, loops, c, dtype, learns = ctx.kind, ctx.loops, x.shape[-1], d.dtype, ctx.needs_input_grad[2]
        g = g.contiguous()
        db_back, db_gate, db_out, db_mix, db_in = (x.new_empty(n) for n in (c, uv.shape[-1], c, c, c))

        g_mid, g_r = _like(x), _like(x, dtype=dtype)
        loops.add_back(kind, 0, mid, r, g, None, g_mid, g_r, db_back)
        g_m, dw_back = _linear_back(m, w_back, g_r, learns)
        g_uv = torch.empty_like(uv)
        loops.gate_back(kind, 0, uv, g_m, g_uv, db_gate)
        g_h, dw_gate = _linear_back(mid_h, w_gate, g_uv, learns)
        g_x, g_o = _like(x), g_r
        loops.add_back(kind, 0, x, o, g_mid, g_h, g_x, g_o, db_out)
        g_d, dw_out = _linear_back(d, w_out, g_o, learns)
        passed = g_d if dtype == a.dtype else _like(x)
        g_a = g_mid if a.dtype == torch.float32 else torch.empty_like(a)
        dtaps = torch.empty_like(taps) if learns else None
        loops.depthwise_back(kind, 0, a, taps, d, g_d, passed, g_a, dtaps, db_mix)
        g_t = g_h
        loops.act_back(kind, 0, t, g_a, g_t, db_in)
        g_in, dw_in = _linear_back(h, w_in, g_t, learns)
        if kind:  # what enters the first layer was clipped
            low, high = limits(NARROW)
            g_in.mul_((x > low) & (x < high))
        g_x += g_in
        dw_mix = None if dtaps is None else dtaps.t()
        return None, g_x, dw_in, db_in, dw_mix, db_mix, dw_out, db_out, dw_gate, db_gate, dw_back, db_back
