"""The search: weights and logits of a network trained in turns, on two halves of the data.

L_weights = loss; L_logits = loss + lambda * C / C_0 + kappa * mu(t) * H, with C the expected cost, C_0 that of uniform
logits and H the entropy of all choices in nats (QuantNAS, arXiv 2208.14839; first-order bilevel as in DARTS). Ours: the
cost is MAC * bits * bits in the search as in the report; the noise mixes by its power; ties go to the cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.cost import CostModel
from nas.layers import MODES, Noise
from nas.optim import RATE, Both, rate_at
from nas.space import Architecture, MixedOp, SearchSpace, decided, positions

Floats = NDArray[np.float64]
Batch = tuple[Any, Any]  # what the model takes, one tensor or a tuple of them; and what the loss holds against it
Batches = Callable[[int], Iterable[Batch]]  # of an epoch, the same ones whenever it is asked for


def run(model: nn.Module, x: Any, real: str) -> Tensor:
    """The model on one input or several, with numbers between layers of this type; a float32 answer."""
    inputs = x if isinstance(x, tuple) else (x,)
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=real == "bfloat16"):
        y: Tensor = model(*inputs)
    return y.float()


def entropy_share(epoch: int, epochs: int, warmup: int) -> float:
    """mu(t), how much the entropy counts: 0 in the warm-up and the first quarter after it, 1 in the last epoch."""
    tau, quarter, last = epoch - warmup, (epochs - warmup) // 4, epochs - 1 - warmup
    if last <= 0 or tau < quarter or tau <= 0:
        return 0.0
    return tau / last * math.log(tau - quarter + 2) / math.log(epochs - quarter - warmup + 1)


def likeliest(chances: list[Floats], costs: list[Floats], budget: float, cells: int = 1 << 16) -> list[int]:
    """Of each position the option, so that the sum of their chances (logarithms) is the greatest whose costs come to no
    more than the budget: a knapsack with one of each group, by tables over cells of the budget, to which costs are
    rounded up. The cheapest of each where nothing is as cheap as that."""
    best, chosen = np.zeros(cells + 1), []
    for chance, cost in zip(chances, costs, strict=True):
        sizes = np.ceil(cost / budget * cells - 1e-9).astype(int) if budget > 0 else np.full(len(cost), cells + 1)
        tried = np.full((len(cost), cells + 1), -np.inf)
        for option, size in zip(tried, sizes, strict=True):
            if size <= cells:
                option[size:] = best[: cells + 1 - size]
        tried += chance[:, None]
        chosen.append(tried.argmax(0))
        best = tried.max(0)
    if best[-1] == -np.inf:
        return [int(c.argmin()) for c in costs]
    found, left = [], cells
    for which, cost in zip(reversed(chosen), reversed(costs), strict=True):
        found.append(int(which[left]))
        left -= int(np.ceil(cost[found[-1]] / budget * cells - 1e-9))
    return found[::-1]


@dataclass
class Penalty:
    """A weight of the cost over that of undecided choices (paper)."""

    weight: float

    def of(self, cost: CostModel, undecided: float, loss: Tensor) -> Tensor:
        """What is added to the loss."""
        return self.weight * cost.expected() / undecided


@dataclass
class Target:
    """A budget: while what the logits decide for is above it, the loss counts more by `weight` times the expected cost
    over it; at the end the likeliest network is taken that costs no more (ours)."""

    cost: float
    weight: float = 0.05

    def of(self, cost: CostModel, undecided: float, loss: Tensor) -> Tensor:
        """What is added to the loss."""
        over = cost.decided() > self.cost
        return self.weight * loss.detach() * (cost.expected() / self.cost if over else 0.0)


@dataclass
class Plan:
    """How long and how fast. rates: of weights (at the top) and logits; search: "noise", "fake" (direct, with shared
    weights) or "float" (blind to quantization); bilevel: False takes both steps on the weights' batch at once; real: of
    numbers between layers, "float32" or "bfloat16"."""

    epochs: int = 24
    warmup: int = 6
    rate: float = RATE
    logit_rate: float = 1e-2
    search: str = "noise"
    bilevel: bool = True
    clip: float = 5.0
    real: str = "float32"
    muon: bool = True


class Searcher:
    """model: built from `space` with no architecture in use. steps: weight steps of an epoch. entropy: kappa.

    All chance is torch's, seeded by `seed`: the same seed gives the same architecture on the same machine.
    """

    def __init__(
        self, model: nn.Module, space: SearchSpace, cost: CostModel, pressure: Penalty | Target, plan: Plan, steps: int,
        entropy: float = 1e-3, noise: Noise | None = None, seed: int = 0,
        loss: Callable[[Tensor, Tensor], Tensor] = F.l1_loss,
    ):  # fmt: skip
        if not positions(model):
            raise ValueError("the model has no position to search")
        if plan.search not in MODES:
            raise ValueError(f"the search is {', '.join(MODES)}, not {plan.search!r}")
        if plan.epochs < 1 or steps < 1:
            raise ValueError("a search has one epoch or more, of one step or more")
        model.to(memory_format=torch.channels_last)  # twice as fast on CPUs
        self.model, self.space, self.cost, self.pressure, self.plan = model, space, cost, pressure, plan
        self.entropy, self.loss, self.steps = entropy, loss, steps
        space.state.mode, space.state.noise = plan.search, noise or Noise()
        self.logits = [m.logits for m in positions(model).values()]
        known = {id(p) for p in self.logits}
        self.weights = [p for p in model.parameters() if id(p) not in known]
        self.of_weights = Both(model, plan.rate, self.logits, plan.muon)
        self.of_logits = torch.optim.Adam(self.logits, plan.logit_rate, betas=(0.5, 0.999))
        self.epoch, self.history = 0, list[dict[str, Any]]()
        with torch.no_grad():
            kept = [p.clone() for p in self.logits]
            for p in self.logits:
                p.zero_()
            self.reference = float(cost.expected())
            for p, k in zip(self.logits, kept, strict=True):
                p.copy_(k)
        torch.manual_seed(seed)

    def entropies(self) -> Tensor:
        """H: of the choices of all positions, in nats."""
        return sum((-(p := m.probs()) * p.clamp(min=1e-12).log()).sum() for m in positions(self.model).values())

    def _pressure(self, loss: Tensor) -> Tensor:
        mu = entropy_share(self.epoch, self.plan.epochs, self.plan.warmup)
        return self.pressure.of(self.cost, self.reference, loss) + self.entropy * mu * self.entropies()

    def weight_step(self, batch: Batch, rate: float) -> float:
        """The loss before the step; raises FloatingPointError where it is not finite."""
        loss = self.loss(run(self.model, batch[0], self.plan.real), batch[1])
        joint = not self.plan.bilevel and self.epoch >= self.plan.warmup
        total = loss + self._pressure(loss) if joint else loss
        wanted = self.weights + (self.logits if joint else [])
        self._take(total, wanted)
        torch.nn.utils.clip_grad_norm_(self.weights, self.plan.clip)
        self.of_weights.set_rate(rate)
        self.of_weights.step()
        if joint:
            self.of_logits.step()
        return float(loss.detach())

    def logit_step(self, batch: Batch) -> None:
        """One step of the logits alone. Relative to the loss: where that falls by orders, Adam would remember for a
        thousand steps how steep it was."""
        loss = self.loss(run(self.model, batch[0], self.plan.real), batch[1])
        self._take((loss + self._pressure(loss)) / loss.detach().clamp(min=1e-12), self.logits)
        self.of_logits.step()

    def _take(self, loss: Tensor, wanted: list[nn.Parameter]) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {self.epoch}: lower the rate")
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        for p, g in zip(wanted, gradients, strict=True):
            p.grad = g

    def fit(
        self, weight_batches: Batches, logit_batches: Batches, on_epoch: Callable[[Searcher], None] | None = None
    ) -> Architecture:
        """Search until the plan's epochs are over, from where it is; the architecture found."""
        plan, total = self.plan, self.plan.epochs * self.steps
        self.model.train()
        while self.epoch < plan.epochs:
            losses, searching = [], self.epoch >= plan.warmup
            others = iter(logit_batches(self.epoch)) if searching and plan.bilevel else None
            for i, batch in enumerate(weight_batches(self.epoch)):
                if others is not None:
                    other = next(others, None)
                    if other is None:
                        raise ValueError(f"epoch {self.epoch} has fewer batches for the choices than for the weights")
                    self.logit_step(other)
                done = (self.epoch * self.steps + i) / total
                losses.append(self.weight_step(batch, rate_at(plan.rate, done)))
            if not losses:
                raise ValueError(f"epoch {self.epoch} has no batches")
            self.epoch += 1
            if self.epoch == plan.epochs and isinstance(self.pressure, Target):
                self._keep_to(self.pressure.cost)
            self.history.append(
                {
                    "epoch": self.epoch,
                    "loss": sum(losses) / max(len(losses), 1),
                    "cost": self.cost.decided(),
                    "probs": {n: m.probs().flatten().tolist() for n, m in positions(self.model).items()},
                }
            )
            if on_epoch:
                on_epoch(self)
        return self.architecture()

    @torch.no_grad()
    def _keep_to(self, budget: float) -> None:
        """Where the logits decide for more, raise those of the likeliest network that costs no more."""
        if self.cost.decided() <= budget:
            return
        costs = [c.double().cpu().numpy() for c in self.cost.slopes()]
        chances = [p.log_softmax(0).double().cpu().numpy() for p in self.logits]
        chosen = likeliest(chances, costs, budget - float(self.cost.fixed()))
        for m, i in zip(positions(self.model).values(), chosen, strict=True):
            if m.decision() != divmod(i, len(m.bits)):
                m.logits[i] = m.logits.max() + 1.0

    def architecture(self) -> Architecture:
        """What the logits say now."""
        return decided(self.model, self.space)

    def report(self) -> list[dict[str, Any]]:
        """Of each position: the choice, its probability, whether that is half of all, its share of the cost."""
        rows = []
        for name, m in positions(self.model).items():
            op, b = m.decision()
            p = m.probs()[op, b].item()
            same = [o for o in self.model.modules() if isinstance(o, MixedOp) and o.position == name]
            share = sum(self.cost.share(o) for o in same)
            rows.append({"position": name, "choice": m.choice(), "p": p, "decided": p >= 0.5, "share": share})
        return rows

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(), "weights": self.of_weights.state_dict(), "epoch": self.epoch,
            "logits": self.of_logits.state_dict(), "history": self.history,
            "random": torch.get_rng_state(), "random_gpu": torch.cuda.get_rng_state_all(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a searcher made alike."""
        self.model.load_state_dict(state["model"])
        self.of_weights.load_state_dict(state["weights"])
        self.of_logits.load_state_dict(state["logits"])
        self.epoch, self.history = state["epoch"], state["history"]
        torch.set_rng_state(state["random"])
        if len(state["random_gpu"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random_gpu"])
