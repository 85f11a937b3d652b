"""Real numbers -> integer codes of b bits, at most 2^(b-1)-1 in size, no zero-point; to the nearest or by chance.

Arithmetic is float32 in a fixed order without fused operations, so that kernels can give the same codes bit for bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RANDOM_BITS = 16  # of stochastic rounding: its bias is at most 2^-17 of a step


class NonFinite(ValueError):
    """A tensor to be quantized holds NaN or infinity."""


def largest_code(bits: int) -> int:
    """7 for 4 bits. Raises ValueError outside of 2..8."""
    if bits not in range(2, 9):
        raise ValueError(f"codes have 2 to 8 bits, not {bits}")
    return (1 << (bits - 1)) - 1


def code_range(bits: int, negative: float, peak: float) -> tuple[int, int]:
    """The least and the largest code of activations, from the size of their most negative number and the largest size.

    -7..7 of 4 bits, or where no negative number is half as large as the largest, all codes that the bits have, and no
    more below 0 than needed: 0..15 after ReLU, -4..59 of 6 bits after GELU. Those are even in number, so that what adds
    them to a code before it rounds (QONNX) rounds ties alike, and fewer than in signed codes: of 2 and 3 bits there may
    be no such number. 8 bits are always signed. (Ours.)
    """
    q = largest_code(bits)
    codes = 2 * q + 1
    below = 2 * math.ceil(codes * negative / (negative + peak) / 2) if negative else 0
    return (-q, q) if bits == 8 or 2 * negative >= peak > 0 or below >= q else (-below, codes - below)


def clipping_ratio(bits: int) -> float:
    """The share of a tensor's largest size that codes of its weights or activations end at: 0.55 for 4 bits, 1 above.

    Our choice: on the layers of a trained 4-bit ResNet-20 within 0.4 dB of the least squared error for 3 and 4 bits;
    codes up to the largest number have 4 to 5 dB more. A Transformer of 6 bits is no better for it (docs/quant.md).
    """
    return (2 * bits + 3) / 20 if bits <= 4 else 1.0


def random_bits(shape: torch.Size | tuple[int, ...], seed: int, device: torch.device | str = "cpu") -> Tensor:
    """The counter generator: RANDOM_BITS random bits for each element, a hash of its place and of the seed, int64.

    Two elements share a 32-bit hash (the "lowbias32" finalizer): of each 32 elements the first 16 have the lower halves
    of 16 hashes, the others the upper ones.
    """
    n = int(torch.Size(shape).numel())
    mask = 0xFFFFFFFF
    x = (torch.arange(-(-n // 32) * 16, dtype=torch.int64, device=device) * 0x9E3779B1 + seed) & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        x = x ^ (x >> shift)
        if factor:
            x = (x * factor) & mask
    x = x.view(-1, 16)
    return torch.cat((x & 0xFFFF, x >> 16), 1).flatten()[:n].reshape(shape)


def finite(found: Tensor) -> Tensor:
    """Ranges as they are. Raises NonFinite."""
    if not bool(torch.isfinite(found).all()):
        raise NonFinite("a tensor to be quantized holds NaN or infinity")
    return found


def peak(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """max |x| over all dimensions or some, which stay as ones. Raises NonFinite."""
    if dims == ():
        found = x.abs()
    elif x.numel() == 0:
        shape = [1 if dims is None or d in dims else s for d, s in enumerate(x.shape)]
        found = x.new_zeros(shape)
    else:
        found = x.abs().amax(list(range(x.dim())) if dims is None else dims, keepdim=True)
    return finite(found)


def reciprocal(scale: Tensor) -> Tensor:
    """What values are multiplied by to become codes: 0 where a scale is 0, or too small for its reciprocal, as that of
    numbers that are all 0 (near enough) is."""
    return torch.where(scale >= torch.finfo(torch.float32).tiny, 1 / scale, 0.0)


def nearest(x: Tensor, inverse: Tensor, lowest: int, largest: int) -> Tensor:
    """x * inverse, an inverse scale that broadcasts, to the nearest code, ties to even; int8."""
    return (x * inverse).round().clamp(lowest, largest).to(torch.int8)


def stochastic(x: Tensor, inverse: Tensor, bits: int, seed: int) -> Tensor:
    """x * inverse to one of its two neighbours by chance, so that the mean is kept; int8.

    floor(x * inverse + u), u in the middles of 2^16 bins of 0..1.
    """
    q = largest_code(bits)
    u = (random_bits(x.shape, seed, x.device).float() + 0.5) * 2.0**-RANDOM_BITS
    return torch.floor(x * inverse + u).clamp(-q, q).to(torch.int8)
