"""QuantNAS: one choice of operation and bit-width at every position of a network, searched by gradients against
quantization noise (Shvetsov et al., arXiv 2208.14839)."""

import cpp_ext  # noqa: F401  before torch, whose OpenMP should not spin either
from nas.cost import CostModel
from nas.layers import ADQ, Noise, QConv2d
from nas.quantizers import HWGQ, LSQ
from nas.searcher import Penalty, Searcher, Target
from nas.space import Architecture, Choice, MixedOp, SearchSpace, decided, positions, random_architecture

__all__ = [
    "ADQ", "HWGQ", "LSQ", "Architecture", "Choice", "CostModel", "MixedOp", "Noise", "Penalty", "QConv2d",
    "SearchSpace", "Searcher", "Target", "decided", "positions", "random_architecture",
]  # fmt: skip
