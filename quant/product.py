"""A product of rows with exact scales on both sides: each row of the input and each output of the weights has its own.

y = x w^T sums over the inputs, outside of which these scales lie. On the way back they would lie inside of a sum: over
outputs for the gradient of x, over rows for that of w. So they go into dy before its codes are made, once for each of
the two, with exact scales of what lies outside of it. (Ours; for the forward product alone "vector-wise" in Dettmers et
al. 2022. "two_sided" for linear layers.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpp_ext import _gemm
from quant import gemm, portable
from quant.config import ShiftQuantConfig
from quant.operators import operator
from quant.quantizers import clipping_ratio, code_range, finite, largest_code, nearest, reciprocal

ROWS = range(16, 193)  # that kernels take at once: few enough to stay near, and enough to fill them


def columns(rows: int) -> int:
    """A divisor of them: so many are taken at once."""
    return next((n for n in reversed(ROWS) if rows % n == 0), rows if 0 < rows <= _gemm.MOST_POSITIONS else 1)


def row_ranges(x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of each row of x (n, c), times factors (c): the largest size, and that of the most negative number, 0 where none
    is. Raises NonFinite."""
    factors = x.new_ones(x.shape[1], dtype=torch.float32) if factors is None else factors
    if not x.is_cpu:
        sizes, negative = portable.row_ranges(x, factors)
    else:
        bits = torch.zeros(2, len(x), dtype=torch.int32)
        _gemm.row_ranges(torch.get_num_threads(), *gemm.arrays(gemm.reals(x), factors, bits.view(torch.uint32)))
        sizes, negative = bits.view(torch.float32)
    return finite(sizes), negative


def column_range(x: Tensor, factors: Tensor) -> Tensor:
    """The largest |x| of each column of x (n, c), times factors (n). Raises NonFinite."""
    if not x.is_cpu:
        return finite(portable.column_range(x, factors))
    bits = torch.zeros(x.shape[1], dtype=torch.int32)
    _gemm.scaled_ranges(torch.get_num_threads(), *gemm.arrays(gemm.reals(x), factors, bits.view(torch.uint32)))
    return finite(bits.view(torch.float32))


def _scale(peak: Tensor, q: int) -> Tensor:
    """Of codes of at most q; 0 where everything is, which then counts for nothing in the scales of others. A GPU
    divides by a tensor, not by a number (quant.shift)."""
    return peak / peak.new_tensor(float(q))


def row_scales(x: Tensor, bits: int) -> tuple[Tensor, int, int]:
    """Of activations x (n, c): a scale for each row, and the least and the largest code of all."""
    peak, negative = row_ranges(x)
    lowest, largest = code_range(bits, float(negative.amax()), float(peak.amax()))
    scale = _scale(peak, largest)
    if lowest:
        scale = torch.maximum(scale, _scale(negative, -lowest))
    return scale * clipping_ratio(bits), lowest, largest


