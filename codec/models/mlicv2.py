"""MLICv2 in its deployable form, as a torch module: parameters, initialization, rate and distortion.

The network itself is codec.network; here it gets parameters and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from codec import network
from codec.coding import HYPER, code_latents
from codec.config import QP_ANCHORS, QPS, Config, rate_lambda
from codec.models.ops import Arithmetic, TorchOps, round_half_up
from codec.ops.shapes import count, vectors
from codec.tables import INDEX_STEP, LOG_SCALE_MIN, SCALES

Z_DEVIATION = 2.0  # of z in steps when training starts: smaller ones let z die


def qp_weights(qp: Tensor) -> Tensor:
    """QP levels (batch,) -> weights of linear interpolation between the learned levels, (batch, QP_ANCHORS)."""
    t = qp.float()[:, None] * (QP_ANCHORS - 1) / (QPS - 1)
    return (1 - (t - torch.arange(QP_ANCHORS, device=qp.device)).abs()).clamp(min=0)


def gaussian_bits(v: Tensor, index: Tensor) -> Tensor:
    """Bits of deviations v (in steps) under the discretised Gaussian of a (real) scale index, summed per picture.

    A thin polynomial tail stands for the escape code and keeps a gradient for outliers (our choice).
    """
    a, r = v.float().abs(), torch.exp(-(LOG_SCALE_MIN + INDEX_STEP * index.float())) * math.sqrt(0.5)
    p = 0.5 * (torch.erfc((a - 0.5) * r) - torch.erfc((a + 0.5) * r))
    return -(p + 1e-6 / (1 + a * a)).log2().flatten(1).sum(1)


class Likelihoods:
    """The mode of codec.coding that trains: y_hat by straight-through rounding, the rate of noisy or rounded values.

    uniform: makes noise in 0..1, in the shape of its argument, that stands for rounding in the rate; None rounds.

    skip: symbols whose scale index is below are not coded; they become their mean. 0 codes all.
    """

    def __init__(
        self, model: TorchNetwork, y: Tensor, z: Tensor, uniform: Callable[[Tensor], Tensor] | None, skip: int
    ):
        self.model, self.y, self.z, self.uniform, self.skip = model, y, z, uniform, skip
        self.bits = {i: torch.zeros(len(y), device=y.device) for i in range(HYPER, len(model.cfg.slices))}

    def source(self, i: int, half: int) -> Tensor:
        if i == HYPER:
            return self.z
        lo = sum(self.model.cfg.slices[:i])
        return self.model.entropy.pack(self.y[..., lo : lo + self.model.cfg.slices[i]], half)

    def quantized(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Differences from the means -> what is decoded, and what the rate is counted of."""
        rounded = round_half_up(v)
        return rounded, v + self.uniform(v) - 0.5 if self.uniform else rounded

    def code(self, i: int, half: int, mean: Tensor, index: Tensor) -> Tensor:
        rounded, rated = self.quantized(self.source(i, half) - mean)
        coded = (index.detach() >= self.skip).float() if self.skip and i != HYPER else torch.ones_like(rounded)
        # An uncoded symbol counts as a certain zero.
        self.bits[i] = self.bits[i] + gaussian_bits(rated * coded, index * coded)
        return mean + rounded * coded


class TorchNetwork:
    """What codec.coding asks of a network, all but the parameters of z, on tensors of real numbers."""

    cfg: Config
    slices: int
    entropy: TorchOps

    def hyper(self, z_hat: Tensor, qp: Any) -> Tensor:
        return network.h_s(self.entropy, self.cfg, z_hat, qp)

    def anchors(self, i: int, psi: Tensor, before: Tensor | None, qp: Any) -> tuple[Tensor, ...]:
        return network.anchors(self.entropy, self.cfg, i, psi, before, qp)

    def others(self, i: int, t: Tensor, inter: Tensor, anchor: Tensor, qp: Any) -> tuple[Tensor, Tensor]:
        return network.others(self.entropy, self.cfg, i, t, inter, anchor, qp)

    def place(self, coded: Tensor, known: Tensor | None, *_: object) -> Tensor:
        return self.entropy.place(coded, known)

    def join(self, slices: list[Tensor]) -> Tensor | None:
        return torch.cat(slices, -1) if slices else None


