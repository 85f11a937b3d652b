"""A linear layer whose three products are of integers: a 1x1 convolution of rows, which become pictures of one line.

So kernels quantize, multiply and write a few hundred rows at a time (quant.conv).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from cpp_ext import _gemm
from quant.config import ShiftQuantConfig
from quant.conv import Geometry, convolution

ROWS = range(16, 193)  # of a picture: few enough to stay near, and enough to fill the kernels


def columns(shape: tuple[int, ...], scheme: str) -> int:
    """Into how many columns the rows of x (..., inputs) go.

    With "two_sided" a picture is a sample, which has a scale of its own: of x (samples, inputs) a row, of more
    dimensions what the last but one goes through (a sequence).
    """
    if scheme == "two_sided":
        return shape[-2] if len(shape) > 2 else 1
    rows = math.prod(shape[:-1])
    return next((n for n in reversed(ROWS) if rows % n == 0), rows if rows <= _gemm.MOST_POSITIONS else 1)


class Linear(nn.Linear):
    """nn.Linear in integers. Draws a new seed from torch's generator at every forward pass; the bias is float32."""

    def __init__(self, *args: Any, config: ShiftQuantConfig, **options: Any):
        super().__init__(*args, **options)
        self.config = config

    def check(self) -> None:
        """All of them can be done."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"a linear layer of {self.in_features} inputs was given {tuple(x.shape)}")
        lines = x.reshape(-1, 1, columns(x.shape, self.config.scheme) or 1, self.in_features)
        lines = lines.permute(0, 3, 1, 2)
        y = convolution(lines, self.weight[:, :, None, None], Geometry(1, 0, 1), self.config)
        y = y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)
