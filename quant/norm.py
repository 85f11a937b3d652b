"""L1 normalization in floating point: deviations are measured by their mean size, not its square (Wu et al. 2018).

K times the mean absolute deviation is the standard deviation of Gaussian data, so that learning rates and initial
weights carry over (our default; the paper's constant is not known to us).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

K = math.sqrt(math.pi / 2)


def l1_normalize(x: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / (K * mean |x - mean| + eps) over some dimensions; the mean and K * mean |x - mean|."""
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    scale = K * centred.abs().mean(dims, keepdim=True)
    return centred / (scale + eps), mean, scale


class L1BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d by mean absolute deviations. running_var holds the square of the running scale, which for Gaussian
    data is the variance: state dicts of nn.BatchNorm2d load, and the other way round."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.track_running_stats:
            y, mean, scale = l1_normalize(x, (0, 2, 3), self.eps)
            if self.track_running_stats:
                self._follow(mean.detach().flatten(), scale.detach().flatten())
        else:
            mean, scale = (t[:, None, None] for t in (self.running_mean, self.running_var.sqrt()))
            y = (x - mean) / (scale + self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else y

    @torch.no_grad()
    def _follow(self, mean: Tensor, scale: Tensor) -> None:
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.copy_(self.running_var.sqrt().lerp(scale, share).square())


class L1LayerNorm(nn.LayerNorm):
    """nn.LayerNorm by mean absolute deviations."""

    def forward(self, x: Tensor) -> Tensor:
        y, _, _ = l1_normalize(x, tuple(range(-len(self.normalized_shape), 0)), self.eps)
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias
