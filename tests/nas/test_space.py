"""Positions, mixtures, costs and architectures: the acceptance tests of QuantNAS that need no training."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from nas import ADQ, Architecture, Choice, CostModel, MixedOp, SearchSpace, decided, positions  # noqa: E402
from nas import cost as cost_rules  # noqa: E402
from nas.baselines import edges8, greedy_bits, random_search, uniform  # noqa: E402
from nas.layers import QConv2d  # noqa: E402
from nas.space import convolutions, random_architecture  # noqa: E402
from nas.spaces import build, network, space_of  # noqa: E402
from rate.cost import ACT_MEMORY, BITOPS, ENTROPY_BITS, MACS, MEASURES, PARAM_BITS, PARAMS  # noqa: E402

LOW = (1, 3, 32, 32)
PUBLISHED = {  # the architecture in the paper's figure
    "head0": ("conv3 g3", 8), "head1": ("conv3", 8), "body0": ("conv3", 4), "body1": ("factor3", 4),
    "skip": ("conv1", 8), "upsample": ("factor3", 8), "tail0": ("conv3", 8), "tail1": ("conv3", 8),
}  # fmt: skip


def architecture(choices: dict[str, tuple[str, int]], name: str = "sr-basic", **options: object) -> Architecture:
    return Architecture({n: Choice(op, b, b) for n, (op, b) in choices.items()}, name, options)


def small(bits: tuple[int, ...] = (4, 8)) -> tuple[SearchSpace, nn.Module]:
    torch.manual_seed(0)
    space = space_of("sr-basic", bits, scale=2, width=6, cells=2)
    return space, build(space)


def choose(model: nn.Module, arch: Architecture) -> None:
    """Logits that leave no doubt."""
    for name, m in positions(model).items():
        op, b, _ = arch.choices[name]
        with torch.no_grad():
            m.logits.fill_(-200.0)
            m.logits[[o.name for o in m.ops].index(op) * len(m.bits) + m.bits.index(b)] = 0.0


def test_the_published_architecture_costs_what_its_figure_says() -> None:
    net = network(architecture(PUBLISHED, scale=4))
    model = CostModel(BITOPS, net, LOW)
    assert model.decided() == 4_628_938_752 == model.expected()
    assert (
        CostModel(PARAMS, net, LOW).decided()
        == 85_212
        == sum(m.weight.numel() for m in net.modules() if isinstance(m, QConv2d))
    )
    parts = {"head": 0.7856, "cells": 1.2103, "upsample": 0.5945, "tail": 2.0384}
    for name, giga in parts.items():
        layers = model.layers(getattr(net, name))
        assert sum(BITOPS.of(layer) for layer in layers) / 1e9 == pytest.approx(giga, abs=5e-5), name
    assert CostModel(BITOPS, net, (1, 3, 256, 256)).decided() == 64 * model.decided()


def test_known_networks_cost_what_is_known() -> None:
    """ESPCN at 8 bits, and the RFDN-like space with its fixed layers."""
    space = SearchSpace()
    espcn = nn.Sequential(space.fixed(3, 64, 5), space.fixed(64, 32, 3), space.fixed(32, 48, 3))
    assert CostModel(BITOPS, espcn, LOW).decided() / 1e9 == pytest.approx(2.43, abs=0.005)
    space = space_of("sr-rfdn")
    model = build(space)
    macs = CostModel(MACS, model, LOW)
    assert float(macs.fixed()) / 1e6 == pytest.approx(56.2, abs=0.05)
    assert len(positions(model)) == 30
    made = {n: Choice("conv1" if "skip" in n else "conv3", 4, 4) for n in positions(model)}
    arch = Architecture(made, "sr-rfdn", {})
    assert macs.of(arch) / 1e9 == pytest.approx(0.390, abs=0.001)
    assert CostModel(BITOPS, model, LOW).of(arch) / 1e9 == pytest.approx(8.9, abs=0.05)
    assert CostModel(PARAMS, network(arch), LOW).decided() / 1e3 == pytest.approx(399, abs=0.6)


@pytest.mark.parametrize("measure", [BITOPS, MACS, PARAMS, PARAM_BITS, ACT_MEMORY])
def test_expected_cost_of_certain_logits_is_that_of_the_network(measure: object) -> None:
    space, model = small()
    arch = random_architecture(model, space, np.random.default_rng(0))
    choose(model, arch)
    searched = CostModel(measure, model, (1, 3, 8, 8))
    found = CostModel(measure, network(arch), (1, 3, 8, 8)).decided()
    assert searched.expected().item() == pytest.approx(found, rel=1e-6)
    assert searched.decided() == found == searched.of(arch)


def test_costs_have_gradients_and_fewer_bits_cost_less() -> None:
    _, model = small()
    for measure in MEASURES.values():
        cost = CostModel(measure, model, (1, 3, 8, 8)).expected()
        gradients = torch.autograd.grad(cost, [m.logits for m in positions(model).values()], allow_unused=True)
        if measure.name in ("bitops", "param-bits"):
            for g, m in zip(gradients, positions(model).values(), strict=True):
                of = g.view(len(m.ops), 2)
                assert (of[:, 0] < of[:, 1]).all()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, QConv2d):
                m.weight.normal_()  # not uniform, as at first
    entropy = CostModel(ENTROPY_BITS, model, (1, 3, 8, 8)).expected()
    assert 0 < entropy.item() < CostModel(PARAM_BITS, model, (1, 3, 8, 8)).expected().item()


def test_a_layer_without_a_rule_is_an_error_until_it_has_one() -> None:
    class Mystery(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Mystery())
    with pytest.raises(TypeError, match="no rule counts a Mystery"):
        CostModel(MACS, model, LOW)
    try:
        cost_rules.rule(Mystery, lambda *_: None)
        assert CostModel(MACS, model, LOW).decided() == 9 * 32 * 32
    finally:
        del cost_rules.RULES[Mystery]


def test_counting_changes_nothing() -> None:
    space, model = small()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    space.state.mode = "noise"
    CostModel(BITOPS, model, (1, 3, 8, 8))
    assert space.state.mode == "noise" and model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_certain_logits_run_the_operation_itself() -> None:
    space, model = small()
    arch = random_architecture(model, space, np.random.default_rng(1))
    choose(model, arch)
    x = torch.rand(2, 3, 8, 8)
    space.state.mode = "float"
    m = next(iter(positions(model).values()))
    op, _ = m.decision()
    assert torch.allclose(m(x), m.ops[op](x), atol=1e-6)
    space.state.mode = "fake"
    mixed = m(x)
    alone = space.__class__(bits=(m.choice().w_bits,)).choice("p", 3, 6, (m.choice().op,), signed=True)
    only = alone.ops[0]
    for a, b in zip(only.convs, m.ops[op].convs, strict=True):
        a.weight = b.weight
    assert torch.allclose(mixed, only(x), atol=1e-5)


@pytest.mark.parametrize("bits", [(4,), (4, 8), (2, 4, 6, 8)])
@pytest.mark.parametrize("mode", ["float", "noise", "fake"])
def test_as_many_convolutions_run_as_operations_have(
    bits: tuple[int, ...], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, model = small(bits)
    space.state.mode = mode
    calls = []
    inner = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *a, **k: calls.append(1) or inner(*a, **k))
    model(torch.rand(1, 3, 8, 8))
    expected = sum(len(op.convs) for m in model.modules() if isinstance(m, MixedOp) for op in m.ops)
    assert len(calls) == expected


def test_what_is_chosen() -> None:
    """The likeliest option, below zero too; of near ones the cheapest where none has half of everything."""
    _, model = small()
    m = positions(model)["skip"]  # conv1, conv3, conv5 at 4 and 8 bits
    with torch.no_grad():
        m.logits.copy_(torch.tensor([-9.0, -8.0, -7.0, -1.0, -5.0, -6.0]))
    assert m.choice() == Choice("conv3", 8, 8)
    with torch.no_grad():
        m.logits.copy_(torch.tensor([-3.0, -1.01, -3.0, -1.0, -3.0, -1.02]))
    assert m.choice() == Choice("conv1", 8, 8)
    with torch.no_grad():
        m.logits.zero_()
    assert m.choice() == Choice("conv1", 4, 4)


def test_architectures_are_documents() -> None:
    space, model = small()
    arch = random_architecture(model, space, np.random.default_rng(3))
    again = Architecture.from_json(arch.to_json())
    assert again == arch and again.diff(arch) == {}
    net, other = network(again), network(uniform(model, space, "conv5", 4))
    net.load_state_dict(network(arch).state_dict())
    with pytest.raises(RuntimeError, match=r"Error\(s\) in loading"):
        other.load_state_dict(net.state_dict())
    one = dict(arch.choices)
    one["skip"] = Choice("conv5", 2, 2)
    assert list(Architecture(one).diff(arch)) == ["skip"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no architecture"),
        ("[]", "no architecture"),
        ('{"version": 9, "space": "", "options": {}, "choices": {}}', "version 9"),
        ('{"version": 0, "space": "", "options": {}, "choices": {"a": ["conv3", 8]}}', "values to unpack"),
    ],
)
def test_what_is_no_architecture_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture.from_json(text)


def test_architectures_that_do_not_fit_are_said() -> None:
    space, model = small()
    arch = uniform(model, space, "conv3", 4)
    less, more = dict(arch.choices), dict(arch.choices)
    del less["skip"]
    more["sidecar"] = Choice("conv3", 4, 4)
    with pytest.raises(ValueError, match="no choice for skip"):
        network(Architecture(less, arch.space, arch.options))
    with pytest.raises(ValueError, match="no position sidecar"):
        network(Architecture(more, arch.space, arch.options))
    with pytest.raises(ValueError, match="spaces are"):
        network(Architecture(arch.choices, "sr-unheard-of", {}))
    with pytest.raises(ValueError, match="other options"):
        network(Architecture(arch.choices, "sr-basic", {"colour": 1}))
    with pytest.raises(ValueError, match="positions called a"):
        space = SearchSpace()
        space.choice("a", 3, 3), space.choice("a", 3, 3)


@pytest.mark.parametrize("op", ["", "conv", "conv2", "conv3 x2", "factor3 g2", "bottle3", "magic3", "conv3 g"])
def test_what_names_no_operation_is_said(op: str) -> None:
    with pytest.raises(ValueError, match="names no operation"):
        convolutions(op, 6, 6)


def test_operations_are_their_convolutions() -> None:
    assert convolutions("growth3", 6, 3) == [(6, 12, (3, 3), 1), (12, 3, (3, 3), 1)]
    assert convolutions("bottle3 r2", 6, 4) == [(6, 3, (3, 3), 1), (3, 3, (3, 3), 1), (3, 4, (3, 3), 1)]
    assert convolutions("separable5", 6, 4) == [(6, 6, (5, 5), 6), (6, 4, (1, 1), 1)]


def test_adq() -> None:
    torch.manual_seed(0)
    x, branch = torch.randn(2, 3, 5, 5) * torch.tensor([1.0, 4.0])[:, None, None, None], torch.randn(2, 3, 5, 5)
    off, on = ADQ(3, False), ADQ(3)
    assert torch.equal(off.outside(off.inside(x), branch), x + branch)
    with torch.no_grad():
        on.w.fill_(0.0), on.c.fill_(1.0)
    assert torch.allclose(on.outside(x, branch), x + branch)
    assert torch.allclose(on.inside(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
    with torch.no_grad():
        on.w.fill_(1.5)
    scales = on.scale(x).flatten()
    assert scales.shape == (2,) and scales[1] > 2 * scales[0]


def test_baselines() -> None:
    space, model = small()
    cost = CostModel(BITOPS, model, (1, 3, 8, 8))
    low, high = uniform(model, space, "conv3", 4), uniform(model, space, "conv3", 8)
    assert set(low.choices.values()) == {Choice("conv3", 4, 4)} and cost.of(high) == 4 * cost.of(low)
    hand = edges8(model, space, "conv3", 4)
    assert list(hand.diff(low)) == ["head0"]
    assert list(edges8(model, space, "conv3", 4, ("head", "tail")).diff(low)) == ["head0", "head1", "tail0", "tail1"]
    drawn = random_search(model, space, cost.of, cost.of(low), cost.of(high), 5, 0)
    assert len(drawn) == 5 and all(cost.of(low) <= cost.of(a) <= cost.of(high) for a in drawn)
    with pytest.raises(ValueError, match="hold 0"):
        random_search(model, space, cost.of, 0, 1, 1, 0, tries=20)
    worth = {n: i for i, n in enumerate(high.choices)}  # the later a position, the more it loses

    def loss(a: Architecture) -> float:
        return sum(worth[n] for n, c in a.choices.items() if c.w_bits == 4)

    found = greedy_bits(high, 0.7 * cost.of(high), (4, 8), cost.of, loss)
    assert cost.of(low) < cost.of(found) <= 0.7 * cost.of(high)
    assert found.choices["head0"].w_bits == 4  # it loses nothing
    with pytest.raises(ValueError, match="fewest bits"):
        greedy_bits(high, 1.0, (4, 8), cost.of, loss)


@pytest.mark.parametrize("mode", ["noise", "fake"])
def test_weights_and_activations_have_bits_of_their_own(mode: str) -> None:
    space = space_of("sr-basic", ((4, 8), (8, 4), 8, 4), scale=2, width=6, cells=1)
    model = build(space)
    cost = CostModel(BITOPS, model, LOW)
    both = {b: cost.of(uniform(model, space, "conv3", b)) for b in space.bits}
    assert both[4] == 16 * both[8] / 64 and both[(4, 8)] == 32 * both[8] / 64
    worth = CostModel(PARAM_BITS, model, LOW)
    assert worth.of(uniform(model, space, "conv3", (4, 8))) == worth.of(uniform(model, space, "conv3", 4))
    space.state.mode = mode
    model.train()(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert all(bool(m.logits.grad.any()) for m in positions(model).values())
    found = Architecture.from_json(uniform(model, space, "conv3", (4, 8)).to_json())
    assert set(found.choices.values()) == {Choice("conv3", 4, 8)}
    layers = [m for m in network(found).modules() if isinstance(m, QConv2d)]
    assert all((m.of_weight[0].bits, m.of_input[0].bits) == (4, 8) for m in layers)

    def loss(a: Architecture) -> float:
        return sum(10 * (c.w_bits == 4) + (c.a_bits == 4) for c in a.choices.values())

    down = greedy_bits(uniform(model, space, "conv3", 8), 0.6 * both[8], space.bits, cost.of, loss)
    assert {c.bits for c in down.choices.values()} == {8, (8, 4)}


def test_a_space_of_ones_own() -> None:
    """As the documentation shows: an ordinary module that asks for its layers."""

    class Net(nn.Module):
        def __init__(self, space: SearchSpace):
            super().__init__()
            self.first = space.choice("first", 3, 8, ("conv3", "separable3"), signed=True)
            self.second = space.choice("second", 8, 2, ("conv1",), bits=(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)).mean((2, 3))

    space = SearchSpace(bits=(4, 8))
    model = Net(space)
    assert model(torch.rand(2, 3, 6, 6)).shape == (2, 2)
    arch = decided(model, space)
    with space.using(arch):
        found = Net(space)
    assert found(torch.rand(2, 3, 6, 6)).shape == (2, 2) and not positions(found)
    assert json.loads(arch.to_json())["choices"]["second"] == ["conv1", 2, 2]


def test_what_is_called_twice_costs_twice_but_is_stored_once() -> None:
    space = SearchSpace()
    layer = space.choice("a", 4, 4, ("conv3",), (4,))

    class Twice(nn.Module):
        def __init__(self, calls: int):
            super().__init__()
            self.layer, self.calls = layer, calls

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.calls):
                x = self.layer(x)
            return x

    for measure, factor in ((MACS, 3), (BITOPS, 3), (PARAMS, 1), (PARAM_BITS, 1)):
        once, thrice = (CostModel(measure, Twice(n), (1, 4, 8, 8)).decided() for n in (1, 3))
        assert thrice == factor * once
    with pytest.raises(ValueError, match="was not called"):
        CostModel(MACS, Twice(0), (1, 4, 8, 8))


def test_linear_layers_cost_one_product_for_each_vector() -> None:
    for shape, vectors in (((1, 64), 1), ((1, 5, 64), 5), ((1, 7, 9, 64), 63)):
        assert CostModel(MACS, nn.Linear(64, 32), (torch.rand(shape),)).decided() == vectors * 64 * 32


def test_tied_positions_have_the_same_candidates() -> None:
    space = SearchSpace()
    space.choice("a", 4, 4, ("conv1", "conv3"), tie="t")
    space.choice("b", 4, 8, ("conv1", "conv3"), tie="t")
    for wrong in ({"ops": ("conv5", "double3")}, {"bits": (2, 16)}):
        with pytest.raises(ValueError, match="other candidates"):
            space.choice("c", 4, 4, **{"ops": ("conv1", "conv3"), "tie": "t", **wrong})
    with pytest.raises(ValueError, match="not tied"):
        space.choice("t", 4, 4, ("conv1", "conv3"))
    for bits in ((), (8, 8), (0, 8), (4.0,), (17,), ((8, 8), 8), ((4, 32),), ((4, 8, 8),), ((4, 1),)):
        with pytest.raises(ValueError, match="bit-widths"):
            SearchSpace(bits=bits)
    with pytest.raises(ValueError, match="operations"):
        SearchSpace(ops=("conv3", "conv3"))


def test_the_reach_of_a_space() -> None:
    space, model = small()
    cost = CostModel(BITOPS, model, (1, 3, 8, 8))
    least, most = cost.reach()
    costs = [cost.of(random_architecture(model, space, np.random.default_rng(i))) for i in range(30)]
    assert 0 < least <= min(costs) and max(costs) <= most
    with pytest.raises(ValueError, match="no choice for head0"):
        cost.of(Architecture({}))
