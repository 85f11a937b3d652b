"""The shipped tables: valid, small, and close to the entropy of what they describe."""

import math

import numpy as np
import pytest

import cpp_ext
from codec import tables


@pytest.fixture(scope="module")
def bank():
    return tables.build()


def split(bank):
    return list(zip(bank["raw_bits"].tolist(), np.split(bank["freqs"], np.cumsum(bank["sizes"])[:-1]), strict=True))


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def test_scales_are_log_spaced():
    scales = [tables.scale(i) for i in range(tables.SCALES)]
    assert scales[0] == pytest.approx(0.11)
    assert scales[-1] == pytest.approx(64)
    assert np.ptp(np.diff(np.log(scales))) < 1e-12


@pytest.mark.parametrize("sigma", [0.11, 1.0, 64.0])
def test_gaussian_is_a_distribution(sigma):
    first, p = tables.gaussian(sigma)
    n = np.arange(first, first + len(p))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(p, p[::-1])
    if sigma >= 1:  # rounding adds the variance of a uniform step
        assert p @ n**2 == pytest.approx(sigma**2 + 1 / 12, rel=1e-6)


def test_bank_is_accepted_and_small(bank):
    assert len(cpp_ext.TableBank(**bank)) == tables.SCALES
    assert bank["sizes"].max() <= 80
    for raw_bits, freqs in split(bank):
        assert freqs.sum() == tables.TOTAL
        assert freqs.min() >= 1
        assert raw_bits <= 3


def test_every_scale_costs_next_to_nothing_over_its_entropy(bank):
    """Measured: at most 0.047 % from sigma 0.36 on; below that 0.0004 bits a symbol, the one count of the escape."""
    for index, (raw_bits, freqs) in enumerate(split(bank)):
        first, p = tables.gaussian(tables.scale(index))
        excess = tables.expected_bits(first, p, raw_bits, freqs) - entropy(p)
        assert 0 <= excess <= 0.0005 * entropy(p) + 0.0004, f"scale {index}"


def test_typical_source_costs_under_a_thousandth(bank):
    """Log-normal scales, median 0.35, one natural log of spread: about 1 bit a symbol. Measured: 0.032 %."""
    log_sigma = np.log([tables.scale(i) for i in range(tables.SCALES)])
    weight = np.exp(-((log_sigma - math.log(0.35)) ** 2) / 2)
    weight /= weight.sum()
    ideal = coded = 0.0
    for index, (raw_bits, freqs) in enumerate(split(bank)):
        first, p = tables.gaussian(tables.scale(index))
        ideal += weight[index] * entropy(p)
        coded += weight[index] * tables.expected_bits(first, p, raw_bits, freqs)
    assert 0.8 < ideal < 1.2
    assert coded / ideal - 1 < 0.0005


def test_expected_bits_are_those_of_the_coder():
    """The formula against a payload with escapes and raw bits in it."""
    first, p = tables.gaussian(20.0)
    raw_bits, freqs = 2, tables.frequencies(np.full(5, 0.2))
    symbols = np.repeat(np.arange(first, first + len(p)), np.rint(p * 20000).astype(int)).astype(np.int16)
    np.random.default_rng(2).shuffle(symbols)  # a sorted run of one symbol is a worst case of rANS rounding
    counts = np.bincount(symbols - first, minlength=len(p))
    bank = cpp_ext.TableBank(np.array([raw_bits], np.uint8), np.array([5], np.uint16), freqs)
    encoder = cpp_ext.Encoder(bank, 1)
    encoder.put(symbols, np.zeros(len(symbols), np.uint8))
    bits = len(encoder.finish()) * 8
    assert bits == pytest.approx(tables.expected_bits(first, counts, raw_bits, freqs), rel=1e-3)


def test_frequencies_are_optimal():
    """No count moved from one entry to another helps: for a separable convex cost that is the optimum."""
    rng = np.random.default_rng(3)
    for p in (rng.dirichlet(np.full(40, 0.3)), np.array([1.0, 0.0, 0.0]), np.array([1.0])):
        f = tables.frequencies(p).astype(float)
        assert f.sum() == tables.TOTAL
        gain = p * np.log(1 + 1 / f)
        loss = np.where(f > 1, p * np.log(f / np.maximum(f - 1, 0.5)), np.inf)
        assert gain.max() <= loss.min() + 1e-12


def test_other_distributions_follow_the_gaussians():
    lopsided = np.array([0.05, 0.6, 0.3, 0.05])
    bank = tables.build([(-1, lopsided)])
    assert len(bank["sizes"]) == tables.SCALES + 1
    raw_bits, freqs = split(bank)[-1]
    assert raw_bits == 0
    assert np.argmax(freqs) == 0  # rank 0 is the symbol 0, the likely one here
    assert tables.expected_bits(-1, lopsided, raw_bits, freqs) == pytest.approx(entropy(lopsided), rel=1e-3)


def test_fitted_tables_follow_what_was_counted():
    """A Laplacian where Gaussians were expected: from the Gaussian's cost most of the way to the entropy."""
    index = 24
    first, p = tables.fitted(index, np.zeros(1024, np.int64))
    assert (first, p.tolist()) == (tables.gaussian(tables.scale(index))[0], pytest.approx(p.tolist()))
    drawn = np.abs(np.rint(np.random.default_rng(0).laplace(0, tables.scale(index) / math.sqrt(2), 100_000))).astype(
        int
    )
    counts = np.bincount(np.append(drawn, 2000), minlength=1024)[:1024]  # one symbol beyond everything
    first, p = tables.fitted(index, counts)
    np.testing.assert_array_equal(p, p[::-1])
    assert p.sum() == pytest.approx(1) and p[-first] == pytest.approx(counts[0] / counts.sum(), rel=1e-2)
    many = np.zeros((tables.SCALES, 1024), np.int64)
    many[index] = counts
    costs = [
        tables.expected_bits(first, p, *split(bank)[index]) for bank in (tables.build(), tables.build(counts=many))
    ]
    assert entropy(p) <= costs[1] < entropy(p) + 0.002 and costs[0] > costs[1] + 0.05
