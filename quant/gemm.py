"""Integer matrix products on CPUs: cpp_ext's kernels for torch tensors, registered as operators of torch.

>>> import torch; from quant import gemm
>>> packed = gemm.pack(torch.ones(3, 8, dtype=torch.int8))
>>> gemm.multiply(torch.full((2, 8), -2, dtype=torch.int8), packed)
tensor([[-16, -16, -16],
        [-16, -16, -16]], dtype=torch.int32)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cpp_ext import _gemm
from quant.quantizers import largest_code, peak
from quant.shift import exponents, scales

OFFSET = 128  # code 0 as a byte of the left side
PAD = 16  # inner dimensions are filled up to multiples of so many codes, so that what is one here can be columns there


class Packed(NamedTuple):
    """The right side as kernels read it, (n, k) codes."""

    panels: Tensor
    corrections: Tensor
    n: int
    k: int


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def pack(b: Tensor) -> Packed:
    """Codes (n, k), int8."""
    n, k = b.shape
    filled = torch.nn.functional.pad(b, (0, -k % PAD)).contiguous()
    columns = _round_up(n, _gemm.COLUMNS)
    panels = torch.empty(columns * filled.shape[1], dtype=torch.int8)
    corrections = torch.empty(columns, dtype=torch.int32)
    _gemm.pack(filled, panels, corrections)
    return Packed(panels, corrections, n, k)


def to_bytes(codes: Tensor) -> Tensor:
    """Codes (m, k), int8 -> bytes of the left side, uint8 (m, k rounded up to a multiple of PAD)."""
    return torch.nn.functional.pad((codes.view(torch.uint8) ^ OFFSET), (0, -codes.shape[1] % PAD), value=OFFSET)


@torch.library.custom_op("narrowbit::multiply", mutates_args=())
def _multiply(a: Tensor, panels: Tensor, corrections: Tensor, n: int) -> Tensor:
    c = torch.empty(a.shape[0], n, dtype=torch.int32)
    if c.numel():
        _gemm.multiply(torch.get_num_threads(), a.contiguous(), panels, corrections, c)
    return c


@_multiply.register_fake
def _(a: Tensor, panels: Tensor, corrections: Tensor, n: int) -> Tensor:
    return a.new_empty(a.shape[0], n, dtype=torch.int32)


def multiply(a: Tensor, b: Packed) -> Tensor:
    """a (m, k) codes int8, or bytes uint8 from to_bytes, times packed (n, k) transposed -> int32 (m, n), exact.

    Raises ValueError for a k that is not b's, or above 131,072.
    """
    if a.shape[1] != (b.k if a.dtype == torch.int8 else _round_up(b.k, PAD)):
        raise ValueError(f"a has {a.shape[1]} columns, b was packed with {b.k}")
    return _multiply(to_bytes(a) if a.dtype == torch.int8 else a, b.panels, b.corrections, b.n)


def interleaved(a: Tensor, b: Tensor) -> Tensor:
    """The product over rows: a (k, m) and b (k, n) bytes as of to_bytes -> a^T b, int32 (m, n), exact.

    n a multiple of 16. Nothing is transposed: kernels read four rows side by side. Raises ValueError for k above
    131,072.
    """
    return _interleaved(a, b)


@torch.library.custom_op("narrowbit::multiply_interleaved", mutates_args=())
def _interleaved(a: Tensor, b: Tensor) -> Tensor:
    k, m, n = a.shape[0], a.shape[1], b.shape[1]
    left, right = (torch.empty(-(-k // 4), width, 4, dtype=torch.uint8) for width in (m, n))
    corrections = torch.empty(_round_up(n, _gemm.COLUMNS), dtype=torch.int32)
    _gemm.interleave(a.contiguous(), left)
    _gemm.interleave(b.contiguous(), right, corrections)
    c = torch.empty(m, n, dtype=torch.int32)
    _gemm.multiply_interleaved(torch.get_num_threads(), left, right, corrections, c)
    return c


@_interleaved.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[1], b.shape[1], dtype=torch.int32)


class Left(NamedTuple):
    """The left side of a product: shifted codes as bytes. A value is (byte - 128) * scale."""

    bytes: Tensor
    scale: Tensor
    exponents: Tensor


def shift_quantize(x: Tensor, bits: int, groups: int, seed: int | None = None) -> Left:
    """ShiftQuant of the columns of x (n, c), float32, shifted and ready to multiply: quant.channel in two passes.

    With a seed by chance. Raises NonFinite, and ValueError where shifted codes do not fit a byte.
    """
    x = x.contiguous()
    n, c = x.shape
    q, threads = largest_code(bits), torch.get_num_threads()
    if q << (groups - 1) > 127:
        raise ValueError(f"{bits}-bit codes of {groups} groups do not fit a byte once shifted")
    ranges = torch.empty(c)
    _gemm.ranges(threads, x, ranges.view(torch.uint32))
    largest = peak(ranges)
    e = exponents(ranges, largest, groups)
    inverse, scale = scales(largest, e, bits)
    made = torch.empty(n, _round_up(c, PAD), dtype=torch.uint8)
    if c:
        _gemm.rows(threads, x, inverse, (groups - 1 - e).to(torch.uint8), q, seed, made)
    return Left(made, scale * 2.0 ** -(groups - 1), e)
