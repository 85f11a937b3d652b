"""Write a trained network as ONNX, with the integers that it computes.

    python -m nas.export NET/seed-0 --out net.onnx --qonnx net.qonnx.onnx

NET is what nas.train made. net.onnx runs anywhere: QuantizeLinear, Clip and DequantizeLinear around convolutions; its
weights take 4 bits where they have no more. The other form has Quant nodes of QONNX. Pictures may have any size.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.eval import load
from nas.freeze import Frozen, freeze
from nas.layers import SMALLEST, QConv2d
from nas.quantizers import levels
from nas.runs import check_outputs, ended
from quant.export import qcdq, qonnx, traced
from quant.freeze import Dequantize, Quantize
from quant.training import replace
from rate.options import Parser

FREE = (0, 2, 3)  # batch, height, width


class Deployed(nn.Module):
    """A quantized convolution as a product of integers times a factor for each output."""

    codes: Tensor
    factor: Tensor

    def __init__(self, layer: QConv2d, frozen: Frozen):
        super().__init__()
        self.rectified, self.bits = not layer.signed, (frozen.bits, frozen.input_bits)
        self.rowwise, self.step = frozen.rowwise, frozen.input_step
        self.balance = None
        if frozen.balance is not None:  # one for each channel, (inputs, 1, 1)
            self.balance = nn.Parameter(torch.from_numpy(frozen.balance)[:, None, None], False)
        self.limits = levels(frozen.input_bits, frozen.signed_input)
        self.geometry = (layer.stride, layer.padding, 1, layer.groups)
        self.register_buffer("codes", torch.from_numpy(frozen.levels))
        self.register_buffer("factor", torch.from_numpy(frozen.steps)[:, None, None] * frozen.input_step)
        self.offset = None if layer.bias is None else nn.Parameter(layer.bias.detach()[:, None, None].clone())

    def forward(self, x: Tensor, shares: None = None) -> Tensor:
        x = F.relu(x) if self.rectified else x
        x = x if self.balance is None else x / self.balance
        step: Any = self.step
        if self.rowwise:
            largest = x.abs().amax(1, keepdim=True).clamp(min=SMALLEST)
            step = largest * self.step
        codes = Quantize.apply(x / step, 0, *self.limits, self.bits[1])
        y = F.conv2d(codes, Dequantize.apply(self.codes, 0, self.bits[0]), None, *self.geometry) * self.factor
        y = y * largest if self.rowwise else y
        return y if self.offset is None else y + self.offset


def deployed(model: nn.Module) -> nn.Module:
    """A copy in which every quantized layer is Deployed. Raises ValueError as `freeze` does."""
    found, made = freeze(model), copy.deepcopy(model).eval()
    for name, frozen in found.items():
        parent = made.get_submodule(name.rpartition(".")[0])
        layer = made.get_submodule(name)
        assert isinstance(layer, QConv2d)
        setattr(parent, name.rpartition(".")[2], Deployed(layer, frozen))
    return made


def run(args: argparse.Namespace) -> None:
    """Write what was asked for."""
    check_outputs(args.out, args.qonnx)
    model, _ = load(args.network)
    example = torch.rand(1, 3, 24, 32)
    forms = [(path, form) for path, form in ((args.out, qcdq), (args.qonnx, qonnx)) if path]
    made = [(path, form(traced(deployed(model), example, FREE)).SerializeToString()) for path, form in forms]
    for path, data in made:
        replace(path, data)
        print(f"{path}: {len(data):,} bytes")


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked."""
    p = Parser(prog="python -m nas.export", description=__doc__)
    p.add_argument("network", type=Path, metavar="NET/seed-N")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX, as QCDQ")
    p.add_argument("--qonnx", type=Path, metavar="FILE", help="the same as QONNX")
    args = p.parse_args(argv)
    return ended("nas.export", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
