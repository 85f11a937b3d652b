"""A trained network as it is deployed: fixed scales that are powers of two, norms folded, all products of integers.

In training the scale of activations follows every batch, and scales are any numbers. Here activations get the power of
two that fits a sample of them best, and so do weights: with a scale s = 2^k m, 1 <= m < 2, codes stay as they were
trained, and m goes into the factor of the output, with the norm that follows. First and last layers get 8 bits. Codes
times powers of two are exact in float32 up to sums of 2^24: so this network, which computes in float32, has the
integers that any other machine has.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from quant import gemm
from quant.activation import ReLU
from quant.conv import Conv2d
from quant.linear import Linear
from quant.norm import L1BatchNorm2d, L1LayerNorm, l1_normalize
from quant.product import quantize_outputs
from quant.shift import activation_range

SAMPLE = 1 << 14  # numbers of each layer's input that scales are chosen by
END_BITS = 8


class Quantize(torch.autograd.Function):
    """x -> codes times 2^power, codes to the nearest between lowest and largest. An operator in ONNX: quant.export."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int, lowest: int, largest: int, bits: int) -> Tensor:
        return (x * 2.0**-power).round().clamp(lowest, largest) * 2.0**power

    @staticmethod
    def symbolic(g: Any, x: Any, power: int, lowest: int, largest: int, bits: int) -> Any:
        return g.op("narrowbit::Activation", x, power_i=power, lowest_i=lowest, largest_i=largest, bits_i=bits).setType(
            x.type()
        )


