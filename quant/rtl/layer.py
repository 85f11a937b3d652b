"""Layers, what they must give, and their weights as an engine has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.rtl.engine import OUT_BITS
from quant.rtl.float16 import fma
from quant.rtl.kinds import GROUPS, Kind

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """weights: (outputs, inputs, k, k), or (channels, k, k) of a depthwise layer; k 1, 3 or 5, odd; stride 1, zeros
    around. Results are (sum of products + bias) * 2^-shift, rounded half up and saturated to the bits of a code or, if
    wide, to 16; bias and shift are per output. exponents: left shifts of the products of each input channel, 0..3
    (ShiftQuant). In fp16 results are the sums, and bias and shift 0.
    """

    weights: NDArray
    bias: Ints
    shift: Ints
    wide: bool = False
    exponents: Ints | None = None

    @property
    def depthwise(self) -> bool:
        return self.weights.ndim == 3

    @property
    def taps(self) -> int:
        return int(self.weights.shape[-1])


def expected(layer: Layer, x: Ints, bits: int) -> Ints:
    """What an engine of so many bits must give for codes x (channels, height, width), in int64."""
    (_, h, w), k = x.shape, layer.taps
    padded = np.pad(x.astype(np.int64), ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    if layer.exponents is not None:
        padded = padded << layer.exponents[:, None, None]
    total = np.zeros((len(layer.weights), h, w), np.int64) + layer.bias[:, None, None]
    for i in range(k):
        for j in range(k):
            part, weights = padded[:, i : i + h, j : j + w], layer.weights[..., i, j].astype(np.int64)
            total += weights[:, None, None] * part if layer.depthwise else np.tensordot(weights, part, 1)
    down, up = (np.maximum(s, 0)[:, None, None] for s in (layer.shift, -layer.shift))
    top = 1 << ((OUT_BITS if layer.wide else bits) - 1)
    return np.clip(((total << up) + ((1 << down) >> 1)) >> down, -top, top - 1)


def expected_fp16(layer: Layer, x: NDArray) -> NDArray[np.float16]:
    """The same of fp16, products added in the engine's order: channels, then lines and taps of the kernel."""
    (_, h, w), k = x.shape, layer.taps
    padded = np.pad(x.astype(np.float16), ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    total = np.zeros((len(layer.weights), h, w), np.float16)
    for c, i, j in np.ndindex(1 if layer.depthwise else len(x), k, k):
        part = padded[:, i : i + h, j : j + w] if layer.depthwise else padded[c : c + 1, i : i + h, j : j + w]
        weights = layer.weights[:, i, j] if layer.depthwise else layer.weights[:, c, i, j]
        total = fma(part, weights.astype(np.float16)[:, None, None], total)
    return total


def encode(weights: NDArray, kind: Kind) -> Ints:
    """Weights as the codes of a kind, unsigned. Raises ValueError for what it does not have."""
    if kind.arithmetic == "fp16":
        return weights.astype(np.float16).view(np.uint16).astype(np.int64)
    if kind.arithmetic == "pot":
        size = np.abs(weights.astype(np.int64))
        power = np.frexp(np.maximum(size, 1).astype(np.float64))[1] - 1
        if ((size != 0) & (size != 1 << power)).any() or power.max(initial=0) > 7:
            raise ValueError("weights are 0 or a power of two up to 128, with a sign")
        return (np.where(size == 0, 16, 0) | np.where(weights < 0, 8, 0) | power).astype(np.int64)
    if (np.abs(weights + 0.5) > 2 ** (kind.weight_bits - 1)).any():
        raise ValueError(f"weights are codes of {kind.weight_bits} bits")
    return weights.astype(np.int64) & ((1 << kind.weight_bits) - 1)


def grouped(layer: Layer, kind: Kind) -> tuple[list[int], list[int]]:
    """The order in which channels are added, -1 for one of zeros, and what goes with each into the word of weights.

    For the sums that are doubled: groups of larger shifts first; at each border a doubling, by a channel of zeros where
    a group is empty.
    """
    if layer.exponents is None:
        return list(range(layer.weights.shape[1])), [0] * layer.weights.shape[1]
    shifts = [int(s) for s in layer.exponents]
    if kind.way == "" or not 0 <= min(shifts) <= max(shifts) < GROUPS:
        raise ValueError(f"{kind.name} does not shift by {min(shifts)}..{max(shifts)}")
    if kind.way != "sums":
        return list(range(len(shifts))), shifts
    order, doubled = [], []
    for shift in range(max(shifts), -1, -1):
        members = [c for c, s in enumerate(shifts) if s == shift]
        double = int(shift < max(shifts))
        for c in members or [-1]:
            order.append(c)
            doubled.append(double)
            double = 0
    return order, doubled
