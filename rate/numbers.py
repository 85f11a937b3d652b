"""What a graph proves of the numbers of a tensor, and so the bits that each of them takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.cost import FLOAT_BITS


@dataclass(frozen=True)
class Numbers:
    """Multiples of `step` between low and high; a step of 0: any real number. codes: bits that the graph says itself,
    0 where it does not.

    Source: interval arithmetic; that a graph's own rounding and clipping make its numbers integers of few bits, whether
    or not a node is called a quantizer, is our choice.
    """

    low: float = -math.inf
    high: float = math.inf
    step: float = 0.0
    codes: int = 0

    @property
    def bits(self) -> int:
        """Of one number, two's complement where one may be negative; FLOAT_BITS where nothing says less."""
        if self.codes:
            return self.codes
        if not self.step or math.isinf(self.low) or math.isinf(self.high):
            return FLOAT_BITS
        lowest, largest = round(self.low / self.step), round(self.high / self.step)
        signed = lowest < 0
        width = max((-lowest - 1).bit_length() if signed else 0, max(largest, 0).bit_length()) + signed
        return min(max(width, 1), FLOAT_BITS)


REAL = Numbers()


def of_array(a: NDArray[Any]) -> Numbers:
    """Of a constant: by its type where that is of reals of 16 bits or integers of up to 8, by its values else."""
    kind = str(a.dtype)
    if kind in ("float16", "bfloat16"):
        return Numbers(codes=16)
    if kind in ("int4", "uint4", "int8", "uint8"):
        return of_type(int(kind.lstrip("uint")), not kind.startswith("u"))
    if not a.size or a.dtype.kind not in "fiub" or not np.isfinite(a).all():
        return REAL
    one = abs(float(a.flat[0])) if a.size == 1 else 0.0
    return Numbers(float(a.min()), float(a.max()), one or float((a == np.rint(a)).all()))


def of_type(bits: int, signed: bool) -> Numbers:
    """All integers of a type."""
    return Numbers(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1, 1.0) if signed else Numbers(0.0, 2.0**bits - 1, 1.0)


def _known(ends: list[float]) -> tuple[float, float]:
    """0 times infinity is 0 here: an end that is not known is a finite number all the same."""
    known = [0.0 if math.isnan(e) else e for e in ends]
    return min(known), max(known)


def _common(a: float, b: float) -> float:
    """A step that both are multiples of: the finer, where the coarser is one of its multiples."""
    fine, coarse = sorted((a, b))
    return fine if fine and coarse % fine == 0 else 0.0


def added(a: Numbers, b: Numbers) -> Numbers:
    return Numbers(a.low + b.low, a.high + b.high, _common(a.step, b.step))


def negated(a: Numbers) -> Numbers:
    return Numbers(-a.high, -a.low, a.step)


def multiplied(a: Numbers, b: Numbers) -> Numbers:
    low, high = _known([x * y for x in (a.low, a.high) for y in (b.low, b.high)])
    return Numbers(low, high, a.step * b.step)


def rounded(a: Numbers, how: Callable[[float], float]) -> Numbers:
    """To whole numbers, by a function that keeps their order."""
    low, high = (e if math.isinf(e) else float(how(e)) for e in (a.low, a.high))
    return Numbers(low, high, 1.0)


def clipped(a: Numbers, low: float, high: float) -> Numbers:
    """Between low and high, which stand for a number that the tensor has: codes keep the width that they are said to
    have, unless what is left takes less."""
    ends = min(max(a.low, low), high), max(min(a.high, high), low)
    left = Numbers(*ends, a.step)
    return replace(left, codes=min(a.codes, left.bits)) if a.codes else left


def either(a: Numbers, b: Numbers) -> Numbers:
    """Numbers that may be of the one or of the other."""
    bits = max(a.bits, b.bits)
    codes = bits if (a.codes or b.codes) and bits < FLOAT_BITS else 0
    return Numbers(min(a.low, b.low), max(a.high, b.high), _common(a.step, b.step), codes)
