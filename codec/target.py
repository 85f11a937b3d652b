"""Rate control: the level whose file has the size or the PSNR asked for, by bisection: seven probes for 64 levels."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from codec.container import MAX_QP
from codec.errors import OutOfReach


@dataclass(frozen=True)
class Goal:
    """kind: "qp" (a level), "size" (at most so many bytes), "bpp" (bits per pixel), "psnr" (at least so many dB)."""

    kind: str
    value: float

    def reach(self, encode: Callable[[int], bytes], psnr: Callable[[bytes], float], pixels: int) -> tuple[int, bytes]:
        """The level that reaches it, and its file. Raises OutOfReach."""
        made: dict[int, bytes] = {}

        def at(level: int) -> bytes:
            made[level] = encode(level)
            return made[level]

        if self.kind == "qp":
            level = int(self.value)
            at(level)
        elif self.kind == "psnr":
            level = smallest(lambda level: psnr(at(level)), self.value, "dB")
        else:
            level = largest(lambda level: len(at(level)), self.bytes(pixels), "bytes")
        return level, made[level]

    def met(self, data: bytes, psnr: Callable[[bytes], float], pixels: int) -> bool:
        """Whether this file would do."""
        if self.kind == "psnr":
            return psnr(data) >= self.value
        return self.kind == "qp" or len(data) <= self.bytes(pixels)

    def bytes(self, pixels: int) -> int:
        """What a file may have at most."""
        return math.floor(min(self.value if self.kind == "size" else self.value * pixels / 8, 1 << 62))


def largest(measure: Callable[[int], float], limit: float, unit: str) -> int:
    """The highest level at which measure, which grows with the level, is at most limit. Raises OutOfReach."""
    above, probes = _found(bisect_right, measure, limit)
    if above == 0:
        raise OutOfReach(f"{limit} {unit} is out of reach: the least is {probes[0]:g}, at --qp 0")
    return above - 1


def smallest(measure: Callable[[int], float], limit: float, unit: str) -> int:
    """The lowest level at which measure, which grows with the level, is at least limit. Raises OutOfReach."""
    first, probes = _found(bisect_left, measure, limit)
    if first > MAX_QP:
        raise OutOfReach(f"{limit} {unit} is out of reach: the most is {probes[MAX_QP]:.6g}, at --qp {MAX_QP}")
    return first


def _found(bisect: Callable[..., int], measure: Callable[[int], float], limit: float) -> tuple[int, dict[int, float]]:
    """What bisection answers, and what was measured: the level that it answers and the one below among them."""
    probes: dict[int, float] = {}

    def probe(level: int) -> float:
        probes[level] = measure(level)
        return probes[level]

    return bisect(range(MAX_QP + 1), limit, key=probe), probes
