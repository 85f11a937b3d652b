"""Rounding with learned and fixed steps, and the noise in its place."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from nas.export import deployed  # noqa: E402
from nas.freeze import freeze, unpack  # noqa: E402
from nas.layers import QConv2d, State  # noqa: E402
from nas.quantizers import HWGQ, HWGQ_STEPS, LSQ, Noisy, deviations, levels  # noqa: E402
from nas.space import SearchSpace  # noqa: E402
from rate.cost import PARAM_BITS  # noqa: E402


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_lsq_rounds_to_its_levels(bits: int, signed: bool) -> None:
    torch.manual_seed(0)
    q, x = LSQ(bits, signed), torch.randn(500, requires_grad=True)
    y = q(x)
    whole = y.detach() / q.step().detach()
    assert torch.allclose(whole, whole.round(), atol=1e-3) and len(y.unique()) <= 2**bits
    low, high = levels(bits, signed)
    v = (x / q.step()).detach()
    (g,) = torch.autograd.grad(y.sum(), x)
    assert (g[(v < low) | (v > high)] == 0).all() and torch.allclose(g[(v > low) & (v < high)], torch.ones(()))
    assert torch.equal(q.integers(x.detach()), whole.round().int())


def test_lsq_of_weights_has_a_positive_step_for_each_output() -> None:
    torch.manual_seed(0)
    w = torch.randn(6, 4, 3, 3)
    q = LSQ(4, True, 6)
    q(w)
    assert q.step().shape == (6, 1, 1, 1)
    optimizer = torch.optim.SGD(q.parameters(), 0.5)
    for _ in range(1000):
        loss = (q(w) * torch.randn_like(w)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert (q.step() > 0).all()


def test_the_gradient_of_a_step_is_that_of_lsq() -> None:
    """d/ds of round(x / s) * s: the rounding error over the step inside, the limits outside; scaled by (Qp N)^-1/2."""
    x = torch.tensor([0.3, -0.7, 5.0, -9.0])
    q = LSQ(3, True)
    q(x)
    with torch.no_grad():
        q.unit.fill_(0.25)
        q.raw.fill_(2)
    q(x).sum().backward()
    v = x / 0.5
    expected = torch.where(v > 3, 3.0, torch.where(v < -4, -4.0, v.round() - v)).sum() * (3 * 4) ** -0.5
    assert q.raw.grad == pytest.approx(0.25 * expected.item(), rel=1e-5)  # in units of where it started


def test_hwgq_rounds_the_half_of_a_gaussian() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))

    def rounded(step: float, bits: int) -> torch.Tensor:
        return (x.clamp(0, step * (2**bits - 1)) / step).round() * step

    for bits, step in HWGQ_STEPS.items():
        assert torch.equal(HWGQ(bits)(x), rounded(step, bits))
    errors = [float((rounded(f * HWGQ_STEPS[2], 2) - x.relu()).square().mean()) for f in (0.9, 1.0, 1.1)]
    assert errors[1] == min(errors)
    assert torch.equal(HWGQ(32)(x), x.relu())
    with pytest.raises(ValueError, match="HWGQ has steps"):
        HWGQ(5)


BITS = (4, 8)


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_has_the_size_of_its_bits(kind: str) -> None:
    torch.manual_seed(0)
    t = torch.rand(200_000, requires_grad=True)
    reach = float(t.detach().max() - t.detach().min())
    found = []
    for i, b in enumerate(BITS):
        y = Noisy(t, BITS, "var", kind).at(torch.eye(2)[i])
        found.append(float((y - t).detach().std()))
        expected = reach / (2**b - 1) / 2 * (1.0 if kind == "gaussian" else 3**-0.5)
        assert found[-1] == pytest.approx(expected, rel=0.02)
        assert torch.equal(torch.autograd.grad(y.sum(), t)[0], torch.ones_like(t))
    assert found[0] / found[1] == pytest.approx(17, rel=0.03)
    assert deviations(t, (4, 32))[1] == 0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fitted_noise_is_what_fitted_steps_leave(bits: int, signed: bool) -> None:
    torch.manual_seed(0)
    t = torch.randn(200_000) * 3
    t = t if signed else t.relu()
    with torch.no_grad():
        noise = (Noisy(t, (bits,), "var", "fitted", signed).at(torch.ones(1)) - t).square().mean()
        left = (LSQ(bits, signed)(t) - t).square().mean()
    assert float(noise / left) == pytest.approx(1, rel=0.4)  # steps are tried in ratios of the root of 2
    with pytest.raises(ValueError, match="kinds of noise"):
        Noisy(t, (bits,), kind="loud")


@pytest.mark.parametrize("rule", ["var", "linear", "independent", "reference"])
def test_rows_have_noise_of_their_own(rule: str) -> None:
    """As they have steps of their own: a weight of a thousandth gets a thousandth of the noise."""
    torch.manual_seed(0)
    t = torch.randn(2, 500, 3, 3) * torch.tensor([1.0, 1e-3]).view(2, 1, 1, 1)
    off = Noisy(t, (4, 8), rule, "fitted", rows=True).at(torch.tensor([0.5, 0.5])) - t
    loud, quiet = off.flatten(1).std(1).tolist()
    assert loud / quiet == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(("rule", "power"), [("var", 1.0), ("linear", 0.56), ("independent", 0.5)])
def test_the_power_of_a_mixture(rule: str, power: float) -> None:
    """Of a half each, over the mean of the two powers: the rule "var" makes no profit of being undecided."""
    torch.manual_seed(0)
    t, half = torch.rand(200_000), torch.tensor([0.5, 0.5], requires_grad=True)
    y = Noisy(t, BITS, rule).at(half)
    true = float(deviations(t, BITS).square().mean())
    assert float((y - t).detach().square().mean()) / true == pytest.approx(power, rel=0.03)
    (g,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), half)
    assert (g != 0).all()


def test_the_reference_rule_keeps_a_share_of_the_gradient() -> None:
    t = torch.rand(1000, requires_grad=True)
    y = Noisy(t, BITS, "reference").at(torch.tensor([0.25, 0.25]))
    assert torch.allclose(torch.autograd.grad(y.sum(), t)[0], torch.full_like(t, 1 / 3))
    with pytest.raises(ValueError, match="rules of noise"):
        Noisy(t, BITS, "sideways")


def test_a_layer_is_noisy_while_it_trains_and_rounds_when_it_does_not() -> None:
    torch.manual_seed(0)
    conv, x = QConv2d(3, 4, (3, 3), 1, BITS, State("noise")), torch.rand(1, 3, 6, 6)
    shares = torch.tensor([0.0, 1.0])
    assert not torch.equal(conv(x, shares), conv(x, shares))
    conv.eval()
    assert torch.equal(conv(x, shares), conv(x, shares))
    alone = QConv2d(3, 4, (3, 3), 1, (8,), State())
    alone.weight = conv.weight
    assert torch.allclose(conv(x, shares), alone(x), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 9, 12, 16])
def test_frozen_weights_take_the_bits_they_say(bits: int) -> None:
    torch.manual_seed(0)
    layer = SearchSpace(bits=(bits,)).fixed(3, 5, 3, bits)
    with pytest.raises(ValueError, match="no steps yet"):
        freeze(layer)
    layer.weight.data.normal_()
    layer(torch.rand(1, 3, 8, 8))
    (found,) = freeze(layer).values()
    data = found.packed()
    counted = PARAM_BITS.of(layer.layer((8, 8), (8, 8)))
    assert len(data) == -(-counted // 8)
    assert np.array_equal(unpack(data, found.levels.shape, bits), found.levels)
    weight = found.levels * found.steps[:, None, None, None]
    assert np.allclose(weight, layer.of_weight[0](layer.weight).detach(), atol=1e-6)
    assert 0 < found.entropy() <= counted
    with pytest.raises(ValueError, match="are not"):
        unpack(data + b"x", found.levels.shape, bits)


def test_wrong_layers_are_said() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        QConv2d(4, 4, (3, 3), 3, (4,), State())
    with pytest.raises(ValueError, match="lsq or hwgq"):
        QConv2d(4, 4, (3, 3), 1, (4,), State(), quantizer="dice")
    with pytest.raises(ValueError, match="still searched"):
        freeze(QConv2d(4, 4, (3, 3), 1, (4, 8), State()))


def test_a_step_starts_where_the_error_is_least() -> None:
    """Most of it near 0 and a few values far away: at 8 bits these must not be cut off."""
    torch.manual_seed(0)
    x = torch.cat((torch.randn(5000) * 0.01, torch.randn(50) * 3))
    q = LSQ(8, True)
    error = (q(x) - x).square().mean()
    for factor in (0.25, 0.5, 2.0, 4.0):
        step = q.step() * factor
        assert ((x / step).clamp(-128, 127).round() * step - x).square().mean() > error
    assert (q(x) - x).abs().max() < 0.1 * x.abs().max()
    zeros = LSQ(4, False)
    assert torch.equal(zeros(torch.zeros(10)), torch.zeros(10))


@pytest.mark.parametrize("groups", [1, 2, 12])
def test_balanced_layers_round_channels_of_any_size(groups: int) -> None:
    """Where channels differ by orders, one step for all leaves nothing of the small ones."""
    torch.manual_seed(0)
    x = torch.randn(4, 12, 9, 9) * torch.logspace(-3, 2, 12)[:, None, None]
    errors = {}
    for balanced in (False, True):
        layer = QConv2d(12, 24, (3, 3), groups, (8,), State("fake"), signed=True, balanced=balanced)
        with torch.no_grad():
            layer.weight.copy_(torch.randn_like(layer.weight))
            small = layer.weight.view(groups, 24 // groups, 12 // groups, 9)
            small *= torch.logspace(2, -3, 12).view(groups, 1, 12 // groups, 1)  # each matters as much
        expected = F.conv2d(x, layer.weight, None, 1, 1, 1, groups)
        found = layer(x)
        errors[balanced] = float((found - expected).detach().square().mean() / expected.detach().square().mean())
        again = QConv2d(12, 24, (3, 3), groups, (8,), State("fake"), signed=True, balanced=balanced)
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again(x[:1] * 3), layer(x[:1] * 3))  # fitted once, and kept
    assert errors[True] < 1e-3 and errors[True] < 0.02 * errors[False]


def test_balanced_layers_are_deployed_as_they_are() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6) * torch.logspace(-2, 1, 8)[:, None, None]
    layer = QConv2d(8, 8, (1, 1), 1, (8,), State("fake"), signed=True, balanced=True)
    net = torch.nn.Sequential(layer)
    expected = net(x).detach()
    assert (deployed(net)(x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_rowwise_positions_have_a_scale_of_their_own() -> None:
    """A picture whose one half is a thousandth of the other loses no more there."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 4, 8)
    x[..., 4:] *= 1e-3
    conv = QConv2d(16, 8, (1, 1), 1, (8,), State("fake"), signed=True, rowwise=True)
    with torch.no_grad():
        whole = torch.nn.functional.conv2d(x, conv.weight)
        off = (conv(x) - whole).abs()
    loud, quiet = (float(off[..., s].mean() / whole[..., s].abs().mean()) for s in (slice(4), slice(4, 8)))
    assert quiet < 2 * loud < 0.1
    assert torch.equal(conv(torch.zeros(1, 16, 2, 2)), torch.zeros(1, 8, 2, 2))
    with pytest.raises(ValueError, match="1x1"):
        QConv2d(4, 4, (3, 3), 1, (8,), State(), rowwise=True)
