"""What a search has to beat: one bit-width everywhere, the hand rule of 8 bits at the ends, chance, and greed.

    python -m nas.baselines --space sr-basic --bitops 4.6G --out runs/baselines

writes for python -m nas.train: uniform-4.json and so on for each of --bits; where 8 is among them, hand.json (8 bits at
the first position) and hand-ends.json (head, upsampling and tail); with --bitops, random-0.json and so on. With
--greedy NET/seed-N --data PHOTOS also greedy.json: what python -m nas.train left, of most bits, gives up bits, position
by position, where that costs least on photographs, until it is down to --bitops.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.cost import CostModel
from nas.data import Crops
from nas.eval import load
from nas.quantizers import LSQ, Bits, pair, said
from nas.runs import ended, number, photographs
from nas.search import INPUT, add_space, bits_of, check, options_of
from nas.space import Architecture, Choice, SearchSpace, positions, random_architecture
from nas.spaces import build, network, space_of
from quant.training import replace
from rate.cost import BITOPS
from rate.options import Parser

CROPS, SIDE = 32, 32  # that --greedy judges by, reduced ones


def uniform(model: nn.Module, space: SearchSpace, op: str, bits: Bits) -> Architecture:
    """One operation and bit-width at every position of a network that is searched; where a position does not offer the
    operation, its first."""
    choices = {}
    for name, m in positions(model).items():
        offered = [o.name for o in m.ops]
        choices[name] = Choice(op if op in offered else offered[0], *pair(bits))
    return Architecture(choices, space.name, dict(space.options))


def edges8(model: nn.Module, space: SearchSpace, op: str, bits: Bits, edges: tuple[str, ...] = ()) -> Architecture:
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


def _next_lower(bits: tuple[Bits, ...], now: Bits) -> list[Bits]:
    """Those with none between: of pairs there may be several."""

    def within(a: Bits, b: Bits) -> bool:
        return a != b and all(x <= y for x, y in zip(pair(a), pair(b), strict=True))

    lower = [b for b in bits if within(b, now)]
    return [b for b in lower if not any(within(b, other) for other in lower)]


def greedy_bits(
    start: Architecture, budget: float, bits: tuple[Bits, ...], cost: Callable[[Architecture], float],
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
            for lower in _next_lower(bits, choice.bits):
                changed = {**now.choices, name: Choice(choice.op, *pair(lower))}
                tried = Architecture(changed, now.space, now.options)
                saved = before[1] - cost(tried)
                worth = (loss(tried) - before[0]) / max(saved, 1e-12)
                if best is None or worth < best[0]:
                    best = worth, tried
        if best is None:
            raise ValueError(f"the fewest bits cost {cost(now):g}, more than {budget:g}")
        now = best[1]
    return now


def loss_at_other_bits(trained: nn.Module, given: Tensor, wanted: Tensor) -> Callable[[Architecture], float]:
    """The mean squared error of a trained network's weights at the bits of an architecture; all steps are fitted to
    `given` (as LSQ's first ones are)."""

    def loss(architecture: Architecture) -> float:
        model = network(architecture).eval()
        steps = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, LSQ))
        kept = {name: v for name, v in trained.state_dict().items() if not name.startswith(steps)}
        model.load_state_dict(kept, strict=False)
        with torch.no_grad():
            return float((model(given) - wanted).square().mean())

    return loss


def greedy(folder: Path, photos: Path, budget: float, space: SearchSpace, cost: CostModel) -> Architecture:
    """greedy_bits from what nas.train left in a folder. Raises ValueError."""
    trained, start = load(folder)
    if (start.space, dict(start.options)) != (space.name, dict(space.options)):
        raise ValueError(f"{folder} is a network of {start.space} and its options, which are not those given here")
    if cost.of(start) <= budget:
        raise ValueError(f"{folder} costs {cost.of(start) / 1e9:.3g}G: there is nothing to give up")
    scale = int(start.options.get("scale", 4))
    given, wanted = next(iter(Crops(photographs(photos, SIDE * scale), scale, SIDE, CROPS, 1, 0)(0)))
    return greedy_bits(start, budget, space.bits, cost.of, loss_at_other_bits(trained, given, wanted))


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    p = Parser(prog="python -m nas.baselines", description=__doc__)
    add_space(p)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of architectures; made if absent")
    p.add_argument("--op", default="conv3", metavar="OP", help="of the uniform ones and the hand rule [conv3]")
    p.add_argument("--bitops", type=number, metavar="N", help="of random ones, within 10 %%, and a greedy one, at most")
    p.add_argument("--random", type=int, default=3, metavar="N", help="so many random ones [3]")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="[0]")
    p.add_argument("--greedy", type=Path, metavar="NET/seed-N", help="a trained network, to take bits from")
    p.add_argument("--data", type=Path, metavar="PHOTOS", help="by which those are chosen")
    return p


def run(args: argparse.Namespace) -> None:
    """Write architectures to compare with."""
    check(args, {"random": (0, 10_000), "seed": (0, 1 << 62)})
    bits = bits_of(args.bits)
    space = space_of(args.space, bits, args.quantizer, **options_of(args))
    model = build(space)
    cost = CostModel(BITOPS, model, INPUT)
    found = {f"uniform-{said(b)}": uniform(model, space, args.op, b) for b in bits}
    if all(args.op not in [o.name for o in m.ops] for m in positions(model).values()):
        raise ValueError(f"no position of {args.space} offers {args.op}")
    if 8 in bits:
        found["hand"] = edges8(model, space, args.op, bits[0])
        found["hand-ends"] = edges8(model, space, args.op, bits[0], ("head", "upsample", "tail"))
    if args.bitops:
        least, most = cost.reach()
        if not least <= args.bitops <= most:
            raise ValueError(f"architectures of {args.space} cost {least / 1e9:.3g}G to {most / 1e9:.3g}G")
    if args.bitops and args.random:
        low, high = 0.9 * args.bitops, 1.1 * args.bitops
        drawn = random_search(model, space, cost.of, low, high, args.random, args.seed)
        found |= {f"random-{i}": a for i, a in enumerate(drawn)}
    if args.greedy:
        if not args.bitops or not args.data:
            raise ValueError("--greedy takes bits until the network costs --bitops, by the photographs of --data")
        found["greedy"] = greedy(args.greedy, args.data, args.bitops, space, cost)
    costs = {name: cost.of(arch) for name, arch in found.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, arch in found.items():
        replace(args.out / f"{name}.json", arch.to_json())
        print(f"{args.out / name}.json: {costs[name] / 1e9:.3f} GBitOps")


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked."""
    args = parser().parse_args(argv)
    return ended("nas.baselines", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
