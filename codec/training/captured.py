"""A training step on a GPU as one CUDA graph: loss, gradients, clipping, both optimizers, the average of the weights.

A step of this network is seven thousand kernels of a few microseconds; launched one by one they would wait for Python.
What changes from step to step is written where the graph reads it: crops, their QPs and weights, the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.models.mlicv2 import MLICv2
from codec.training.step import loss_of, shares_of

CLIP = 1.0  # norm of the gradient
WARM_UP = 3  # steps before the graph is taken, in which kernels are built and optimizers make their states

Told = tuple[float, Tensor, Tensor, bool]


class Captured:
    """Called with a batch, takes a step. A graph is made for each shape of batch and each arithmetic when first met.

    All chance is in rng, so the same batch gives the same step.
    """

    def __init__(self, model: MLICv2, optimizers: list[torch.optim.Optimizer], average: Callable[[Tensor], None]):
        self.model, self.optimizers, self.average = model, optimizers, average
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.graphs: dict[Any, Graph] = {}

    def __call__(
        self, x: Tensor, qp: Tensor, lambdas: Tensor, rate: float, newest: float, rng: np.random.Generator
    ) -> Told:
        """Loss; bits per pixel (z and slices, crops) and squared errors, on the CPU; whether all was finite: nothing
        is changed else. rate: of learning; newest: share of the newest weights in the average."""
        key = (x.shape, self.model.entropy.kind, self.model.skip)
        numbers = torch.cat((qp, lambdas, shares_of(lambdas), torch.tensor([rate, newest, 1.0])))
        if key not in self.graphs:
            self.graphs[key] = Graph(self, x.clone(), numbers.to(x.device))
            self.graphs[key].capture()
        torch.cuda.manual_seed(int(rng.integers(1 << 62)))
        return self.told(self.graphs[key].replay(x, numbers), len(x))

    def told(self, found: Tensor, count: int) -> Told:
        """What a graph answers, taken apart."""
        found = found.cpu()
        rates, squares = found[2:].split((len(found) - 2 - count, count))
        return float(found[0]), rates.view(-1, count), squares, bool(found[1])


class Graph:
    """x: crops; numbers: their QPs, lambdas and shares of the loss, then the rate of learning, the share of the newest
    weights in the average, and 1 to learn or 0 to change nothing. Both are the graph's own."""

    def __init__(self, step: Captured, x: Tensor, numbers: Tensor):
        self.step, self.x, self.numbers = step, x, numbers
        for o in step.optimizers:
            for group in o.param_groups:
                group["lr"] = numbers[-3]

    def capture(self) -> None:
        for o in self.step.optimizers:
            for group in o.param_groups:
                if "capturable" in group:
                    group["capturable"] = True
        self.numbers[-1] = 0.0
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.take()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.found = self.take()
        for p in self.step.parameters:
            p.grad = None

    def replay(self, x: Tensor, numbers: Tensor) -> Tensor:
        self.x.copy_(x)
        self.numbers.copy_(numbers.pin_memory(), non_blocking=True)
        self.graph.replay()
        return self.found

    def take(self) -> Tensor:
        """The step: its loss, whether that is finite, bits per pixel and squared errors, in one tensor."""
        step, n = self.step, len(self.x)
        qp, lambdas, shares, (_, newest, learns) = self.numbers.split((n, n, n, 3))
        loss, bpp, mse = loss_of(step.model, self.x, qp, lambdas, shares, torch.rand_like)
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, step.parameters)])
        norm = flat.norm()
        finite = torch.isfinite(norm)
        flat = torch.where(finite, flat * (CLIP / (norm + 1e-6)).clamp(max=1.0), 0.0)
        for p, g in zip(step.parameters, flat.split([p.numel() for p in step.parameters]), strict=True):
            p.grad = g.view(p.shape)
        counts = finite.float() * learns
        for o in step.optimizers:
            o.found_inf = 1.0 - counts
            o.step()
        step.average(newest * counts)
        return torch.cat((loss.detach()[None], finite.float()[None], bpp.flatten(), mse))
