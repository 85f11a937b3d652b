"""Training the network of an architecture, from its first weights, in the bits it was given.

L1 loss, Muon, a rate that rises over the first steps and falls to zero by a cosine; the first part in floating point,
after which the quantizers fit themselves to what they see (ours, but for the loss).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas.layers import QConv2d
from nas.optim import RATE, Both, rate_at
from nas.searcher import Batch, run


@dataclass(frozen=True)
class Plan:
    """epochs of so many steps each; rate at the top; share of all steps that is in floating point; real: of numbers
    between layers, "float32" or "bfloat16"; muon: as of nas.optim.Both."""

    epochs: int = 60
    steps: int = 50
    rate: float = RATE
    floating: float = 0.15
    real: str = "float32"
    muon: bool = True


def set_mode(model: nn.Module, mode: str) -> None:
    """Of all quantized layers: "float" or "fake"."""
    for m in model.modules():
        if isinstance(m, QConv2d):
            m.state.mode = mode


class Training:
    """loss(model(x), y) over batches of an epoch. All chance is in the batches."""

    def __init__(self, model: nn.Module, plan: Plan, loss: Callable[..., torch.Tensor] = F.l1_loss):
        self.model, self.plan, self.loss = model.to(memory_format=torch.channels_last), plan, loss
        self.optimizer = Both(model, plan.rate, muon=plan.muon)
        self.epoch, self.history = 0, list[dict[str, Any]]()

    def fit(
        self, batches: Callable[[int], Iterable[Batch]], on_epoch: Callable[[Training], None] | None = None
    ) -> None:
        """To the end of the plan, from where it is. Raises FloatingPointError where the loss runs away."""
        plan, total = self.plan, self.plan.epochs * self.plan.steps
        while self.epoch < plan.epochs:
            self.model.train()
            sum_of = 0.0
            for i, (x, y) in enumerate(batches(self.epoch)):
                done = (self.epoch * plan.steps + i) / total
                set_mode(self.model, "float" if done < plan.floating else "fake")
                self.optimizer.set_rate(rate_at(plan.rate, done))
                loss = self.loss(run(self.model, x, plan.real), y)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()} in epoch {self.epoch}: lower the rate")
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                sum_of += loss.item()
            self.epoch += 1
            self.history.append({"epoch": self.epoch, "loss": sum_of / plan.steps})
            if on_epoch:
                on_epoch(self)
        set_mode(self.model, "fake")

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch,
            "history": self.history,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a training of the same network."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.history = state["epoch"], state["history"]
