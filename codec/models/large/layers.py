"""Blocks of the transforms: residual ones with GDN, and token mixing; on tensors (batch, channels, height, width).

Sources: residual blocks and GDN as in MLIC++ (arXiv 2307.15421); token mixing after MLICv2 (arXiv 2504.19119, section
3.3, equation 6), whose inner residuals and depthwise residual block are our reading of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Same-size convolution with bias, or one that halves."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups)


def depthwise(c: int, kernel: int) -> nn.Conv2d:
    return conv(c, c, kernel, groups=c)


def subpixel(c_in: int, c_out: int) -> nn.Sequential:
    """Twice the size: a convolution and a pixel shuffle."""
    return nn.Sequential(conv(c_in, 4 * c_out), nn.PixelShuffle(2))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position."""

    def __init__(self, c: int):
        super().__init__(c, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient also passes where it would raise x above the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return g * ((x >= ctx.bound) | (g < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound) with a gradient that can lead back above the bound."""
    return _LowerBound.apply(x, bound)


class GDN(nn.Module):
    """Generalized divisive normalization (Ballé et al. 2016), or its inverse. beta and gamma are stored as roots."""

    PEDESTAL = 2.0**-36
    BETA_MIN = 1e-6

    def __init__(self, c: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(c) + self.PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(0.1 * torch.eye(c) + self.PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        beta = lower_bound(self.beta, (self.BETA_MIN + self.PEDESTAL) ** 0.5).square() - self.PEDESTAL
        gamma = lower_bound(self.gamma, self.PEDESTAL**0.5).square() - self.PEDESTAL
        energy = F.conv2d(x.square(), gamma[:, :, None, None], beta)
        return x * (energy.sqrt() if self.inverse else energy.rsqrt())


class Down(nn.Module):
    """Half the size: two convolutions and GDN beside a 1x1 shortcut."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.main = nn.Sequential(conv(c_in, c_out, stride=2), nn.GELU(), conv(c_out, c_out), GDN(c_out))
        self.shortcut = conv(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Not a stride of the convolution: torch 2.13 on AVX-512 then writes weight gradients past the end of their
        # memory where x is channels-last.
        return self.main(x) + self.shortcut(x[:, :, ::2, ::2])


class Up(nn.Module):
    """Twice the size: a subpixel convolution, another and inverse GDN beside a subpixel shortcut."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.main = nn.Sequential(subpixel(c_in, c_out), nn.GELU(), conv(c_out, c_out), GDN(c_out, inverse=True))
        self.shortcut = subpixel(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.shortcut(x)


class Residual(nn.Module):
    """MLIC++'s block: two convolutions, each followed by GELU."""

    def __init__(self, c: int):
        super().__init__()
        self.main = nn.Sequential(conv(c, c), nn.GELU(), conv(c, c), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Gate(nn.Module):
    """t * sigmoid(chain(t)), the chain a 1x1, depthwise 3x3, 1x1 with GELUs between; of normalized inputs."""

    def __init__(self, c: int):
        super().__init__()
        self.chain = nn.Sequential(conv(c, c, 1), nn.GELU(), depthwise(c, 3), nn.GELU(), conv(c, c, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.chain(x).sigmoid()


class DepthResidual(nn.Module):
    """1x1, depthwise 3x3, 1x1 with GELUs between, and the input added (LLIC, arXiv 2304.09571)."""

    def __init__(self, c: int):
        super().__init__()
        self.main = nn.Sequential(conv(c, c, 1), nn.GELU(), depthwise(c, 3), nn.GELU(), conv(c, c, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class TokenMixing(nn.Module):
    """MLICv2's simple token mixing: a MetaFormer block of depthwise convolutions and a gate."""

    def __init__(self, c: int):
        super().__init__()
        self.mix = nn.Sequential(ChannelNorm(c), DepthResidual(c), depthwise(c, 5), conv(c, c, 1))
        self.gate = nn.Sequential(ChannelNorm(c), Gate(c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        return x + self.gate(x)
