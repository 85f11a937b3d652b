"""Muon for the matrices of convolutions, AdamW for everything else.

Muon (K. Jordan et al., 2024) replaces a matrix's momentum by its nearest orthogonal matrix; the scale that makes its
step as large as AdamW's is that of Moonlight (arXiv 2502.16982); a matrix that is small by training moves less (our
choice: trained token mixing has depthwise kernels of norm 10 between matrices of a tenth; after 250 steps from trained
weights a batch had a loss of 0.69 instead of 0.72). torch.optim.Muon iterates in bfloat16 everywhere and on one matrix
after the other; this one takes all of a shape at once, and float32 where a CPU would only emulate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from codec.models.ops import multiplies_bfloat16

NEWTON_SCHULZ = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                 (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012))  # fmt: skip

LEAST = 0.1  # size of a matrix below which steps shrink no further: some start at zero


def orthogonalize(m: Tensor) -> Tensor:
    """Matrices (n, rows, columns) -> their orthogonal factors, roughly, by five Newton-Schulz steps."""
    wide = m if m.shape[1] <= m.shape[2] else m.transpose(1, 2).contiguous()
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if multiplies_bfloat16(m.device):
        x = x.bfloat16()
    for a, b, c in NEWTON_SCHULZ:
        g = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(g, g, g, beta=b, alpha=c), x, beta=a)
    return (x if wide is m else x.transpose(1, 2)).to(m)


@torch.no_grad()
def follow(averages: list[Tensor], values: list[Tensor], weight: float | Tensor) -> None:
    """averages += weight * (values - averages); weight: a number, or a tensor of one."""
    if not isinstance(weight, Tensor):
        return torch._foreach_lerp_(averages, values, weight)
    steps = torch._foreach_sub(values, averages)
    torch._foreach_mul_(steps, weight)
    torch._foreach_add_(averages, steps)


class Muon(torch.optim.Optimizer):
    """Of kernels (outputs, inputs, ...), each a matrix with a row for an output. lr: a number, or a tensor of one. As
    with torch's fused optimizers, a step changes nothing where the attribute found_inf, a tensor of one, is 1."""

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[Tensor], lr: float | Tensor = 2e-3, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        counts = 1.0 if self.found_inf is None else 1.0 - self.found_inf
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for shape, ps in shapes.items():
                grads = [p.grad for p in ps]
                momenta = [self._momentum(p) for p in ps]
                follow(momenta, grads, (1 - group["momentum"]) * counts)
                ahead = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"])).flatten(2)
                longest = max(ahead.shape[1:])
                moves = orthogonalize(ahead) * (-0.2 * longest**0.5 * group["lr"] * counts) * self._size(ps)
                torch._foreach_add_(ps, moves.view(-1, *shape).unbind())

    @staticmethod
    def _size(ps: list[Tensor]) -> Tensor:
        """Of each matrix, (n, 1, 1): 1 where it keeps the scale of what it multiplies, and for larger ones."""
        return (torch.stack(torch._foreach_norm(ps)) * ps[0].shape[0] ** -0.5).clamp(LEAST, 1.0)[:, None, None]

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum"]
        return momentum
