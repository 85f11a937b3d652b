"""Rounding to b bits with learned or fixed steps, and the noise that stands for it while searching.

LSQ: Esser et al., arXiv 1902.08153. HWGQ: Cai et al., arXiv 1702.00953, with the steps of QuantNAS's code. The noise is
that of QuantNAS (arXiv 2208.14839) after DiffQ, its mixing rule ours: see `noised`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.cost import FLOAT_BITS

# For the positive half of a unit Gaussian, as in QuantNAS's code; best are 2 % more at 2 bits, 4, 8 and 18 % less at 3,
# 4 and 8 (measured).
HWGQ_STEPS = {1: 1.0576, 2: 0.6356, 3: 0.3721, 4: 0.21306, 8: 0.020301, 16: 9.715e-5}
RULES = ("var", "linear", "independent", "reference")
TINY = 1e-20


def levels(bits: int, signed: bool) -> tuple[int, int]:
    """The least and the greatest integer: -8..7 or 0..15 for 4 bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def round_through(x: Tensor) -> Tensor:
    """Rounded, ties to even; gradients as if it were not."""
    return x + (x.round() - x).detach()


class LSQ(nn.Module):
    """x -> step * round(clip(x / step)), with a learned step: one, or one for each of `channels` rows.

    The step is kept positive by construction: it can turn negative otherwise. It starts at 2 mean|x| / sqrt(Qp) of the
    first x seen, and its gradient is scaled by 1 / sqrt(Qp * values that share it).
    """

    def __init__(self, bits: int, signed: bool, channels: int = 0):
        super().__init__()
        self.bits, self.signed = bits, signed
        self.raw = nn.Parameter(torch.zeros(channels, 1, 1, 1) if channels else torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))  # a buffer: saved with the step

    def step(self) -> Tensor:
        """Positive."""
        return self.raw.abs() + 1e-9

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Fit the step to x."""
        size = x.abs().flatten(1).mean(1).view(self.raw.shape) if self.raw.dim() else x.abs().mean()
        self.raw.copy_((2 * size / math.sqrt(levels(self.bits, self.signed)[1])).clamp(min=1e-6))
        self.started.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        if self.bits >= FLOAT_BITS:
            return x
        if not self.started:
            self.start(x)
        low, high = levels(self.bits, self.signed)
        scale = (high * x.numel() / self.raw.numel()) ** -0.5
        step = self.step()
        step = step.detach() + (step - step.detach()) * scale
        return round_through((x / step).clamp(low, high)) * step

    @torch.no_grad()
    def integers(self, x: Tensor) -> Tensor:
        """The levels, int32."""
        return (x / self.step()).clamp(*levels(self.bits, self.signed)).round().int()


class HWGQ(nn.Module):
    """Unsigned activations with fixed steps: for inputs that are normalised before a rectifier."""

    def __init__(self, bits: int):
        super().__init__()
        if bits < FLOAT_BITS and bits not in HWGQ_STEPS:
            raise ValueError(f"HWGQ has steps for {sorted(HWGQ_STEPS)} bits, not {bits}")
        self.bits, self.signed = bits, False

    def step(self) -> Tensor:
        return torch.tensor(HWGQ_STEPS[self.bits])

    def forward(self, x: Tensor) -> Tensor:
        if self.bits >= FLOAT_BITS:
            return F.relu(x)
        step = HWGQ_STEPS[self.bits]
        return round_through(x.clamp(0, step * (2**self.bits - 1)) / step) * step


def deviations(t: Tensor, bits: tuple[int, ...]) -> Tensor:
    """Standard deviation of the noise at each bit-width: half a step of a uniform quantizer over the range of t."""
    reach = (t.max() - t.min()).detach()
    return torch.stack([reach / (2**b - 1) / 2 if b < FLOAT_BITS else torch.zeros_like(reach) for b in bits])


def _sample(t: Tensor, kind: str) -> Tensor:
    """Noise in units of the deviations: Gaussian, or uniform within half a step, which is of a smaller deviation."""
    return torch.randn_like(t) if kind == "gaussian" else 2 * torch.rand_like(t) - 1


def noised(t: Tensor, bits: tuple[int, ...], shares: Tensor, rule: str = "var", kind: str = "gaussian") -> Tensor:
    """t plus the noise of a mixture of bit-widths; its gradient to t is 1 but for rule "reference".

    shares: of the bit-widths, summing to 1 (for "reference" they may sum to less). Rules: "var", whose power is that of
    a random choice, linear in the shares (ours); "linear", whose deviation is; "independent", one noise for each width,
    which understates the power of what is undecided; "reference", what the public code of QuantNAS computes.
    """
    sigma = deviations(t, bits)
    if rule == "var":
        return t + _sample(t, kind) * ((shares * sigma.square()).sum() + TINY).sqrt()
    if rule == "linear":
        return t + _sample(t, kind) * (shares * sigma).sum()
    noises = [_sample(t, kind) * s for s in sigma]
    if rule == "independent":
        return t + sum(p * n for p, n in zip(shares, noises, strict=True))
    if rule == "reference":
        whole = 1 / (len(bits) + 1)
        parts = shares / (shares.sum() + whole)
        return whole * t + sum(p * (t + n).detach() for p, n in zip(parts, noises, strict=True))
    raise ValueError(f"the rules of noise are {', '.join(RULES)}, not {rule!r}")
