"""Per-picture refinement of y and z by stochastic Gumbel annealing: smaller files for more time, the decoder unchanged.

Source: Yang, Bamler, Mandt, "Improving inference for neural image compression" (NeurIPS 2020), which MLICv2+ (arXiv
2504.19119) applies to its latents. Annealing runs through the network in floating point; every candidate is then coded
by the integer network that decodes it, and the best of these is kept, the unrefined one among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec import network, pipeline
from codec.bundle import Bundle
from codec.coding import code_latents
from codec.config import rate_lambda
from codec.models.mlicv2 import Likelihoods, TorchNetwork
from codec.models.ops import Arithmetic, fast_precision, products
from codec.modes import Encode
from codec.ops.native import real
from codec.runtime.torch import BundleOps

# Our choice for a hundred or two hundred iterations; the paper's own (0.005, 0.5, 0.13) gain a seventh less in 100.
RATE = 0.015  # Adam's, in steps of the quantizer
HOT, COLD = 0.6, 0.3  # temperatures: constant for the first part, then falling exponentially
CONSTANT = 0.35  # that part
MAX_PIXELS = 1 << 21  # 3 KB of memory each
CHECKS = 10  # candidates that are coded on the way


class Twin(TorchNetwork):
    """The deployed network with gradients: codec.coding.Network on torch tensors of real numbers."""

    def __init__(self, bundle: Bundle):
        self.cfg, self.slices, self.arrays = bundle.config, len(bundle.config.slices), bundle.arrays
        integers, floats = real(bundle.part("integer")), bundle.part("float")
        self.entropy = _Ops({n: torch.from_numpy(a).float() for n, a in integers.items()}.__getitem__, Arithmetic.CLIP)
        self.transforms = _Ops(
            {n: torch.from_numpy(a.astype(np.float32)) for n, a in floats.items()}.__getitem__, Arithmetic.FLOAT
        )

    def z_parameters(self, qp: int) -> tuple[Tensor, Tensor]:
        mean, index = (
            torch.from_numpy(self.arrays[f"integer/z/{n}"][qp].astype(np.float32)) for n in ("mean", "index")
        )
        return mean / 64, index


class _Ops(BundleOps):
    def by_loops(self, x: Tensor) -> bool:
        return x.is_cpu and torch.is_grad_enabled()


class Anneal(Likelihoods):
    """Relaxed rounding: between floor and ceiling, drawn by Gumbel-softmax; the rate is that of the relaxed values."""

    def __init__(self, net: Twin, y: Tensor, z: Tensor, temperature: float, skip: int, generator: torch.Generator):
        super().__init__(net, y, z, None, skip)
        self.temperature, self.generator = temperature, generator

    def quantized(self, v: Tensor) -> tuple[Tensor, Tensor]:
        low = v.detach().floor()
        fraction = (v - low).clamp(1e-5, 1 - 1e-5)
        # Two-way Gumbel-softmax is a logistic: the difference of two Gumbels is logistic noise.
        u = torch.rand(v.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
        logit = (torch.atanh(fraction) - torch.atanh(1 - fraction)) / self.temperature + u.logit()
        relaxed = low + torch.sigmoid(logit / self.temperature)
        return relaxed, relaxed


def temperature(done: float) -> float:
    """Of a share of the iterations done, 0..1."""
    fall = max(0.0, (done - CONSTANT) / (1 - CONSTANT))
    return HOT * math.exp(-fall * math.log(HOT / COLD))


@dataclass
class Best:
    """The candidate with the least rate + lambda distortion so far."""

    cost: float
    mode: Encode


def refine(
    rgb: NDArray[np.uint8],
    qp: int,
    runtime: Any,
    iterations: int,
    seconds: float = math.inf,
    progress: Callable[[int, float], None] = lambda done, cost: None,
) -> Encode:
    """All symbols of a picture, uint8 [H, W, 3], refined for so many iterations or seconds; never worse than before.

    runtime: of the deployed network, codes the candidates. progress hears of iterations done and of the best cost,
    bits per pixel + lambda * squared error. Takes about 3 KB of memory a pixel.
    """
    start = time.monotonic()
    height, width = rgb.shape[:2]
    x = pipeline.padded(rgb)
    bundle, weight = runtime.bundle, rate_lambda(qp)
    skip = int(bundle.arrays["integer/skip"][0])
    first_y, first_z = runtime.analyse(x, qp)
    bank = pipeline.bank(runtime)

    def candidate(y: NDArray, z: NDArray) -> Best:
        mode = Encode(y, z, bundle.config.slices, skip)
        y_hat, psi = code_latents(runtime, mode, qp)
        decoded = runtime.synthesise(y_hat, psi, qp)[0, :, :height, :width].transpose(1, 2, 0)
        error = np.clip(np.rint(decoded * 127.5 + 127.5), 0, 255) - rgb
        bits = 8 * len(mode.payload(bank)[0]) / (height * width)
        return Best(bits + weight * float(np.mean(np.square(error), dtype=np.float64)), mode)

    best = candidate(first_y, first_z)
    net, generator = Twin(bundle), torch.Generator().manual_seed(0)
    y, z = (torch.from_numpy(a.transpose(0, 2, 3, 1).copy()).requires_grad_() for a in (first_y, first_z))
    target = torch.from_numpy(x.transpose(0, 2, 3, 1).copy())[:, :height, :width]
    optimizer = torch.optim.Adam([y, z], RATE)
    checks = {round(iterations * (n + 1) / CHECKS) for n in range(CHECKS)}
    for done in range(1, iterations + 1):
        with products(fast_precision("cpu")):
            mode = Anneal(net, y, z, temperature(done / iterations), skip, generator)
            y_hat, psi = code_latents(net, mode, qp)
            shown = network.g_s(net.transforms, net.cfg, y_hat, psi, qp)[:, :height, :width]
            bits = torch.stack(list(mode.bits.values())).sum()
            loss = bits / (height * width) + weight * (shown - target).square().mean() * 127.5**2
            y.grad, z.grad = torch.autograd.grad(loss, (y, z))
        optimizer.step()
        late = time.monotonic() - start > seconds
        if done in checks or late:
            now = [a.detach().numpy().transpose(0, 3, 1, 2).copy() for a in (y, z)]
            best = min(best, candidate(*now), key=lambda b: b.cost)
        progress(done, best.cost)
        if late:
            break
    return best.mode