class MLICv2(TorchNetwork, nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg, self.slices = cfg, len(cfg.slices)
        shapes = {n: s for part in count(cfg).values() for n, s in part.layers.items()} | vectors(cfg)
        self.arrays = nn.ParameterDict({n: nn.Parameter(torch.zeros(s)) for n, s in shapes.items()})
        self.arrays["y/deviation"].requires_grad_(False)
        self.transforms = TorchOps(self.arrays.__getitem__, Arithmetic.FLOAT)
        self.entropy = TorchOps(self.arrays.__getitem__, Arithmetic.CLIP)
        self.skip = 0
        self.initialize()

    # -- what the coding loop asks for ------------------------------------------------------------------------------
    def z_parameters(self, qp: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.entropy.vector("z/mean", qp), self.entropy.vector("z/log_scale", qp)
        index = (log_scale - LOG_SCALE_MIN) / INDEX_STEP
        return mean, index + (index.clamp(0, SCALES - 1) - index).detach()

    # -- training ---------------------------------------------------------------------------------------------------
    def analyse(self, x: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (batch, height, width, 3) in -1..1 -> y in steps and z."""
        signal = network.g_a(self.transforms, self.cfg, x, qp)
        z = network.h_a(self.transforms, self.cfg, signal, qp)
        return signal * self.transforms.vector("y/gain", qp).exp(), z

    def forward(
        self, x: Tensor, qp: Tensor, uniform: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """x (batch, height, width, 3) in -1..1, sides multiples of 64; qp from qp_weights.

        Returns x_hat, not clipped, and bits per picture of z (HYPER) and of each slice.
        """
        y, z = self.analyse(x, qp)
        mode = Likelihoods(self, y, z, uniform, self.skip)
        y_hat, psi = code_latents(self, mode, qp)
        return network.g_s(self.transforms, self.cfg, y_hat, psi, qp), mode.bits

    def set_arithmetic(self, arithmetic: Arithmetic) -> None:
        self.entropy.kind = arithmetic

    @torch.no_grad()
    def hold_gains(self) -> None:
        """Keep every gain of y at least where its channel is zero, whatever the picture: y at network.BOUND is a
        thousandth of a step. Gradients end there, but AdamW's steps do not (measured: gains of e^-39, and below them
        latents of a million deviations, which broke out between two levels)."""
        gain = self.arrays["y/gain"]
        gain.copy_(torch.maximum(gain, -(1000 * network.BOUND * self.arrays["y/deviation"]).log()))

    # -- initialization ---------------------------------------------------------------------------------------------
    @torch.no_grad()
    def initialize(self) -> None:
        """Unit-gain weights; residual ends and gates' corrections at zero; gains from high-rate theory."""
        for name, a in self.arrays.items():
            if name.endswith("/weight"):
                a.normal_(std=a.shape[1] ** -0.5)
                if name.endswith(("/out/weight", "/back/weight", "lrp/1/weight")):
                    a.zero_()
                if name.startswith("slice") and name.endswith(("anchor/1/weight", "other/1/weight")):
                    a.mul_(0.1)
        # A uniform quantizer of step s costs s^2/12; lambda then asks for this step, in signal units.
        lambdas = torch.tensor([rate_lambda(i * (QPS - 1) / (QP_ANCHORS - 1)) for i in range(QP_ANCHORS)])
        gain = 0.5 * torch.log(127.5**2 * lambdas / 26)
        self.arrays["y/gain"].copy_(gain[:, None].expand_as(self.arrays["y/gain"]))
        self.arrays["y/reconstruct"].copy_(-gain[:, None].expand_as(self.arrays["y/gain"]))
        self.arrays["y/deviation"].fill_(1.0)
        self.arrays["z/log_scale"].fill_(math.log(Z_DEVIATION))

    @torch.no_grad()
    def fit_to(self, x: Tensor) -> None:
        """Start as a linear two-stage PCA transform (8x8 blocks, then 2x2 of them) with its inverse as g_s, with
        deviations and z measured on pictures x (batch, height, width, 3) in -1..1."""
        a, o = self.arrays, self.transforms

        def pca(t: Tensor, k: int) -> Tensor:
            t = t.flatten(0, 2)
            return torch.linalg.eigh(t.T @ t / len(t))[1].flip(1)[:, :k].T.contiguous()

        f = o.unshuffle(x, 8)
        first = pca(f, self.cfg.width)
        g = o.unshuffle(f @ first.T, 2)
        second = pca(g, self.cfg.latents)
        for name, w in (("g_a/stem", first), ("g_a/down", second), ("g_s/up", second.T), ("g_s/head", first.T)):
            a[f"{name}/weight"].copy_(w)
        y = g @ second.T
        a["y/deviation"].copy_(y.flatten(0, 2).square().mean(0).sqrt() + 1e-3)
        t = o.energy(y, "y/deviation")
        for i, target in enumerate((1.0, 1.0, Z_DEVIATION)):
            w, b = a[f"h_a/{i}/weight"], a[f"h_a/{i}/bias"]
            t = o.unshuffle(o.act(t), 2) if i else t
            out = t @ w.T
            w.mul_(target / out.std())
            b.copy_(-(t @ w.T).mean((0, 1, 2)))
            t = t @ w.T + b
        a["z/log_scale"].copy_(t.flatten(0, 2).std(0).log().expand_as(a["z/log_scale"]))
