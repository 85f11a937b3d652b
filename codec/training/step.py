"""Loss and gradients of a batch of crops.

On a CPU each thread takes crops of its own through the whole network, instead of all threads sharing every layer: no
thread waits for another two thousand times a step, and half the crops stay in cache (1.01 against 1.28 s for 16 crops
of 128x128 on two shared cores, medians, paired).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from codec.models.mlicv2 import MLICv2, qp_weights
from codec.training import distributed
from codec.training.data import to_signal

RATE_WEIGHT = -0.45  # a crop's loss is weighted by lambda to this power: about one over its rate
OUTLIER = 100.0  # so weighted, no crop has more loss: trained ones have 8, the worst of 4,000 had 90

Uniform = Callable[[Tensor], Tensor]
Loss = Callable[[MLICv2, Tensor, Tensor, Tensor, Tensor, Uniform], tuple[Tensor, Tensor, Tensor]]


def loss_of(
    model: MLICv2, x: Tensor, qp: Tensor, lambdas: Tensor, shares: Tensor, uniform: Uniform
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 crops, QPs, weights of the crops -> loss; bits per pixel (z and slices, crops); squared error (of 0..255).

    uniform: noise in 0..1 in the shape of its argument.
    """
    signal_in = to_signal(x)
    x_hat, bits = model(signal_in, qp_weights(qp), uniform)
    bpp = torch.stack(list(bits.values())) / (x.shape[1] * x.shape[2])
    mse = (x_hat - signal_in).square().mean((1, 2, 3)) * 127.5**2
    cost = bpp.sum(0) + lambdas * mse
    far = (cost.detach() * lambdas**RATE_WEIGHT / OUTLIER).clamp(min=1.0)
    return (cost * shares / far).sum(), bpp.detach(), mse.detach()


def shares_of(lambdas: Tensor) -> Tensor:
    """Weights of the crops of a batch in its loss."""
    shares = lambdas**RATE_WEIGHT
    return shares / shares.sum()


def _source(seed: int) -> Uniform:
    """Noise of a thread's own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.rand(like.shape, generator=generator)


class Gradients:
    """Called with a batch, leaves its gradients in the model's parameters. workers: threads that take a part each.

    Of several processes each takes its workers' parts, and all get the same sums. All chance is in rng, so the same
    batch and number of workers in all give the same gradients.
    """

    def __init__(self, model: MLICv2, workers: int, loss: Loss = loss_of):
        self.model, self.workers, self.loss = model, workers, loss
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.pool = ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) if workers > 1 else None

    def __call__(
        self, x: Tensor, qp: Tensor, lambdas: Tensor, rng: np.random.Generator
    ) -> tuple[float, Tensor, Tensor]:
        """Loss, bits per pixel, squared errors, the last two in the order of the crops."""
        shares = shares_of(lambdas)
        everyone = min(self.workers * distributed.world(), len(x))
        seeds = [int(s) for s in rng.integers(1 << 62, size=everyone)]
        mine = range(distributed.rank() * self.workers, min((distributed.rank() + 1) * self.workers, everyone))
        bpp, mse = torch.zeros(self.model.slices + 1, len(x), device=x.device), torch.zeros(len(x), device=x.device)

        def part(number: int, uniform: Uniform) -> tuple[tuple[Tensor, ...], Tensor]:
            crops = slice(number, None, everyone)
            loss, bpp[:, crops], mse[crops] = self.loss(
                self.model, x[crops], qp[crops], lambdas[crops], shares[crops], uniform
            )
            return torch.autograd.grad(loss, self.parameters), loss.detach()

        if self.pool is None:
            results = []
            for number in mine:
                torch.manual_seed(seeds[number])  # a compiler knows the global source of chance only
                results.append(part(number, torch.rand_like))
        else:
            torch.set_num_threads(1)  # of the library of matrix products, for all threads
            results = list(self.pool.map(part, mine, (_source(seeds[number]) for number in mine)))
            torch.set_num_threads(self.workers)
        gradients = [sum(parts[1:], parts[0]) for parts in zip(*(r[0] for r in results), strict=True)]
        if not results:  # more workers than crops
            gradients = [torch.zeros_like(p) for p in self.parameters]
        loss = torch.stack([r[1] for r in results]).sum() if results else bpp.new_zeros(())
        *gradients, loss, bpp, mse = distributed.total([*gradients, loss, bpp, mse])
        for p, g in zip(self.parameters, gradients, strict=True):
            p.grad = g.contiguous()  # torch's fused AdamW on CPUs reads any other order of elements as this one
        return float(loss), bpp, mse
