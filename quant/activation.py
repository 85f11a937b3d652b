"""ReLU that keeps one bit of each number for the way back, not the number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpp_ext import _gemm
from quant.gemm import arrays, expect_native, native, reals
from quant.operators import operator


@operator("relu")
def relu(x: Tensor) -> tuple[Tensor, Tensor]:
    """x, dense in any order of dimensions, float32 or bfloat16 -> max(x, 0), and a bit for each number of whether it
    is above 0."""
    expect_native(x)
    y = torch.empty_like(x)  # strides as x has them: places in memory are the same
    bits = x.new_empty(_bytes(x.numel()), dtype=torch.uint8)
    if x.numel():
        _gemm.relu(torch.get_num_threads(), *arrays(flat(x), flat(y), bits))
    return y, bits


@torch.library.register_fake("narrowbit::relu")
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(_bytes(x.numel()), dtype=torch.uint8)


@operator("relu_backward")
def relu_backward(dy: Tensor, bits: Tensor) -> Tensor:
    """dy where the bits are set, or 0; in memory as x was."""
    expect_native(dy)
    dx = torch.empty_like(dy)
    if dy.numel():
        _gemm.relu_backward(torch.get_num_threads(), *arrays(flat(dy), bits, flat(dx)))
    return dx


@torch.library.register_fake("narrowbit::relu_backward")
def _(dy: Tensor, bits: Tensor) -> Tensor:
    return torch.empty_like(dy)


def _bytes(numbers: int) -> int:
    return (numbers + _gemm.SIGNS - 1) // _gemm.SIGNS * (_gemm.SIGNS // 8)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, bits = relu(native(x))
        ctx.save_for_backward(bits)
        ctx.stride = y.stride()
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        dy = native(dy)
        if dy.stride() != ctx.stride:
            dy = torch.empty_strided(dy.shape, ctx.stride, dtype=dy.dtype, device=dy.device).copy_(dy)
        return relu_backward(dy, ctx.saved_tensors[0])


def flat(x: Tensor) -> Tensor:
    """A dense tensor in the order of memory, as kernels take real numbers."""
    return reals(x.as_strided((x.numel(),), (1,)))


class ReLU(nn.ReLU):
    """nn.ReLU, never in place. On other devices than CPUs, and for other numbers than float32 and bfloat16, torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return _ReLU.apply(x) if x.is_cpu and x.dtype in (torch.float32, torch.bfloat16) else x.relu()
