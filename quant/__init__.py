"""Training in sub-8-bit integers: ShiftQuant (arXiv 2411.10948), whose group scales are one scale times powers of two.

The paper's body was not at hand; what it leaves open is our default, and each docstring says which.
"""

import cpp_ext  # noqa: F401  before torch, whose OpenMP should not spin either
from quant.config import ShiftQuantConfig
from quant.convert import quantize_
from quant.quantizers import NonFinite, largest_code, nearest, random_bits, stochastic
from quant.shift import Codes, activations, channel, exponents, per_sample, per_tensor, two_sided, weights

__all__ = [
    "Codes",
    "NonFinite",
    "ShiftQuantConfig",
    "activations",
    "channel",
    "exponents",
    "largest_code",
    "nearest",
    "per_sample",
    "per_tensor",
    "quantize_",
    "random_bits",
    "stochastic",
    "two_sided",
    "weights",
]
