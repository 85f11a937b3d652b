"""ShiftQuant: groups of channels whose scales are the largest one times powers of two.

A tensor x (rows, channels) has codes q, one scale s and an exponent e for each channel: x is about q * s * 2^-e. In a
matrix product over the channels the powers of two become shifts of the codes by t = T - e, T the largest exponent;
outside of it they are a factor of a row or column. Thresholds and number of groups are our defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.quantizers import clipping_ratio, code_range, largest_code, nearest, peak, stochastic


@dataclass(frozen=True)
class Codes:
    """codes int8; scale and exponents (int64) broadcast over them: the value is codes * scale * 2^-exponents."""

    codes: Tensor
    scale: Tensor
    exponents: Tensor
    bits: int
    groups: int

    def values(self) -> Tensor:
        """What the codes stand for, float32."""
        return self.codes * (self.scale * torch.exp2(-self.exponents.float()))

    def shifted(self) -> Tensor:
        """The codes brought to the scale of the smallest group, int8: codes << (groups - 1 - exponents).

        Raises ValueError where a byte does not hold them: quantize with fewer bits or groups.
        """
        if largest_code(self.bits) << (self.groups - 1) > 127:
            raise ValueError(f"{self.bits}-bit codes of {self.groups} groups do not fit a byte once shifted")
        return (self.codes.int() << (self.groups - 1 - self.exponents)).to(torch.int8)


def exponents(ranges: Tensor, largest: Tensor, groups: int) -> Tensor:
    """For each range r the largest e below `groups` with r * 2^e <= largest, int64; groups - 1 for r = 0.

    By exponents and significands, not by logarithms, which miss at powers of two.
    """
    if groups < 1:
        raise ValueError(f"there is at least one group, not {groups}")
    (m, e), (top_m, top_e) = torch.frexp(ranges.float()), torch.frexp(largest.float())
    found = (top_e - e).long() - (m > top_m).long()
    return torch.where(ranges > 0, found, groups - 1).clamp(0, groups - 1)


def scales(scope: Tensor, e: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """What values are multiplied by to become codes of at most q, and the scale of a code, of range scope * 2^-e; 1 for
    range 0."""
    positive = torch.where(scope > 0, scope, 1.0)
    inverse = torch.where(scope > 0, q / positive, 1.0) * torch.exp2(e.float())
    # A GPU multiplies by the reciprocal of a number; by a tensor it divides, as everything else does.
    return inverse, torch.where(scope > 0, positive / positive.new_tensor(float(q)), 1.0)


def _codes(x: Tensor, scope: Tensor, e: Tensor, bits: int, groups: int, seed: int | None) -> Codes:
    inverse, scale = scales(scope, e, largest_code(bits))
    q = largest_code(bits)
    codes = nearest(x, inverse, -q, q) if seed is None else stochastic(x, inverse, bits, seed)
    return Codes(codes, scale, e, bits, groups)


def per_tensor(x: Tensor, bits: int, seed: int | None = None) -> Codes:
    """One scale. With a seed rounding is by chance, without to the nearest. Raises NonFinite, as all of these."""
    scope = peak(x)
    return _codes(x, scope, torch.zeros_like(scope, dtype=torch.int64), bits, 1, seed)


def activations(x: Tensor, bits: int) -> Codes:
    """As weights, but for their ends."""
    return to_nearest(x, *activation_range(x, bits), bits)


def activation_range(x: Tensor, bits: int) -> tuple[int, int]:
    """quant.quantizers.code_range of x. Raises NonFinite."""
    largest = float(peak(x))
    return code_range(bits, max(-float(x.amin()), 0.0) if x.numel() else 0.0, largest)


def weights(w: Tensor, bits: int) -> Codes:
    """One scale, to the nearest; 4 bits and less are clipped (quant.quantizers.clipping_ratio)."""
    return to_nearest(w, -largest_code(bits), largest_code(bits), bits)


def to_nearest(x: Tensor, lowest: int, largest: int, bits: int) -> Codes:
    """One scale, by which the largest size (clipped) is the largest code."""
    scope = peak(x) * clipping_ratio(bits)
    none = torch.zeros_like(scope, dtype=torch.int64)
    inverse, scale = scales(scope, none, largest)
    return Codes(nearest(x, inverse, lowest, largest), scale, none, bits, 1)


def per_sample(x: Tensor, bits: int, seed: int | None = None) -> Codes:
    """A scale for each row, x (rows, channels): "PSQ" of Chen et al. 2020, a baseline."""
    scope = peak(x, (1,))
    return _codes(x, scope, torch.zeros_like(scope, dtype=torch.int64), bits, 1, seed)


def channel(x: Tensor, bits: int, groups: int, seed: int | None = None, dim: int = 1) -> Codes:
    """ShiftQuant along a dimension of x (rows, channels)."""
    ranges = peak(x, tuple(d for d in range(x.dim()) if d != dim))
    largest = peak(ranges)
    return _codes(x, largest, exponents(ranges, largest, groups), bits, groups, seed)


def two_sided(x: Tensor, bits: int, groups: int, seed: int | None = None, dim: int = 1) -> Codes:
    """x (samples, ..., channels): for each sample a scale of its own, exact, and ShiftQuant along the channels; with
    dim=0 the other way round.

    Ours: what has exact scales is first brought to range 1, so that the rest is told apart by what is left. (Not in the
    paper as far as we know; in a classifier samples differ more than channels.)
    """
    ranges = peak(x, tuple(range(1, x.dim() - 1))) if x.dim() > 2 else peak(x, ())
    exact, e, inverse, scale = two_sided_scales(ranges, bits, groups, 0 if dim == 0 else x.dim() - 1)
    q = largest_code(bits)
    codes = nearest(x, inverse, -q, q) if seed is None else stochastic(x, inverse, bits, seed)
    return Codes(codes, scale * exact, e, bits, groups)


def two_sided_scales(ranges: Tensor, bits: int, groups: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From the range of each sample and channel: the exact factors, the exponents along `dim`, what values are
    multiplied by, and the scale of all."""
    exact = ranges.amax(dim, keepdim=True)
    exact = torch.where(exact > 0, exact, 1.0)
    left = (ranges / exact).amax(tuple(d for d in range(ranges.dim()) if d != dim), keepdim=True)
    largest = left.amax()
    e = exponents(left, largest, groups)
    inverse, scale = scales(largest, e, largest_code(bits))
    return exact, e, inverse / exact, scale
