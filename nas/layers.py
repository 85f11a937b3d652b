"""A convolution at one bit-width or at a mixture of several, with one float weight for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantizers import HWGQ, LSQ, Bits, Noisy, pair
from rate.cost import FLOAT_BITS, Layer

MODES = ("float", "noise", "fake")
# Of the codec's g_s at 6 bits, not trained, at QP 8, 28, 48: by the largest number of a channel -0.29, -0.42, -0.82 dB;
# by the mean of PEAK-th powers -0.25, -0.35, -0.68; of fourth ones -0.26, -0.36, -0.67; of squares -0.30, -0.47, -0.88
# (crops of photos). At 8 bits -0.22, -0.66, -2.65 without, a third of that with 0.5 to 0.85 (three pictures of Kodak).
BALANCE, PEAK = 0.7, 8
SMALLEST = 2.0**-20  # that a position is divided by


@dataclass
class Noise:
    """How rounding is stood for while searching: rule as in nas.quantizers.Noisy, kind as in `deviations` there, or
    "uniform" within half a step."""

    rule: str = "var"
    kind: str = "fitted"


@dataclass
class State:
    """What all layers of a model share, so that one assignment changes all: mode "float" (no quantization), "noise"
    (search against noise) or "fake" (rounding, gradients straight through)."""

    mode: str = "fake"
    noise: Noise = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.noise = self.noise or Noise()


class QConv2d(nn.Module):
    """quantized activation (rectified unless signed) * quantized weight, "same" padding or none.

    bits: those it can run at, of both or (weight, activation). forward(x, shares): shares of the bit-widths, or None
    for the first one alone. In "fake" mode a mixture is the shares' mean of the roundings, of weight and of activation
    ("direct" search); in "noise" mode both get one noise of the mixture's power, and x may come with its noise
    (`heard`). Weight: (outputs, inputs / groups, kernel).

    balanced: where channels of x differ by orders, one step for all leaves little of the small ones. So each is divided
    by a number of its own before it is rounded, and the weights that meet it are multiplied by it before they are: the
    product stays what it was (SmoothQuant, arXiv 2211.10438). The numbers are fitted to the first x that is rounded or
    gets noise.

    rowwise: each position of what a 1x1 convolution sees, all its channels, is divided by its largest number before it
    is rounded, and multiplied by it after (as ZeroQuant's tokens, arXiv 2206.01861): where little happens, steps are
    small. Of the codec's g_s at 7 bits (activations alone, not trained) a sixth of the error was left.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], groups: int, bits: tuple[Bits, ...], state: State,
        signed: bool = False, quantizer: str = "lsq", stride: int = 1, padded: bool = True,
        bias: bool = False, balanced: bool = False, rowwise: bool = False,
    ):  # fmt: skip
        super().__init__()
        if rowwise and (kernel != (1, 1) or groups > 1):
            raise ValueError("a scale for each position is of a 1x1 convolution without groups")
        if inputs % groups or outputs % groups:
            raise ValueError(f"{groups} groups do not divide {inputs} -> {outputs} channels")
        if quantizer not in ("lsq", "hwgq"):
            raise ValueError(f"quantizer is lsq or hwgq, not {quantizer!r}")
        self.inputs, self.outputs, self.kernel, self.groups, self.stride = inputs, outputs, kernel, groups, stride
        self.padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.bits, self.signed, self.state, self.rowwise = tuple(bits), signed, state, rowwise
        self.w_bits, self.a_bits = (tuple(pair(b)[i] for b in bits) for i in range(2))
        self.register_buffer("balance", torch.ones(inputs) if balanced else None)
        self.register_buffer("fitted", torch.tensor(False) if balanced else None)  # saved with them
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, *kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.of_weight = nn.ModuleList(LSQ(b, True, outputs) for b in self.w_bits)
        fixed = quantizer == "hwgq" and not signed
        self.of_input = nn.ModuleList(HWGQ(b) if fixed else LSQ(b, signed) for b in self.a_bits)

    def heard(self, x: Tensor) -> Tensor | Noisy:
        """x as the candidates of a position share it: rectified, balanced, and with its noise where that is searched
        against."""
        return self._noisy(self._entered(x))

    def _entered(self, x: Tensor) -> Tensor:
        r = x if self.signed else F.relu(x)
        if self.balance is None or self.state.mode == "float":
            return r
        if not self.fitted:
            self._fit_balance(r)
        return r / self.balance[:, None, None]

    def _noisy(self, r: Tensor) -> Tensor | Noisy:
        noise = self.state.noise
        noisy = self.state.mode == "noise" and self.training
        return Noisy(r, self.a_bits, noise.rule, noise.kind, self.signed) if noisy else r

    def forward(self, x: Tensor | Noisy, shares: Tensor | None = None) -> Tensor:
        largest = None
        if isinstance(x, Tensor):
            x = self._entered(x)
            if self.rowwise and self.state.mode != "float":
                largest = x.detach().abs().amax(1, keepdim=True).clamp(min=SMALLEST)
                x = x / largest
            x = self._noisy(x)
        w = self.weight if self.state.mode == "float" else self.balanced_weight()
        if isinstance(x, Noisy):
            shares = w.new_ones(1) if shares is None else shares
            noise = self.state.noise
            x, w = x.at(shares), Noisy(w, self.w_bits, noise.rule, noise.kind, rows=True).at(shares)
        elif self.state.mode != "float":
            if shares is None or len(self.bits) == 1:
                x, w = self.of_input[0](x), self.of_weight[0](w)
            else:
                chosen = [i for i in range(len(self.bits)) if float(shares[i]) > 0] if not self.training else None
                x = self._mixed(x, self.of_input, shares, chosen)
                w = self._mixed(w, self.of_weight, shares, chosen)
        x = x if largest is None else x * largest
        return F.conv2d(x, w, self.bias, self.stride, self.padding, 1, self.groups)

    def balanced_weight(self) -> Tensor:
        """The weight as it is rounded."""
        if self.balance is None:
            return self.weight
        g, of_group = self.groups, self.inputs // self.groups
        factors = self.balance.view(g, 1, of_group).expand(g, self.outputs // g, of_group)
        return self.weight * factors.reshape(self.outputs, of_group, 1, 1)

    @torch.no_grad()
    def _fit_balance(self, x: Tensor) -> None:
        """Between x and the weight, by about the largest of each; a depthwise weight has a step of its own for each
        channel, so that x gets all."""
        g, of_group = self.groups, self.inputs // self.groups
        largest = x.abs().amax((0, 2, 3))
        share = x / largest.clamp(min=1e-12)[:, None, None]
        reach = largest * share.pow(PEAK).mean((0, 2, 3)).pow(1 / PEAK)
        met = self.weight.view(g, self.outputs // g, of_group, *self.kernel).abs().amax((1, 3, 4)).flatten()
        balance = reach if of_group == 1 else reach**BALANCE / met.clamp(min=1e-6) ** (1 - BALANCE)
        balance = torch.where((reach > 0) & (met > 0), balance, 1.0)
        self.balance.copy_(balance / balance.log().mean().exp())
        self.fitted.fill_(True)

    @staticmethod
    def _mixed(t: Tensor, quantizers: nn.ModuleList, shares: Tensor, chosen: list[int] | None) -> Tensor:
        if chosen is not None and len(chosen) == 1:
            return quantizers[chosen[0]](t)
        total = shares[0] * quantizers[0](t)
        for share, quantizer in zip(shares[1:], list(quantizers)[1:], strict=True):
            total = total + share * quantizer(t)
        return total

    def layer(self, size_in: tuple[int, int], size_out: tuple[int, int], which: int = 0) -> Layer:
        """What it is at one of its bit-widths."""
        w, a, step = self.w_bits[which], self.a_bits[which], None
        if w < FLOAT_BITS and self.of_weight[which].started:
            step = self.of_weight[which].step()
        weight = self.balanced_weight()
        return Layer("conv", self.inputs, self.outputs, self.kernel, self.groups, size_in, size_out, w, a, weight, step)


class ADQ(nn.Module):
    """A residual branch behind a batch norm whose output is brought back to the deviation of the skip:
    skip + f(BN(x)) * (w * sd(skip) + c), sd per picture (QuantNAS after AdaDM, arXiv 2111.10515). off: skip + f(x)."""

    def __init__(self, channels: int, on: bool = True):
        super().__init__()
        self.on = on
        if on:
            self.norm = nn.BatchNorm2d(channels)
            self.w, self.c = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(0.0))

    def inside(self, x: Tensor) -> Tensor:
        """What the branch sees."""
        return self.norm(x) if self.on else x

    def outside(self, skip: Tensor, branch: Tensor) -> Tensor:
        """The sum."""
        return skip + branch * self.scale(skip) if self.on else skip + branch

    def scale(self, skip: Tensor) -> Tensor:
        """One factor a picture, (batch, 1, 1, 1)."""
        return self.w * skip.std((1, 2, 3), keepdim=True) + self.c
