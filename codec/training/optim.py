"""Muon for the matrices of 1x1 convolutions, AdamW for everything else.

Muon (K. Jordan et al., 2024) replaces a matrix's momentum by its nearest orthogonal matrix; the scale that makes its
step as large as AdamW's is that of Moonlight (arXiv 2502.16982). torch.optim.Muon iterates in bfloat16, which CPUs
without bf16 units emulate slowly; this one works in float32 on all matrices of a shape at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                 (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012))  # fmt: skip


def orthogonalize(m: Tensor) -> Tensor:
    """Matrices (n, rows, columns) -> their orthogonal factors, roughly, by five Newton-Schulz steps."""
    wide = m if m.shape[1] <= m.shape[2] else m.transpose(1, 2).contiguous()
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        g = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(g, g, g, beta=b, alpha=c), x, beta=a)
    return x if wide is m else x.transpose(1, 2)


class Muon(torch.optim.Optimizer):
    def __init__(self, params: Iterable[Tensor], lr: float = 2e-3, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for shape, ps in shapes.items():
                grads = torch.stack([p.grad for p in ps])
                for p in ps:
                    self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffers = torch.stack([self.state[p]["momentum"] for p in ps]).lerp_(grads, 1 - group["momentum"])
                update = orthogonalize(grads.lerp(buffers, group["momentum"]))
                for p, buffer, u in zip(ps, buffers, update, strict=True):
                    self.state[p]["momentum"].copy_(buffer)
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)
