"""Rounding to b bits with learned or fixed steps, and the noise that stands for it while searching.

LSQ: Esser et al., arXiv 1902.08153. HWGQ: Cai et al., arXiv 1702.00953, with the steps of QuantNAS's code. The noise is
that of QuantNAS (arXiv 2208.14839) after DiffQ, its mixing rule ours: see `Noisy`.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.cost import FLOAT_BITS

# For the positive half of a unit Gaussian, as in QuantNAS's code; best are 2 % more at 2 bits, 4, 8 and 18 % less at 3,
# 4 and 8 (measured).
HWGQ_STEPS = {1: 1.0576, 2: 0.6356, 3: 0.3721, 4: 0.21306, 8: 0.020301, 16: 9.715e-5}
Bits = int | tuple[int, int]  # of weights and activations alike, or of each
RULES = ("var", "linear", "independent", "reference")
KINDS = ("fitted", "gaussian", "uniform")
TINY = 1e-20


def pair(bits: Bits) -> tuple[int, int]:
    """Of weights and of activations."""
    return (bits, bits) if isinstance(bits, int) else bits


def said(bits: Bits) -> str:
    """8, or 4x8: weights of 4 bits, activations of 8."""
    w, a = pair(bits)
    return str(w) if w == a else f"{w}x{a}"


def work(bits: Bits) -> int:
    """Bit operations of a multiplication."""
    w, a = pair(bits)
    return w * a


def levels(bits: int, signed: bool) -> tuple[int, int]:
    """The least and the greatest integer: -8..7 or 0..15 for 4 bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def round_through(x: Tensor) -> Tensor:
    """Rounded, ties to even; gradients as if it were not."""
    return x + (x.round() - x).detach()


