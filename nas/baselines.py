"""What a search has to beat: one bit-width everywhere, the hand rule of 8 bits at the ends, chance, and greed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from nas.space import Architecture, Choice, SearchSpace, positions, random_architecture


def uniform(model: nn.Module, space: SearchSpace, op: str, bits: int) -> Architecture:
    """One operation and bit-width at every position of a network that is searched; where a position does not offer the
    operation, its first."""
    choices = {}
    for name, m in positions(model).items():
        offered = [o.name for o in m.ops]
        choices[name] = Choice(op if op in offered else offered[0], bits, bits)
    return Architecture(choices, space.name, dict(space.options))


def edges8(model: nn.Module, space: SearchSpace, op: str, bits: int, edges: tuple[str, ...] = ()) -> Architecture:
    """The hand rule: as `uniform`, but 8 bits at the first position, or at all whose names begin as `edges` say."""
    made = dict(uniform(model, space, op, bits).choices)
    edges = edges or (next(iter(made)),)
    for name, choice in made.items():
        if name.startswith(edges):
            made[name] = Choice(choice.op, 8, 8)
    return Architecture(made, space.name, dict(space.options))


def random_search(
    model: nn.Module, space: SearchSpace, cost: Callable[[Architecture], float], low: float, high: float, count: int,
    seed: int, tries: int = 20000,
) -> list[Architecture]:  # fmt: skip
    """Random architectures whose cost lies within low..high. Raises ValueError where `tries` draws find fewer."""
    rng, found = np.random.default_rng(seed), list[Architecture]()
    for _ in range(tries):
        drawn = random_architecture(model, space, rng)
        if low <= cost(drawn) <= high:
            found.append(drawn)
            if len(found) == count:
                return found
    raise ValueError(f"{tries} random architectures hold {len(found)} that cost {low:g} to {high:g}, not {count}")


def greedy_bits(
    start: Architecture, budget: float, bits: tuple[int, ...], cost: Callable[[Architecture], float],
    loss: Callable[[Architecture], float],
) -> Architecture:  # fmt: skip
    """From the most bits down: always the position whose next lower bit-width adds the least loss for each unit of cost
    saved, until the cost is within the budget (our stand-in for sensitivity methods). loss: of a trained network run at
    these bits. Raises ValueError where the fewest bits cost more."""
    now = start
    while cost(now) > budget:
        best: tuple[float, Architecture] | None = None
        before = loss(now), cost(now)
        for name, choice in now.choices.items():
            lower = [b for b in bits if b < choice.w_bits]
            if not lower:
                continue
            changed = {**now.choices, name: Choice(choice.op, max(lower), max(lower))}
            tried = Architecture(changed, now.space, now.options)
            saved = before[1] - cost(tried)
            worth = (loss(tried) - before[0]) / max(saved, 1e-12)
            if best is None or worth < best[0]:
                best = worth, tried
        if best is None:
            raise ValueError(f"the fewest bits cost {cost(now):g}, more than {budget:g}")
        now = best[1]
    return now