class Dequantize(torch.autograd.Function):
    """Codes of weights -> codes times 2^power."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, power: int, bits: int) -> Tensor:
        return codes.float() * 2.0**power

    @staticmethod
    def symbolic(g: Any, codes: Any, power: int, bits: int) -> Any:
        return g.op("narrowbit::Weight", codes, power_i=power, bits_i=bits).setType(
            codes.type().with_dtype(torch.float32)
        )


class Frozen(nn.Module):
    """A convolution or linear layer: products of codes, times a factor, plus an offset, both for each output."""

    codes: Tensor
    factor: Tensor
    offset: Tensor

    def __init__(self, layer: nn.Module, bits_w: int, power: int, lowest: int, largest: int, bits_a: int):
        super().__init__()
        weight: Any = layer.weight
        own = isinstance(layer, Linear) and layer.config.scheme == "two_sided"
        codes, scale = (quantize_outputs if own else gemm.quantize_weights)(weight, bits_w)
        _, exponent = math.frexp(float(scale.max()))
        self.power_w, self.bits_w = exponent - 1, bits_w
        self.power, self.lowest, self.largest, self.bits_a = power, lowest, largest, bits_a
        self.register_buffer("codes", codes.contiguous())
        self.geometry: tuple[Any, ...] | None = None
        if isinstance(layer, nn.Conv2d):
            self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        each = (len(weight), 1, 1) if self.geometry else (len(weight),)
        bias = torch.zeros(each) if layer.bias is None else layer.bias.detach().float().clone().view(each)
        self.register_buffer("factor", (scale * 2.0 ** (1 - exponent)).expand(len(weight)).reshape(each).clone())
        self.register_buffer("offset", bias)

    def forward(self, x: Tensor) -> Tensor:
        x = Quantize.apply(x, self.power, self.lowest, self.largest, self.bits_a)
        w = Dequantize.apply(self.codes, self.power_w, self.bits_w)
        if self.geometry is None:
            return nn.functional.linear(x, w) * self.factor + self.offset
        stride, padding, dilation, groups = self.geometry
        y = nn.functional.conv2d(x, w, None, stride, padding, dilation, groups)
        return y * self.factor + self.offset


class FloatL1LayerNorm(nn.Module):
    """L1LayerNorm in floating point."""

    def __init__(self, norm: L1LayerNorm):
        super().__init__()
        self.weight, self.bias, self.eps, self.dims = norm.weight, norm.bias, norm.eps, len(norm.normalized_shape)

    def forward(self, x: Tensor) -> Tensor:
        y, _, _ = l1_normalize(x, tuple(range(-self.dims, 0)), self.eps)
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias


def best_power(sample: Tensor, lowest: int, largest: int) -> int:
    """The exponent whose codes leave the least squared error; codes beyond the ends are clamped."""
    peak = float(sample.abs().max())
    if not peak:
        return 0
    top = math.ceil(math.log2(peak / largest))
    errors = {
        k: float(((sample * 2.0**-k).round().clamp(lowest, largest) * 2.0**k - sample).square().mean())
        for k in range(top, top - 5, -1)
    }
    return min(errors, key=lambda k: errors[k])


@torch.no_grad()
def freeze(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A deployed copy of a network that quant.quantize_ converted and that is trained; batches: examples of its input.

    Raises ValueError for a network without converted layers, and where there are no batches.
    """
    model = copy.deepcopy(model).eval().float()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    if not any(isinstance(m, Conv2d | Linear) for m in layers.values()):
        raise ValueError("no layer of this network is low-bit: quantize_ it first, and train it")
    samples: dict[str, list[Tensor]] = {n: [] for n in layers}
    norms: dict[str, str] = {}  # of a layer's output, which nothing came between
    last: dict[int, tuple[str, Tensor]] = {}
    hooks = []
    for name, m in model.named_modules():
        if name in layers:

            def see(_: nn.Module, args: tuple[Tensor, ...], y: Tensor, name: str = name) -> None:
                flat = args[0].detach().flatten().float()
                samples[name].append(flat[torch.randint(len(flat), (min(SAMPLE, len(flat)),))])
                last[id(y)] = (name, y)

            hooks.append(m.register_forward_hook(see))
        elif isinstance(m, L1BatchNorm2d | nn.BatchNorm2d):

            def follows(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                if id(args[0]) in last:
                    norms[last[id(args[0])][0]] = name

            hooks.append(m.register_forward_pre_hook(follows))
    seen = None
    for batch in batches:
        last.clear()
        model(batch)
        seen = batch
    for hook in hooks:
        hook.remove()
    if seen is None:
        raise ValueError("no examples to choose scales by")

    for name, m in layers.items():
        config = getattr(m, "config", None)
        bits_w, bits_a = (config.bits_w, config.bits_a) if config else (END_BITS, END_BITS)
        sample = torch.cat(samples[name]) if samples[name] else torch.zeros(1)
        lowest, largest = activation_range(sample, bits_a)
        _put(model, name, Frozen(m, bits_w, best_power(sample, lowest, largest), lowest, largest, bits_a))
    for name, m in list(model.named_modules()):
        if isinstance(m, L1LayerNorm):
            _put(model, name, FloatL1LayerNorm(m))
        elif isinstance(m, ReLU):
            _put(model, name, nn.ReLU())
    before = model(seen)
    modules = dict(model.named_modules())
    for name, norm in norms.items():
        slope, offset = _affine(modules[norm])
        layer: Any = modules[name]
        layer.factor.mul_(slope.view(layer.factor.shape))
        layer.offset.mul_(slope.view(layer.factor.shape)).add_(offset.view(layer.factor.shape))
        _put(model, norm, nn.Identity())
    if (model(seen) - before).abs().mean() > 0.02 * before.abs().mean():  # but for rounding, and codes that it turns
        raise ValueError("a norm's input is used elsewhere too: this network cannot be folded")
    return model


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    one = torch.ones(norm.num_features) if norm.weight is None else norm.weight
    zero = torch.zeros(norm.num_features) if norm.bias is None else norm.bias
    if isinstance(norm, L1BatchNorm2d):
        return norm.affine_of_running(one, zero)
    slope = one / (norm.running_var + norm.eps).sqrt()
    return slope, zero - norm.running_mean * slope


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
