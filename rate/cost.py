"""What layers cost at given bit-widths: multiplications, bit operations, weights, their bits, memory of activations.

A bit operation is one multiply-accumulate times the bits of its weight times those of its activation (QuantNAS,
arXiv 2208.14839); norms, additions and quantizers count nothing. Numbers may be floats or tensors with gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

FLOAT_BITS = 32  # of a layer that is not quantized


class Layer(NamedTuple):
    """A convolution, transposed convolution or linear layer (kernel and sizes of 1).

    size_in, size_out: height and width. weight: a torch tensor, for the entropy; step: of its levels, which broadcasts.
    """

    kind: str
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    groups: int
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    w_bits: int = FLOAT_BITS
    a_bits: int = FLOAT_BITS
    weight: Any = None
    step: Any = None

    @property
    def params(self) -> int:
        """Weights, without biases."""
        return self.inputs * self.outputs * math.prod(self.kernel) // self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one picture."""
        return self.params * math.prod(self.size_in if self.kind == "transposed" else self.size_out)


@dataclass(frozen=True)
class Measure:
    """A cost of each layer, and how those of several layers make one: by their sum, or the largest. stored: of what a
    layer holds, once however often it is called. learned: it depends on the weights, not only on what the layer is."""

    name: str
    of: Callable[[Layer], Any]
    largest: bool = False
    stored: bool = False
    learned: bool = False

    def combine(self, costs: Iterable[Any]) -> Any:
        """The cost of all of them; 0 of none."""
        found = list(costs)
        return max(found, default=0) if self.largest else sum(found)


def entropy_estimate(layer: Layer) -> Any:
    """Bits of the weights entropy coded: a Laplace density of their mean size at the step of the levels, between 0 and
    w_bits a weight (our choice). step defaults to what spans the largest weight. There is no gradient at either end:
    weights that are spread evenly, as at first, take all their bits."""
    import torch

    w = layer.weight
    step = layer.step
    if step is None:
        step = (2 * w.detach().abs().max() / (2**layer.w_bits - 1)).clamp(min=1e-12)
    bits = torch.log2(2 * math.e * w.abs().mean().clamp(min=1e-12)) - torch.log2(torch.as_tensor(step)).mean()
    return layer.params * bits.clamp(0.0, float(layer.w_bits))


MACS = Measure("macs", lambda layer: layer.macs)
BITOPS = Measure("bitops", lambda layer: layer.macs * layer.w_bits * layer.a_bits)
PARAMS = Measure("params", lambda layer: layer.params, stored=True)
PARAM_BITS = Measure("param-bits", lambda layer: layer.params * layer.w_bits, stored=True)
ENTROPY_BITS = Measure("entropy-bits", entropy_estimate, stored=True, learned=True)
ACT_MEMORY = Measure(
    "activation-bits",
    lambda layer: layer.a_bits * (layer.inputs * math.prod(layer.size_in) + layer.outputs * math.prod(layer.size_out)),
    largest=True,
)
MEASURES = {m.name: m for m in (MACS, BITOPS, PARAMS, PARAM_BITS, ENTROPY_BITS, ACT_MEMORY)}
