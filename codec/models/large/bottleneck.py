"""Densities: the factorized one of z (Ballé et al. 2018, appendix 6.1) and the Gaussian of y, both over unit bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.models.large.layers import lower_bound

LEAST = 1e-9  # likelihood
LEAST_SCALE = 0.11  # deviation
TAIL = 1e-9


class Bottleneck(nn.Module):
    """A monotone network per channel, 1-3-3-3-3-1, whose sigmoid is the cumulative distribution."""

    WIDTHS = (1, 3, 3, 3, 3, 1)

    def __init__(self, channels: int):
        super().__init__()
        scale = 10 ** (1 / (len(self.WIDTHS) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for c_in, c_out in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            start = math.log(math.expm1(1 / scale / c_out))
            self.matrices.append(torch.full((channels, c_out, c_in), start))
            self.biases.append(torch.rand(channels, c_out, 1) - 0.5)
        for c in self.WIDTHS[1:-1]:
            self.factors.append(torch.zeros(channels, c, 1))
        self.quantiles = nn.Parameter(torch.tensor([-10.0, 0.0, 10.0]).repeat(channels, 1, 1))

    def medians(self) -> Tensor:
        """(1, channels, 1, 1), without gradient."""
        return self.quantiles[None, :, :, 1:2].detach()

    def logits(self, v: Tensor) -> Tensor:
        """v (channels, 1, n) -> logits of the cumulative distribution, as v."""
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            v = F.softplus(matrix) @ v + bias
            if k < len(self.factors):
                v = v + self.factors[k].tanh() * v.tanh()
        return v

    def likelihood(self, z: Tensor) -> Tensor:
        """Of values z (batch, channels, height, width), as z."""
        v = z.transpose(0, 1).flatten(1)[:, None]
        upper, lower = self.logits(v + 0.5), self.logits(v - 0.5)
        sign = -torch.sign(upper + lower).detach()  # the side on which a sigmoid keeps its digits
        p = ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()
        return lower_bound(p, LEAST).reshape(z.shape[1], z.shape[0], *z.shape[2:]).transpose(0, 1)

    def loss(self) -> Tensor:
        """Auxiliary: the distance of the quantiles from where the distribution has its tails and its middle."""
        edge = math.log(2 / TAIL - 1)
        with_fixed = self._detached(self.quantiles)
        return (with_fixed - torch.tensor([-edge, 0.0, edge], device=with_fixed.device)).abs().sum()

    def _detached(self, v: Tensor) -> Tensor:
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            v = F.softplus(matrix.detach()) @ v + bias.detach()
            if k < len(self.factors):
                v = v + self.factors[k].detach().tanh() * v.tanh()
        return v


def gaussian_likelihood(v: Tensor, scale: Tensor) -> Tensor:
    """Of differences v from the mean, under a Gaussian of that deviation (at least LEAST_SCALE), over unit bins."""
    scale = scale.clamp(min=LEAST_SCALE)
    a = v.abs()
    p = 0.5 * (torch.erfc((a - 0.5) / scale * 2**-0.5) - torch.erfc((a + 0.5) / scale * 2**-0.5))
    return lower_bound(p, LEAST)
