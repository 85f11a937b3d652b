"""The cost of a network, expected over its choices while it is searched, exact once it is decided; measures: rate.cost.

Sizes are recorded in one dry run with hooks. A layer with parameters that no rule counts is an error, so that nothing
is left out in silence; `rule` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nas.layers import ADQ, QConv2d
from nas.quantizers import HWGQ, LSQ, said
from nas.space import Architecture, MixedOp
from rate.cost import Layer, Measure

Size = tuple[int, int]
Rule = Callable[[Any, Size, Size], Layer | None]

RULES: dict[type, Rule] = {
    QConv2d: lambda m, a, b: m.layer(a, b),
    nn.Conv2d: lambda m, a, b: Layer(
        "conv", m.in_channels, m.out_channels, m.kernel_size, m.groups, a, b, weight=m.weight
    ),
    nn.ConvTranspose2d: lambda m, a, b: Layer(
        "transposed", m.in_channels, m.out_channels, m.kernel_size, m.groups, a, b, weight=m.weight
    ),
    nn.Linear: lambda m, a, b: Layer("linear", m.in_features, m.out_features, (1, 1), 1, a, b, weight=m.weight),
    # These count nothing, as in the paper.
    ADQ: lambda *_: None, nn.BatchNorm2d: lambda *_: None, nn.LayerNorm: lambda *_: None, nn.PReLU: lambda *_: None,
    LSQ: lambda *_: None, HWGQ: lambda *_: None,
}  # fmt: skip


def rule(kind: type, of: Rule) -> None:
    """Count modules of this type by `of`(module, size_in, size_out) -> Layer, or None for nothing."""
    RULES[kind] = of


def _size(m: nn.Module, t: Tensor) -> Size:
    """Height and width; of linear layers, whose channels are last, the number of vectors."""
    if isinstance(m, nn.Linear) or t.dim() < 3:
        return 1, t.numel() // t.shape[-1] // (t.shape[0] if t.dim() > 1 else 1)
    return int(t.shape[-2]), int(t.shape[-1])


class CostModel:
    """measure: what is counted; model: searched or decided; inputs: one of them, or the shape of its only one, (1,
    channels, height, width).

    Raises TypeError for a layer that has parameters and no rule.
    """

    def __init__(self, measure: Measure, model: nn.Module, inputs: tuple[Any, ...]):
        self.measure, self.model = measure, model
        self.sizes: dict[nn.Module, list[tuple[Size, Size]]] = {}  # one for each call
        self.tables: dict[MixedOp, Tensor] = {}
        counted = []
        for name, m in model.named_modules():
            own = any(True for _ in m.parameters(recurse=False))
            if type(m) in RULES:
                counted.append(m)
            elif own and not isinstance(m, MixedOp):
                raise TypeError(f"{name or 'the model'}: no rule counts a {type(m).__name__}; nas.cost.rule adds one")
        hooks = [m.register_forward_hook(self._note) for m in counted]
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        training = model.training
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [(m.running_mean, m.running_var, m.num_batches_tracked) for m in norms]
        modes = {id(m.state): (m.state, m.state.mode) for m in model.modules() if isinstance(m, QConv2d)}
        try:
            model.train()  # all candidates run
            for m in norms:
                m.running_mean = m.running_var = m.num_batches_tracked = None
            for state, _ in modes.values():
                state.mode = "float"
            with torch.no_grad():
                model(*(inputs if isinstance(inputs[0], Tensor) else (torch.rand(inputs, device=device),)))
        finally:
            for h in hooks:
                h.remove()
            for m, (mean, var, tracked) in zip(norms, kept, strict=True):
                m.running_mean, m.running_var, m.num_batches_tracked = mean, var, tracked
            for state, mode in modes.values():
                state.mode = mode
            model.train(training)
        for name, m in model.named_modules():
            if isinstance(m, (QConv2d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and m not in self.sizes:
                raise ValueError(
                    f"{name} was not called in the dry run, and would cost nothing: take it away, or call it"
                )

    def _note(self, m: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(m, (ADQ, LSQ, HWGQ)):
            self.sizes.setdefault(m, []).append((_size(m, inputs[0]), _size(m, output)))

    def layers(self, m: nn.Module, which: int = 0) -> list[Layer]:
        """Of all that ran in a module, at one of the bit-widths."""
        return self._layers(m.modules(), which)

    def _layers(self, parts: Iterable[nn.Module], which: int = 0) -> list[Layer]:
        found = []
        for m in parts:
            calls = self.sizes.get(m, [])
            for sizes in calls[:1] if self.measure.stored else calls:
                layer = m.layer(*sizes, which) if isinstance(m, QConv2d) else RULES[type(m)](m, *sizes)
                found += [layer] if layer else []
        return found

    def _costs(self, m: MixedOp) -> Tensor:
        """Of each option of a position, in the order of its logits."""
        if m not in self.tables or self.measure.learned:
            every = [self.layers(op, b) for op in m.ops for b in range(len(m.bits))]
            costs = [self.measure.combine(map(self.measure.of, layers)) for layers in every]
            self.tables[m] = torch.stack([torch.as_tensor(c, dtype=torch.float64).to(m.logits.device) for c in costs])
        return self.tables[m]

    def _mixed(self) -> list[MixedOp]:
        return [m for m in self.model.modules() if isinstance(m, MixedOp)]

    def fixed(self) -> Any:
        """Of what is not searched."""
        searched = {part for m in self._mixed() for part in m.modules()}
        rest = self._layers(m for m in self.sizes if m not in searched)
        return self.measure.combine(map(self.measure.of, rest))

    def expected(self) -> Any:
        """Over the choices, with gradients to the logits; of a network that is decided, its cost."""
        parts = [self.fixed()]
        for m in self._mixed():
            parts.append((m.probs().flatten() * self._costs(m)).sum())
        return self.measure.combine(parts)

    def decided(self) -> float:
        """Of the network that the logits say."""
        return self._at(MixedOp.decision)

    def slopes(self) -> list[Tensor]:
        """Of each position, in their order: what each of its options costs, of tied ones together."""
        found: dict[str, Tensor] = {}
        for m in self._mixed():
            found[m.position] = found.get(m.position, 0) + self._costs(m)
        return list(found.values())

    def reach(self) -> tuple[float, float]:
        """The least and the most that an architecture costs."""
        least, most = (
            [divmod(int(end(self._costs(m))), len(m.bits)) for m in self._mixed()]
            for end in (torch.argmin, torch.argmax)
        )
        first, second = iter(least), iter(most)
        return self._at(lambda _: next(first)), self._at(lambda _: next(second))

    def of(self, architecture: Architecture) -> float:
        """Of an architecture of the space that the model searches."""

        def which(m: MixedOp) -> tuple[int, int]:
            chosen, names = architecture.choices.get(m.position), [o.name for o in m.ops]
            if chosen is None:
                raise ValueError(f"the architecture has no choice for {m.position}")
            if chosen.op not in names or chosen.bits not in m.bits:
                raise ValueError(f"{m.position} has no choice of {chosen.op} at {said(chosen.bits)} bits")
            return names.index(chosen.op), m.bits.index(chosen.bits)

        return self._at(which)

    def _at(self, which: Callable[[MixedOp], tuple[int, int]]) -> float:
        parts = [self.fixed()]
        for m in self._mixed():
            op, b = which(m)
            parts.append(self._costs(m)[op * len(m.bits) + b])
        return float(torch.as_tensor(self.measure.combine(parts)).detach())

    def share(self, m: MixedOp) -> float:
        """Of the decided cost, what one position takes."""
        op, b = m.decision()
        return self._costs(m)[op * len(m.bits) + b].item() / max(self.decided(), 1e-12)
