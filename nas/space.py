"""A search space: positions of a network with a choice of operation and bit-width each, and the networks in it.

The user writes one function that builds an ordinary module and asks the space for its layers by name. While searching
the answers hold every candidate; with an architecture in use they are the chosen operation alone.

    space = SearchSpace(bits=(4, 8))
    model = build(space)                       # a network to search in
    with space.using(architecture):
        model = build(space)                   # the network found
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nas.layers import QConv2d, State
from nas.quantizers import Bits, Noisy, pair, work

VERSION = 0

Convs = list[tuple[int, int, tuple[int, int], int]]  # inputs, outputs, kernel, groups of convolutions in series


def convolutions(op: str, inputs: int, outputs: int) -> Convs:
    """The convolutions of an operation, by name.

    conv K, conv K g G (groups), factor K (K x 1, then 1 x K), double K, growth K (twice the channels between), bottle K
    r R (a R-th of them, three convolutions), separable K (depthwise, then 1x1). Raises ValueError for another name.
    """
    name, _, rest = op.partition(" ")
    kind, k = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :] or 0)
    option = int(rest[1:]) if rest[:1] in ("g", "r") and rest[1:].isdigit() else 0
    c = inputs
    if k in (1, 3, 5, 7) and (not rest or (option and (kind, rest[0]) in (("conv", "g"), ("bottle", "r")))):
        if kind == "conv":
            return [(c, outputs, (k, k), option or 1)]
        if kind == "factor":
            return [(c, c, (k, 1), 1), (c, outputs, (1, k), 1)]
        if kind == "double":
            return [(c, c, (k, k), 1), (c, outputs, (k, k), 1)]
        if kind == "growth":
            return [(c, 2 * c, (k, k), 1), (2 * c, outputs, (k, k), 1)]
        if kind == "separable":
            return [(c, c, (k, k), c), (c, outputs, (1, 1), 1)]
        if kind == "bottle" and option:
            m = max(1, c // option)
            return [(c, m, (k, k), 1), (m, m, (k, k), 1), (m, outputs, (k, k), 1)]
    raise ValueError(
        f"{op!r} names no operation, as conv3, conv5 g3, factor3, double1, growth3, bottle3 r4, separable5 do"
    )


def checked(bits: tuple[Bits, ...]) -> tuple[Bits, ...]:
    """Bit-widths, pairs of the same as one. Raises ValueError for what nothing runs at."""
    for b in bits:
        one = type(b) is int and (2 <= b <= 16 or b == 32)
        if not one and not (isinstance(b, tuple) and len(b) == 2 and all(type(n) is int and 2 <= n <= 16 for n in b)):
            raise ValueError(f"bit-widths are 2 to 16, or 32 for none, or pairs of 2 to 16, not {b}")
    return tuple(b if isinstance(b, int) or b[0] != b[1] else b[0] for b in bits)


def _distinct(given: tuple[Any, ...], what: str) -> None:
    if not given or len(set(given)) < len(given):
        raise ValueError(f"the {what} are one or more different ones, not {given}")


class Choice(NamedTuple):
    """An operation, and the bits of its weights and activations."""

    op: str
    w_bits: int
    a_bits: int

    @property
    def bits(self) -> Bits:
        """As a space has them."""
        return self.w_bits if self.w_bits == self.a_bits else (self.w_bits, self.a_bits)


@dataclass(frozen=True)
class Architecture:
    """A choice for each position, and what its network was built by: the name of a space and the builder's options."""

    choices: Mapping[str, Choice]
    space: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """A document that `from_json` reads."""
        made = {"version": VERSION, "space": self.space, "options": dict(self.options)}
        return json.dumps(made | {"choices": {n: list(c) for n, c in self.choices.items()}}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Raises ValueError for what is no architecture of this version."""
        try:
            made = json.loads(text)
            if made["version"] != VERSION:
                raise ValueError(f"this architecture has version {made['version']}, known is {VERSION}")
            choices = {n: Choice(str(op), w, a) for n, (op, w, a) in made["choices"].items()}
            for choice in choices.values():
                checked((choice.w_bits, choice.a_bits, choice.bits))
            return cls(choices, str(made["space"]), dict(made["options"]))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"no architecture: {error!r}") from error

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """From a file; errors name it."""
        try:
            return cls.from_json(path.read_text())
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def diff(self, other: Architecture) -> dict[str, tuple[Choice | None, Choice | None]]:
        """Positions where they are not the same."""
        names = list(self.choices) + [n for n in other.choices if n not in self.choices]
        pairs = {n: (self.choices.get(n), other.choices.get(n)) for n in names}
        return {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}


class Op(nn.Module):
    """An operation by name: convolutions in series, each with its own quantizers, none balanced: what candidates of a
    position hear is one."""

    def __init__(self, op: str, inputs: int, outputs: int, bits: tuple[Bits, ...], **options: Any):
        super().__init__()
        self.name = op
        first = options.pop("signed", False)
        self.convs = nn.ModuleList(
            QConv2d(*conv, bits, signed=first and i == 0, **options)
            for i, conv in enumerate(convolutions(op, inputs, outputs))
        )

    def forward(self, x: Tensor | Noisy, shares: Tensor | None = None) -> Tensor:
        for conv in self.convs:
            x = conv(x) if shares is None else conv(x, shares)
        assert isinstance(x, Tensor)
        return x


class MixedOp(nn.Module):
    """A position while searching: sum over operations of P_o * Op_o(x; bit-widths in shares pi_(b|o)), so that as many
    convolutions run as the operations have, whatever the number of bit-widths.

    logits (operations * bit-widths), all bits of the first operation first; tied positions share them. When not
    training it is the operation and bit-width decided for.
    """

    def __init__(self, name: str, ops: list[nn.Module], bits: tuple[Bits, ...], logits: nn.Parameter):
        super().__init__()
        self.position, self.ops, self.bits, self.logits = name, nn.ModuleList(ops), bits, logits
        weights = [sum(m.weight.numel() for m in op.modules() if isinstance(m, QConv2d)) for op in ops]
        self.costs = [n * work(b) for n in weights for b in bits]  # of each option, for ties

    def probs(self) -> Tensor:
        """(operations, bit-widths), summing to 1."""
        return self.logits.softmax(0).view(len(self.ops), len(self.bits))

    def decision(self) -> tuple[int, int]:
        """Index of the operation and of the bit-width: the likeliest option, or where none has half of everything the
        cheapest of those within a tenth of it (our default)."""
        p = self.logits.detach().softmax(0)
        best = int(p.argmax())
        if float(p[best]) < 0.5:
            near = [i for i in range(len(p)) if float(p[i]) >= 0.9 * float(p[best])]
            best = min(near, key=lambda i: (self.costs[i], -float(p[i])))
        return divmod(best, len(self.bits))

    def choice(self) -> Choice:
        """The decision by name."""
        op, b = self.decision()
        return Choice(str(self.ops[op].name), *pair(self.bits[b]))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            op, b = self.decision()
            return self.ops[op](x, torch.eye(len(self.bits), device=x.device)[b])
        mass, shares = self.probs().sum(1), self.logits.view(len(self.ops), len(self.bits)).softmax(1)
        first = self.ops[0]
        seen = first.convs[0].heard(x) if all(isinstance(op, Op) for op in self.ops) else x
        total: Tensor | None = None
        for op, m, row in zip(self.ops, mass, shares, strict=True):
            y = m * op(seen, row)
            total = y if total is None else total + y
        assert total is not None
        return total


@dataclass
class SearchSpace:
    """bits: candidates, of weights and activations alike, or (weights, activations). ops: candidates where a position
    names none. quantizer: "lsq" or "hwgq". name and options go into architectures, so that a builder known by name can
    be called again. own: more operations, by name: own[name](inputs, outputs, bits, state=, quantizer=) makes a module
    whose layers are QConv2d of these bits and whose forward takes (x, shares), shares None where it has one bit-width.
    """

    bits: tuple[Bits, ...] = (4, 8)
    ops: tuple[str, ...] = ("conv3", "conv5")
    quantizer: str = "lsq"
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bits = checked(self.bits)
        _distinct(self.bits, "bit-widths")
        _distinct(self.ops, "operations")
        self.state = State()
        self.active: Architecture | None = None
        self._logits: dict[str, nn.Parameter] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}  # positions and ties, with their candidates

    @contextmanager
    def using(self, architecture: Architecture | None) -> Iterator[None]:
        """Within, choices are those of the architecture; None: of none, everything is searched."""
        kept, self.active = self.active, architecture
        seen, logits = self._seen, self._logits
        self._seen, self._logits = {}, {}
        try:
            yield
            if architecture and (unused := set(architecture.choices) - set(self._seen)):
                raise ValueError(f"the network has no position {', '.join(sorted(unused))}")
        finally:
            self.active, self._seen, self._logits = kept, seen, logits

    def choice(
        self, name: str, inputs: int, outputs: int, ops: tuple[str, ...] | None = None,
        bits: tuple[Bits, ...] | None = None, signed: bool = False, tie: str = "",
    ) -> nn.Module:  # fmt: skip
        """The layer at a position: maps (batch, inputs, h, w) to (batch, outputs, h, w).

        signed: its input is not rectified. Positions of one `tie` decide together, under that name. Raises ValueError
        for a name used twice, and with an architecture in use where that has no choice for it.
        """
        key, ops, bits = tie or name, self.ops if ops is None else ops, self.bits if bits is None else checked(bits)
        _distinct(bits, f"bit-widths at {key}")
        _distinct(ops, f"operations at {key}")
        options = {"state": self.state, "quantizer": self.quantizer, "signed": signed}
        candidates = (bool(tie), ops, bits)
        if key in self._seen and (not tie or self._seen[key] != candidates):
            raise ValueError(f"positions called {key} have other candidates, or are not tied")
        self._seen[key] = candidates
        if self.active:
            if key not in self.active.choices:
                raise ValueError(f"the architecture has no choice for {key}")
            chosen = self.active.choices[key]
            return self._made(chosen.op, inputs, outputs, (chosen.bits,), options)
        made = [self._made(op, inputs, outputs, bits, options) for op in ops]
        logits = self._logits.setdefault(key, nn.Parameter(torch.zeros(len(made) * len(bits))))
        return MixedOp(key, made, bits, logits)

    def _made(self, op: str, inputs: int, outputs: int, bits: tuple[Bits, ...], options: dict[str, Any]) -> nn.Module:
        if op not in self.own:
            return Op(op, inputs, outputs, bits, **options)
        made = self.own[op](inputs, outputs, bits, state=self.state, quantizer=self.quantizer)
        made.name = op
        return made

    def fixed(
        self, inputs: int, outputs: int, kernel: int, bits: Bits = 8, signed: bool = False, stride: int = 1,
        padded: bool = True,
    ) -> QConv2d:  # fmt: skip
        """A quantized layer that is not searched. bits: one width, of which a pair is (weights, activations)."""
        return QConv2d(
            inputs, outputs, (kernel, kernel), 1, checked((bits,)), self.state, signed, self.quantizer, stride, padded
        )  # fmt: skip


def positions(model: nn.Module) -> dict[str, MixedOp]:
    """Of a network that is searched: one for each name, tied ones by the first."""
    found: dict[str, MixedOp] = {}
    for m in model.modules():
        if isinstance(m, MixedOp):
            found.setdefault(m.position, m)
    return found


def decided(model: nn.Module, space: SearchSpace) -> Architecture:
    """The architecture that the logits say."""
    return Architecture({n: m.choice() for n, m in positions(model).items()}, space.name, dict(space.options))


def random_architecture(model: nn.Module, space: SearchSpace, rng: np.random.Generator) -> Architecture:
    """A uniform draw at every position of a network that is searched."""
    choices = {}
    for name, m in positions(model).items():
        op, b = m.ops[int(rng.integers(len(m.ops)))].name, m.bits[int(rng.integers(len(m.bits)))]
        choices[name] = Choice(op, *pair(b))
    return Architecture(choices, space.name, dict(space.options))