def quantize_outputs(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes int8 of weights w (outputs, inputs), and a scale for each output."""
    w, q = w.detach().float().contiguous(), largest_code(bits)
    scale = _scale(row_ranges(w)[0], q) * clipping_ratio(bits)
    return nearest(w, reciprocal(scale)[:, None], -q, q), scale


@operator("linear")
def multiply(x: Tensor, w: Tensor, bits_a: int, bits_w: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x (rows, inputs), w (outputs, inputs) -> y of the type of x; the codes of x, packed; those of w; the scales of
    rows and of outputs; the least code of x. Raises NonFinite."""
    codes, scale_w = quantize_outputs(w, bits_w)
    scale, lowest, largest = row_scales(x, bits_a)
    end = torch.tensor(lowest, device=x.device)
    if not x.is_cpu:
        y, saved = portable.multiply_rows(x, codes, scale, scale_w, lowest, largest)
        return y, saved, codes, scale, scale_w, end
    real = gemm.reals(x)
    y = torch.empty(len(x), len(w), dtype=torch.bfloat16 if x.dtype is torch.bfloat16 else torch.float32)
    bits, line = gemm.saved_bits(bits_a), columns(len(x))
    saved = torch.empty(_gemm.saved_size(len(x) // line, 1, line, x.shape[1], 1, bits), dtype=torch.uint8)
    from_x, rows, from_w, of_rows, of_outputs, to, kept = gemm.arrays(
        real, reciprocal(scale), codes, scale, scale_w, gemm.reals(y), saved
    )
    _gemm.multiply_rows(
        torch.get_num_threads(), from_x, rows, lowest, largest, bits, from_w, line, of_rows, of_outputs, to, kept
    )
    return y.to(x.dtype), saved, codes, scale, scale_w, end


@torch.library.register_fake("narrowbit::linear")
def _(x: Tensor, w: Tensor, bits_a: int, bits_w: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    bits, line = gemm.saved_bits(bits_a), columns(int(x.shape[0]))
    of_line = (line * ((x.shape[1] + 3) // 4 * 4) + 7) // 8 * bits
    saved = x.new_empty(x.shape[0] // line * of_line, dtype=torch.uint8)
    return (
        x.new_empty(x.shape[0], w.shape[0]), saved if x.is_cpu else x.new_empty(x.shape, dtype=torch.int8),
        x.new_empty(w.shape, dtype=torch.int8), x.new_empty(x.shape[0], dtype=torch.float32),
        x.new_empty(w.shape[0], dtype=torch.float32), x.new_empty((), dtype=torch.int64),
    )  # fmt: skip


@operator("linear_backward")
def gradients(
    dy: Tensor, saved: Tensor, codes: Tensor, scale: Tensor, scale_w: Tensor, end: Tensor, bits_a: int, bits_g: int,
    seed: Tensor | None, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Of x, with the type of dy, and of w, float32; empty where they are not wanted. Raises NonFinite."""
    q, chance = largest_code(bits_g), None if seed is None else int(seed)
    of_rows, of_outputs = _scale(row_ranges(dy, scale_w)[0], q), _scale(column_range(dy, scale), q)
    if not dy.is_cpu:
        return portable.multiply_rows_backward(
            dy, saved, codes, scale, scale_w, of_rows, of_outputs, bits_g, chance, wanted
        )
    dx = torch.empty(len(dy), codes.shape[1], dtype=torch.bfloat16 if dy.dtype is torch.bfloat16 else torch.float32)
    dw = torch.empty(codes.shape, dtype=torch.int64) if wanted[1] else None
    from_dy, inverse, rows, inverse_w, rows_w, kept, from_w, factors, to = gemm.arrays(
        gemm.reals(dy), scale_w, reciprocal(of_rows), reciprocal(of_outputs), scale, saved, codes, of_rows,
        gemm.reals(dx),
    )  # fmt: skip
    _gemm.multiply_rows_backward(
        torch.get_num_threads(), from_dy, inverse, rows, inverse_w, rows_w, q, chance, gemm.saved_bits(bits_a),
        int(end), kept, from_w, columns(len(dy)), factors, to, wanted[0], dw,
    )  # fmt: skip
    found_w = scale.new_empty(0) if dw is None else dw * of_outputs[:, None]
    return dx.to(dy.dtype) if wanted[0] else dy.new_empty(0), found_w


@torch.library.register_fake("narrowbit::linear_backward")
def _(
    dy: Tensor, saved: Tensor, codes: Tensor, scale: Tensor, scale_w: Tensor, end: Tensor, bits_a: int, bits_g: int,
    seed: Tensor | None, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx, dw = dy.new_empty(dy.shape[0], codes.shape[1]), scale.new_empty(codes.shape)
    return dx if wanted[0] else dy.new_empty(0), dw if wanted[1] else scale.new_empty(0)


class Product(torch.autograd.Function):
    """x (rows, inputs), w (outputs, inputs) -> y (rows, outputs)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, config: ShiftQuantConfig) -> Tensor:
        y, *saved = multiply(x, w, config.bits_a, config.bits_w)
        # A seed for each pass, from torch's generator.
        seed = torch.randint(1 << 31, ()) if config.rounding == "stochastic" else None
        ctx.save_for_backward(*saved, seed)
        ctx.config = config
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (*saved, seed), wanted = ctx.saved_tensors, list(ctx.needs_input_grad[:2])
        dx, dw = gradients(dy, *saved, ctx.config.bits_a, ctx.config.bits_g, seed, wanted)
        return dx if wanted[0] else None, dw if wanted[1] else None, None
