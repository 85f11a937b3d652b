"""Quantizers: exponents, unbiasedness, bounds; and three ways to the same integer product."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

import quant  # noqa: E402
from quant import optimal, reference  # noqa: E402
from quant.quantizers import code_range  # noqa: E402


def spread(rows: int, channels: int, seed: int = 0) -> Tensor:
    """Channels of very different ranges."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, generator=g) * torch.exp2(-6 * torch.rand(channels, generator=g))


@given(
    st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20),
    st.integers(1, 9),
)
def test_exponents_are_the_largest_that_fit(ranges: list[float], groups: int) -> None:
    largest = max(ranges)
    found = quant.exponents(torch.tensor(ranges), torch.tensor(largest), groups).tolist()
    for r, e in zip(ranges, found, strict=True):
        assert 0 <= e < groups
        assert math.ldexp(r, e) <= largest
        assert e == groups - 1 or math.ldexp(r, e + 1) > largest


def test_exponents_at_powers_of_two_and_at_zero() -> None:
    ranges = torch.tensor([8.0, 4.0, 4.000001, 1.0, 0.5, 0.0])
    assert quant.exponents(ranges, ranges.max(), 4).tolist() == [0, 1, 0, 3, 3, 3]
    assert quant.exponents(torch.zeros(2), torch.tensor(0.0), 4).tolist() == [3, 3]
    with pytest.raises(ValueError, match="at least one group"):
        quant.exponents(ranges, ranges.max(), 0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_stay_in_range_and_near(bits: int) -> None:
    x, q = spread(50, 12), quant.largest_code(bits)
    for made in (
        quant.per_tensor(x, bits), quant.per_sample(x, bits), quant.channel(x, bits, 3),
        quant.channel(x, bits, 3, seed=5), quant.two_sided(x, bits, 3), quant.two_sided(x, bits, 3, seed=5, dim=0),
    ):  # fmt: skip
        assert made.codes.dtype == torch.int8 and int(made.codes.abs().max()) == q
        step = (made.scale * torch.exp2(-made.exponents.float())).expand_as(x)
        assert bool(((made.values() - x).abs() <= step * 1.001).all())
    nearest = quant.channel(x, bits, 3)
    step = (nearest.scale * torch.exp2(-nearest.exponents.float())).expand_as(x)
    assert bool(((nearest.values() - x).abs() <= step * 0.501).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("positive", [False, True])
def test_clipped_codes_are_nearer_than_codes_up_to_the_largest(bits: int, positive: bool) -> None:
    x = torch.randn(200, 1000, generator=torch.Generator().manual_seed(3))
    x = x.clamp(min=0) if positive else x
    made = quant.activations(x, bits) if positive else quant.weights(x, bits)
    assert int(made.codes.max()) == (2**bits - 1 if positive else quant.largest_code(bits))
    inside = x.abs() <= made.scale * made.codes.max()
    assert bool(((made.values() - x)[inside].abs() <= made.scale * 0.501).all())
    assert bool(((made.codes == made.codes.max()) | (made.codes == made.codes.min()))[~inside].all())
    error, unclipped = ((y.values() - x).square().mean() for y in (made, quant.per_tensor(x, bits)))
    assert error < unclipped


@pytest.mark.parametrize("bits", range(5, 9))
def test_more_than_four_bits_reach_to_the_largest(bits: int) -> None:
    x = torch.randn(200, 100, generator=torch.Generator().manual_seed(3))
    assert torch.equal(quant.weights(x, bits).codes, quant.per_tensor(x, bits).codes)
    assert torch.equal(quant.activations(x, bits).codes, quant.per_tensor(x, bits).codes)


@pytest.mark.parametrize(
    ("bits", "negative", "peak", "ends"),
    [
        (4, 0.0, 2.0, (0, 15)),
        (4, 0.0, 0.0, (0, 15)),
        (4, 2.0, 2.0, (-7, 7)),
        (4, 1.0, 2.0, (-7, 7)),
        (4, 0.1, 2.0, (-2, 13)),
        (6, 0.17, 4.0, (-4, 59)),
        (6, 1e-9, 4.0, (-2, 61)),
        (7, 0.17, 4.0, (-6, 121)),
        (8, 0.17, 4.0, (-127, 127)),
        (2, 0.1, 2.0, (-1, 1)),
    ],
)
def test_codes_are_where_activations_are(bits: int, negative: float, peak: float, ends: tuple[int, int]) -> None:
    assert code_range(bits, negative, peak) == ends


def test_after_gelu_nearly_all_codes_are_above_zero() -> None:
    x = torch.nn.functional.gelu(torch.randn(200, 100, generator=torch.Generator().manual_seed(3)))
    made = quant.activations(x, 6)
    assert int(made.codes.min()) >= -4 and int(made.codes.max()) == 59
    error, signed = ((y.values() - x).square().mean() for y in (made, quant.per_tensor(x, 6)))
    assert error < 0.4 * signed


def test_what_cannot_be_quantized_is_named() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(quant.NonFinite):
            quant.channel(torch.tensor([[1.0, bad]]), 4, 4)
    with pytest.raises(ValueError, match="2 to 8 bits"):
        quant.per_tensor(torch.ones(1, 1), 9)
    for made in (quant.channel(torch.zeros(3, 4), 4, 4, seed=1), quant.channel(torch.zeros(0, 4), 4, 4)):
        assert not made.codes.any() and not made.values().any()


def test_chance_is_a_function_of_place_and_seed() -> None:
    bits = quant.random_bits((3, 5), 7)
    assert torch.equal(bits, quant.random_bits((15,), 7).reshape(3, 5)) and not torch.equal(
        bits, quant.random_bits((3, 5), 8)
    )
    many = quant.random_bits((1 << 18,), 3).float() / 65536
    assert float(many.mean()) == pytest.approx(0.5, abs=0.003) and float(many.var()) == pytest.approx(1 / 12, rel=0.01)
    pairs = many.reshape(-1, 2)
    for a, b in ((pairs[:, 0], pairs[:, 1]), (many[:-2], many[2:])):
        assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < 0.01
    # The bits themselves, so that kernels elsewhere can be held against them.
    bits = quant.random_bits((34,), 1).tolist()
    assert [*bits[:6], *bits[16:18], *bits[32:]] == GOLDEN


GOLDEN = [37056, 34517, 27989, 62264, 17366, 56802, 26761, 11332, 41140, 5991]  # places 0 to 5, 16, 17, 32, 33


def test_rounding_by_chance_keeps_the_mean_and_its_variance_is_bounded() -> None:
    x, draws = spread(8, 6), 4096
    made = [quant.channel(x, 4, 4, seed=s) for s in range(draws)]
    values = torch.stack([m.values() for m in made]).double()
    step = (made[0].scale * torch.exp2(-made[0].exponents.float())).expand_as(x).double()
    error = (values.mean(0) - x).abs()
    assert bool((error <= 5 * values.std(0) / draws**0.5 + step * 2**-16).all())
    assert bool((values.var(0) <= step**2 / 4 * 1.05).all())


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_variance_lies_between_the_best_and_the_bound(groups: int) -> None:
    """V per channel <= V of the best groups <= V of ShiftQuant <= V per tensor, and ShiftQuant's own bound."""
    n, bits = 64, 4
    x = spread(n, 40)
    ranges = x.abs().amax(0).double().numpy()
    e = quant.exponents(x.abs().amax(0), x.abs().max(), groups).numpy()
    scopes = ranges.max() * 2.0**-e
    best = optimal.best_scopes(ranges, groups)
    values = [optimal.bound(s, n, bits) for s in (ranges, best, scopes, np.full(40, ranges.max()))]
    assert values == sorted(values) and (groups > 1 or values[1] == values[2] == values[3])
    last = e == groups - 1
    tail = last.sum() * (2 * ranges.max() * 2.0 ** -(groups - 1)) ** 2
    assert values[2] <= n / (4 * 49) * (4 * np.square(ranges[~last]).sum() + tail)


def test_the_best_groups_are_the_best() -> None:
    """Against all divisions of a few channels."""
    from itertools import product

    ranges = np.array([3.0, 0.4, 1.0, 0.1, 2.5, 0.9])
    for groups in (1, 2, 3, 6, 9):
        least = np.inf
        for labels in product(range(min(groups, 3)), repeat=6):
            scopes = np.array([max(r for r, k in zip(ranges, labels, strict=True) if k == own) for own in labels])
            least = min(least, np.square(scopes).sum())
        found = np.square(optimal.best_scopes(ranges, groups)).sum()
        assert found <= least + 1e-12 and (groups > 3 or found == pytest.approx(least))
    assert np.array_equal(optimal.best_scopes(ranges, 6), ranges)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**31))
def test_three_ways_to_the_same_product(groups: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-7, 8, (5, k)), rng.integers(-127, 128, (k, 3))
    shifts = rng.integers(0, groups, k)
    made = reference.shifted_products(a, b, shifts)
    assert np.array_equal(made, reference.by_groups(a, b, shifts))
    assert np.array_equal(made, reference.pre_shifted(a, b, shifts))


def test_a_product_of_codes_is_the_product_of_their_values() -> None:
    g, w = quant.channel(spread(20, 16), 4, 4, seed=1), quant.per_tensor(spread(16, 9, 1).T.contiguous().T, 4)
    product = torch.from_numpy(
        reference.pre_shifted(g.codes.numpy(), w.codes.numpy(), (3 - g.exponents).flatten().numpy())
    )
    assert torch.equal(g.shifted().long() @ w.codes.long(), product)
    found = product.double() * (g.scale * w.scale).double() * 2.0**-3
    assert torch.allclose(found, g.values().double() @ w.values().double(), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="6-bit codes of 4 groups"):
        quant.channel(spread(2, 2), 6, 4).shifted()
