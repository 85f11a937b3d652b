"""L1 normalization: deviations are measured by their mean size, not its square (Wu et al. 2018); on CPUs in integers,
by cpp_ext's kernels, on other devices the same in floating point.

K times the mean absolute deviation is the standard deviation of Gaussian data, so that learning rates and initial
weights carry over (our default; the paper's constant and widths are not known to us).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpp_ext import _gemm
from quant import gemm
from quant.operators import operator
from quant.quantizers import NonFinite

K = math.sqrt(math.pi / 2)


def l1_normalize(x: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(scale^2 + eps) over some dimensions, scale = K * mean |x - mean|; the mean and the scale.

    eps is where L2 norms have it, so that what is constant has no larger gradients than there (our choice).
    """
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    scale = K * centred.abs().mean(dims, keepdim=True)
    return centred / (scale.square() + eps).sqrt(), mean, scale


def _backward(
    kernel: Callable[..., bool], dz: Tensor, gamma: Tensor, kept: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gemm.expect_native(dz)
    made = torch.empty_like(dz), torch.empty_like(gamma), torch.empty_like(gamma)
    arrays = gemm.arrays(gemm.reals(dz), gamma, kept, statistics, gemm.reals(made[0]), *made[1:])
    if not kernel(torch.get_num_threads(), *arrays):
        raise NonFinite("a gradient of a normalization holds NaN, infinity or numbers of 2^117 and more")
    return made


def _kept(rows: Any, channels: int) -> Any:
    """Bytes of what is kept: half of one for each number of a line, which is of several rows of few channels."""
    together = max(_gemm.LINE // max(channels, 1), 1)
    return rows // together * ((together * channels + 1) // 2) + (rows % together * channels + 1) // 2


@operator("l1_batch_norm")
def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x (..., channels) -> z; mean and scale of each channel; what the way back needs. Raises NonFinite."""
    gemm.expect_native(x)
    channels = x.shape[-1]
    rows = x.numel() // channels
    z, mean, scale = torch.empty_like(x), *(torch.empty(channels, dtype=torch.float32) for _ in range(2))
    kept = torch.empty(_kept(rows, channels), dtype=torch.uint8)
    statistics = torch.empty(channels, _gemm.STATISTICS, dtype=torch.float64)
    a, b, c, to, *sums = gemm.arrays(gemm.reals(x), gamma, beta, gemm.reals(z), kept, statistics, mean, scale)
    if not _gemm.normalize(torch.get_num_threads(), a, b, c, eps, to, sums[0], sums[1], sums[2], sums[3]):
        raise NonFinite(
            "a tensor to be normalized holds NaN, infinity or numbers of 2^117 and more, or its weight or bias does"
        )
    return z, mean, scale, kept, statistics


@torch.library.register_fake("narrowbit::l1_batch_norm")
def _(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    channels = x.shape[-1]
    kept = x.new_empty(_kept(x.numel() // channels, int(channels)), dtype=torch.uint8)
    return (
        torch.empty_like(x), gamma.new_empty(channels), gamma.new_empty(channels), kept,
        x.new_empty(channels, _gemm.STATISTICS, dtype=torch.float64),
    )  # fmt: skip


@operator("l1_batch_norm_backward")
def batch_norm_backward(dz: Tensor, gamma: Tensor, kept: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta. Raises NonFinite."""
    return _backward(_gemm.normalize_backward, dz, gamma, kept, statistics)


@operator("l1_layer_norm")
def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x (rows, length) -> z, and what the way back needs. Raises NonFinite."""
    gemm.expect_native(x)
    rows, length = x.shape
    z = torch.empty_like(x)
    kept = torch.empty(rows * ((length + 1) // 2), dtype=torch.uint8)
    statistics = torch.empty(rows, _gemm.STATISTICS, dtype=torch.float64)
    a, b, c, to, *sums = gemm.arrays(gemm.reals(x), gamma, beta, gemm.reals(z), kept, statistics)
    if not _gemm.normalize_rows(torch.get_num_threads(), a, b, c, eps, to, sums[0], sums[1]):
        raise NonFinite("a tensor to be normalized holds NaN, infinity or numbers of 2^117 and more")
    return z, kept, statistics


@torch.library.register_fake("narrowbit::l1_layer_norm")
def _(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows, length = x.shape
    kept = x.new_empty(rows * ((length + 1) // 2), dtype=torch.uint8)
    return torch.empty_like(x), kept, x.new_empty(rows, _gemm.STATISTICS, dtype=torch.float64)


@operator("l1_layer_norm_backward")
def layer_norm_backward(dz: Tensor, gamma: Tensor, kept: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta. Raises NonFinite."""
    return _backward(_gemm.normalize_rows_backward, dz, gamma, kept, statistics)


@torch.library.register_fake("narrowbit::l1_batch_norm_backward")
@torch.library.register_fake("narrowbit::l1_layer_norm_backward")
def _(dz: Tensor, gamma: Tensor, kept: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(dz), torch.empty_like(gamma), torch.empty_like(gamma)


def _numbers(t: Tensor) -> Tensor:
    return t.detach().float().contiguous()


def _last(x: Tensor) -> Tensor:
    """(images, channels, height, width) -> (images, height, width, channels), as kernels read them."""
    return gemm.native(x.permute(0, 2, 3, 1).contiguous())


class _BatchNorm(torch.autograd.Function):
    """x (images, channels, height, width) -> z, mean, scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        gamma = _numbers(gamma)
        z, mean, scale, *kept = batch_norm(_last(x), gamma, _numbers(beta), eps)
        ctx.save_for_backward(gamma, *kept)
        ctx.mark_non_differentiable(mean, scale)
        return z.permute(0, 3, 1, 2), mean, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        dx, *of_parameters = batch_norm_backward(_last(dz), *ctx.saved_tensors)
        return dx.permute(0, 3, 1, 2), *of_parameters, None


class _LayerNorm(torch.autograd.Function):
    """x (rows, length) -> z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        gamma = _numbers(gamma)
        z, *kept = layer_norm(gemm.native(x), gamma, _numbers(beta), eps)
        ctx.save_for_backward(gamma, *kept)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        return *layer_norm_backward(gemm.native(dz), *ctx.saved_tensors), None


class L1BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d by mean absolute deviations, in integers. running_var holds the square of the running scale, which
    for Gaussian data is the variance: state dicts of nn.BatchNorm2d load, and the other way round.

    Raises NonFinite, and ValueError for a batch without numbers.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.num_features or (self.training and x.numel() == 0):
            raise ValueError(
                f"batch normalization of {tuple(x.shape)}: pictures of {self.num_features} channels are needed"
            )
        one = torch.ones(x.shape[1], device=x.device) if self.weight is None else self.weight
        zero = torch.zeros(x.shape[1], device=x.device) if self.bias is None else self.bias
        if self.training or not self.track_running_stats:
            if x.is_cpu:
                z, mean, scale = _BatchNorm.apply(x, one, zero, self.eps)
            else:
                last = x.permute(0, 2, 3, 1)
                y, *found = l1_normalize(last.float(), (0, 1, 2), self.eps)
                z = (y * one + zero).permute(0, 3, 1, 2)
                mean, scale = (s.detach().flatten() for s in found)
            if self.track_running_stats:
                self._follow(mean, scale)
            return z.to(x.dtype)
        slope, offset = self.affine_of_running(one, zero)
        return (x * slope[:, None, None] + offset[:, None, None]).to(x.dtype)

    def affine_of_running(self, one: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
        """What inference multiplies by and adds."""
        slope = one / (self.running_var + self.eps).sqrt()
        return slope, zero - self.running_mean * slope

    def _follow(self, mean: Tensor, scale: Tensor) -> None:
        """Running statistics; few operations, since small batches wait for them."""
        centre, variance, seen = self.running_mean, self.running_var, self.num_batches_tracked.add_(1)
        share = 1 / float(seen) if self.momentum is None else self.momentum
        centre.lerp_(mean.to(centre.dtype), share)
        variance.copy_(variance.float().sqrt().lerp_(scale, share).square_())


class L1LayerNorm(nn.LayerNorm):
    """nn.LayerNorm by mean absolute deviations, in integers; weight and bias are applied in floating point. Raises
    NonFinite."""

    def forward(self, x: Tensor) -> Tensor:
        length = math.prod(self.normalized_shape)
        if tuple(x.shape[x.dim() - len(self.normalized_shape) :]) != tuple(self.normalized_shape):
            raise ValueError(f"layer normalization of {tuple(x.shape)}: the last sides must be {self.normalized_shape}")
        one = torch.ones(length, device=x.device) if self.weight is None else self.weight.flatten()
        zero = torch.zeros(length, device=x.device) if self.bias is None else self.bias.flatten()
        if not x.is_cpu:
            y, _, _ = l1_normalize(x.float().reshape(-1, length), (1,), self.eps)
            return (y * one + zero).to(x.dtype).view(x.shape)
        return _LayerNorm.apply(x.reshape(x.numel() // length, length), one, zero, self.eps).to(x.dtype).view(x.shape)
