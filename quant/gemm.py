"""Integer matrix products on CPUs: cpp_ext's kernels for torch tensors, registered as operators of torch.

>>> import torch; from quant import gemm
>>> packed = gemm.pack(torch.ones(3, 8, dtype=torch.int8))
>>> gemm.multiply(torch.full((2, 8), -2, dtype=torch.int8), packed)
tensor([[-16, -16, -16],
        [-16, -16, -16]], dtype=torch.int32)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpp_ext import _gemm
from quant.operators import operator
from quant.quantizers import clipping_ratio, finite, largest_code
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


@operator("multiply")
def _multiply(a: Tensor, panels: Tensor, corrections: Tensor, n: int) -> Tensor:
    c = torch.empty(a.shape[0], n, dtype=torch.int32)
    if c.numel():
        _gemm.multiply(torch.get_num_threads(), a.contiguous(), panels, corrections, c)
    return c


@torch.library.register_fake("narrowbit::multiply")
def _(a: Tensor, panels: Tensor, corrections: Tensor, n: int) -> Tensor:
    return a.new_empty(a.shape[0], n, dtype=torch.int32)


def multiply(a: Tensor, b: Packed) -> Tensor:
    """a (m, k) codes int8, or bytes uint8 from to_bytes, times packed (n, k) transposed -> int32 (m, n), exact.

    Raises ValueError for a k that is not b's, or above 131,072.
    """
    if a.shape[1] != (b.k if a.dtype == torch.int8 else _round_up(b.k, PAD)):
        raise ValueError(f"a has {a.shape[1]} columns, b was packed with {b.k}")
    return _multiply(to_bytes(a) if a.dtype == torch.int8 else a, b.panels, b.corrections, b.n)


class Left(NamedTuple):
    """The left side of a product: shifted codes as bytes. A value is (byte - 128) * scale."""

    bytes: Tensor
    scale: Tensor
    exponents: Tensor


def reals(x: Tensor) -> Tensor:
    """As kernels take real numbers: contiguous, bfloat16 as uint16, and what is neither that nor float32 as float32.

    Raises TypeError for integers and complex numbers.
    """
    if not x.is_floating_point():
        raise TypeError(f"low-bit layers take real numbers, not {x.dtype}")
    if x.dtype is torch.bfloat16:
        return x.contiguous().view(torch.uint16)
    return x.contiguous().float()


def autocast(x: Tensor) -> Tensor:
    """x as products take it inside of torch.autocast, which leaves integers and float64 as they are."""
    kind = x.device.type
    casts = torch.is_autocast_enabled(kind) and x.is_floating_point() and x.dtype is not torch.float64
    return x.to(torch.get_autocast_dtype(kind)) if casts else x


def arrays(*tensors: Tensor) -> list[Any]:
    """The same memory for numpy, which kernels take in a fraction of the time."""
    return [t.numpy() for t in tensors]


def native(x: Tensor) -> Tensor:
    """x as it is where kernels can read it: dense in some order of dimensions, float32 or bfloat16. Else a copy."""
    if not x.is_floating_point():
        raise TypeError(f"low-bit layers take real numbers, not {x.dtype}")
    if x.dtype not in (torch.float32, torch.bfloat16):
        x = x.float()
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return x if dense else x.contiguous()


def expect_native(x: Tensor) -> None:
    """Raises ValueError for what kernels do not take as it is: they would write into a copy."""
    if native(x) is not x:
        raise ValueError(f"an operator of narrowbit takes dense float32 or bfloat16, not {x.dtype} {tuple(x.stride())}")


def ranges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel of x (n, c), as of reals: the largest |x|, and the size of the most negative x, 0 where none is.
    Raises NonFinite."""
    bits = torch.zeros(2, x.shape[1], dtype=torch.int32)
    if x.numel():
        _gemm.ranges(torch.get_num_threads(), *arrays(x, bits.view(torch.uint32)))
    found, negative = finite(bits.view(torch.float32))
    return found, negative


def check_groups(bits: int, groups: int) -> int:
    """The largest code. Raises ValueError where shifted codes do not fit a byte."""
    q = largest_code(bits)
    if q << (groups - 1) > 127:
        raise ValueError(f"{bits}-bit codes of {groups} groups do not fit a byte once shifted")
    return q


def quantize_rows(x: Tensor, inverse: Tensor, shifts: Tensor, lowest: int, largest: int, seed: int | None) -> Tensor:
    """x (n, c) as of reals -> bytes of the left side."""
    made = torch.empty(x.shape[0], _round_up(x.shape[1], PAD), dtype=torch.uint8)
    if made.numel():
        _gemm.rows(torch.get_num_threads(), x, inverse, shifts, lowest, largest, seed, made)
    return made


def shift_quantize(x: Tensor, bits: int, groups: int, seed: int | None = None) -> Left:
    """ShiftQuant of the columns of x (n, c), shifted and ready to multiply: quant.channel in two passes.

    With a seed by chance. Raises NonFinite, and ValueError where shifted codes do not fit a byte.
    """
    q = check_groups(bits, groups)
    x = reals(x)
    r, _ = ranges(x)
    largest = r.amax() if len(r) else torch.tensor(0.0)
    e = exponents(r, largest, groups)
    inverse, scale = scales(largest, e, q)
    made = quantize_rows(x, inverse, (groups - 1 - e).to(torch.uint8), -q, q, seed)
    return Left(made, scale.view(1) * 2.0 ** -(groups - 1), e)


def quantize_weights(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes int8 of any shape, to the nearest, and their one scale: quant.weights."""
    w = w.detach().contiguous().float()
    r, _ = ranges(w.view(len(w), -1))
    q = largest_code(bits)
    inverse, scale = scales(r.amax() * clipping_ratio(bits), torch.zeros(len(r), dtype=torch.int64), q)
    made = torch.empty(w.shape, dtype=torch.uint8)
    none = torch.zeros(len(r), dtype=torch.uint8)
    x, inverse_of, shifts, to = arrays(w.view(len(w), -1), inverse, none, made.view(len(w), -1))
    _gemm.rows(torch.get_num_threads(), x, inverse_of, shifts, -q, q, None, to)
    return (made ^ OFFSET).view(torch.int8), scale.view(1)


def saved_bits(bits: int) -> int:
    """That codes are packed to while they wait for the way back."""
    return 4 if bits <= 4 else 6 if bits <= 6 else 8