class LSQ(nn.Module):
    """x -> step * round(clip(x / step)), with a learned step: one, or one for each of `channels` rows.

    What is learned is the step over where it started: so a rate is relative, and steps of 1e-4 and of 1 can share one
    (our choice). It is kept positive by construction: it can turn negative otherwise. Its gradient is scaled by
    1 / sqrt(Qp * values that share it). It starts where the first x seen has the least squared error (our default: the
    paper's 2 mean|x| / sqrt(Qp) cuts off what a few channels have large, as latents do).
    """

    def __init__(self, bits: int, signed: bool, channels: int = 0):
        super().__init__()
        self.bits, self.signed = bits, signed
        shape = (channels, 1, 1, 1) if channels else ()
        self.raw = nn.Parameter(torch.ones(shape))
        self.register_buffer("unit", torch.zeros(shape))
        self.register_buffer("started", torch.tensor(False))  # saved with the step
        self.ready = False  # the same at hand: a GPU need not be asked

    def step(self) -> Tensor:
        """Positive."""
        return self.raw.abs() * self.unit + 1e-9

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Fit the step to x."""
        low, high = levels(self.bits, self.signed)
        rows = x.flatten(1) if self.raw.dim() else x.flatten()[None]
        top = (rows.abs().amax(1, keepdim=True) / high).clamp(min=1e-6)
        tried = torch.stack([top * 2 ** (-k / 2) for k in range(2 * self.bits + 1)])
        errors = torch.stack([((rows / s).clamp(low, high).round() * s - rows).square().sum(1, True) for s in tried])
        self.unit.copy_(tried.gather(0, errors.argmin(0, keepdim=True))[0].view(self.raw.shape))
        self.started.fill_(True)
        self.ready = True

    def forward(self, x: Tensor) -> Tensor:
        if self.bits >= FLOAT_BITS:
            return x
        if not self.ready:
            self.ready = bool(self.started)
            if not self.ready:
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


@cache
def lost(bits: int, signed: bool) -> float:
    """The root mean square error of a unit Gaussian (rectified unless signed) at the step that LSQ starts with, over
    its root mean square."""
    x = 2**0.5 * torch.erfinv(torch.linspace(-1, 1, 1 << 14, dtype=torch.float64)[1:-1])
    x = x if signed else x.relu()
    with torch.no_grad():
        return float(((LSQ(bits, signed)(x) - x).square().mean() / x.square().mean()).sqrt())


def deviations(
    t: Tensor, bits: tuple[int, ...], kind: str = "gaussian", signed: bool = True, rows: bool = False
) -> Tensor:  # fmt: skip
    """Of the noise at each bit-width: half a step of a uniform quantizer over the range of t (QuantNAS), or for kind
    "fitted" what fitted steps leave of Gaussians as large as t (ours: a third of that and less at 4 bits), with a step
    for each row if so asked: (bit-widths), or (bit-widths, rows, 1, ...)."""
    if kind == "fitted":
        over = tuple(range(1, t.dim())) if rows else None
        norm = torch.linalg.vector_norm(t.detach(), dim=over, keepdim=rows, dtype=torch.float32)
        size = norm / (t[0] if rows else t).numel() ** 0.5
        return torch.stack([size * (lost(b, signed) if b < FLOAT_BITS else 0.0) for b in bits])
    reach = (t.max() - t.min()).detach()
    return torch.stack([reach / (2**b - 1) / 2 if b < FLOAT_BITS else torch.zeros_like(reach) for b in bits])


def _sample(t: Tensor, kind: str) -> Tensor:
    """Noise in units of the deviations, laid out as t, whose elements are dense: Gaussian, or uniform within half a
    step, which is of a smaller deviation."""
    flat = torch.empty(t.numel(), dtype=t.dtype, device=t.device)
    flat = flat.uniform_(-1, 1) if kind == "uniform" else flat.normal_()
    return flat.as_strided(t.shape, torch.empty_like(t).stride())


class Noisy:
    """A tensor and the noise of its rounding, drawn once: operations that see the same tensor share it, so that what
    they disagree on is not averaged away (and it costs less).

    Rules: "var", whose power is that of a random choice, linear in the shares (ours); "linear", whose deviation is;
    "independent", one noise for each width, which understates the power of what is undecided; "reference", what the
    public code of QuantNAS computes.
    """

    def __init__(
        self, t: Tensor, bits: tuple[int, ...], rule: str = "var", kind: str = "gaussian", signed: bool = True,
        rows: bool = False,
    ):  # fmt: skip
        if rule not in RULES:
            raise ValueError(f"the rules of noise are {', '.join(RULES)}, not {rule!r}")
        if kind not in KINDS:
            raise ValueError(f"the kinds of noise are {', '.join(KINDS)}, not {kind!r}")
        self.t, self.rule, self.sigma = t, rule, deviations(t, bits, kind, signed, rows)
        each = {b: _sample(t, kind) for b in (bits[:1] if rule in ("var", "linear") else bits)}
        self.draws = [each[b] for b in bits if b in each]  # widths that are the same have the same

    def at(self, shares: Tensor) -> Tensor:
        """t at a mixture of bit-widths; its gradient to t is 1 but for rule "reference". shares sum to 1 (for
        "reference" they may sum to less)."""
        each = shares.view(-1, *[1] * (self.sigma.dim() - 1))
        if self.rule == "var":
            return torch.addcmul(self.t, self.draws[0], ((each * self.sigma.square()).sum(0) + TINY).sqrt())
        if self.rule == "linear":
            return torch.addcmul(self.t, self.draws[0], (each * self.sigma).sum(0))
        noises = [d * s for d, s in zip(self.draws, self.sigma, strict=True)]
        if self.rule == "independent":
            return self.t + sum(p * n for p, n in zip(shares, noises, strict=True))
        whole = 1 / (len(noises) + 1)
        parts = shares / (shares.sum() + whole)
        return whole * self.t + sum(p * (self.t + n).detach() for p, n in zip(parts, noises, strict=True))
