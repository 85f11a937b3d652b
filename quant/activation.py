"""ReLU that keeps one bit of each number for the way back, not the number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cpp_ext import _gemm
from quant.gemm import native, reals


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = native(x)
        y = torch.empty_like(x)  # strides as x has them: places in memory are the same
        bits = torch.empty(-(-x.numel() // _gemm.SIGNS) * (_gemm.SIGNS // 8), dtype=torch.uint8)
        if x.numel():
            _gemm.relu(torch.get_num_threads(), flat(x), flat(y), bits)
        ctx.save_for_backward(bits)
        ctx.stride = x.stride()
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (bits,) = ctx.saved_tensors
        dy = native(dy)
        if dy.stride() != ctx.stride:
            dy = torch.empty_strided(dy.shape, ctx.stride, dtype=dy.dtype).copy_(dy)
        dx = torch.empty_strided(dy.shape, ctx.stride, dtype=dy.dtype)
        if dy.numel():
            _gemm.relu_backward(torch.get_num_threads(), flat(dy), bits, flat(dx))
        return dx


def flat(x: Tensor) -> Tensor:
    """A dense tensor in the order of memory, as kernels take real numbers."""
    return reals(x.as_strided((x.numel(),), (1,)))


class ReLU(nn.ReLU):
    """nn.ReLU, never in place. NaN becomes 0. On other devices than CPUs it is torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return _ReLU.apply(x) if x.is_cpu else x.relu()
