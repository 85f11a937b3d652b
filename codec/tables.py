"""The integer tables of the entropy coder, made once when a model bundle is exported and stored in it.

Nothing here runs when a picture is encoded or decoded: the arrays travel as data, so that the last digit of some
machine's erfc never decides a bit. The coded form of a symbol (table part, escape, raw low bits) is that of
cpp_ext/rans.hpp. Sizes of alphabets, the rounding and the choice of raw bits are our choice, measured in
tests/codec/test_tables.py.
"""

import heapq
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SCALES = 64  # Gaussian tables, indexes 0 .. SCALES - 1 of a bank
SCALE_MIN = 0.11
SCALE_MAX = 64.0
LOG_SCALE_MIN = math.log(SCALE_MIN)
INDEX_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)  # of log sigma, per index

PRIOR = 50.0  # symbols that a Gaussian is worth beside counted ones

TOTAL = 1 << 12  # sum of the frequencies of a table
MAX_ALPHABET = 256
MAX_RAW_BITS = 8
RAW_BITS_LOSS = 1.5e-4  # raw low bits may lengthen a symbol by this fraction: they make the alphabet smaller


def scale(index: int) -> float:
    """Standard deviation of Gaussian table `index`, log-spaced from SCALE_MIN (0) to SCALE_MAX (SCALES - 1)."""
    return SCALE_MIN * (SCALE_MAX / SCALE_MIN) ** (index / (SCALES - 1))


def gaussian(sigma: float) -> tuple[int, NDArray[np.float64]]:
    """Zero-mean Gaussian rounded to integers: (lowest integer, probabilities from there on), 12 sigma to each side."""
    reach = math.ceil(12 * sigma) + 1
    # P(|x| > n - 1/2) / 2 by erfc: differences of a cdf near 1 would lose the tails.
    upper = np.array([math.erfc((n - 0.5) / (sigma * math.sqrt(2))) / 2 for n in range(1, reach + 2)])
    side = upper[:-1] - upper[1:]
    return -reach, np.concatenate([side[::-1], [1 - 2 * upper[0]], side])


def fitted(index: int, counts: NDArray[np.int64]) -> tuple[int, NDArray[np.float64]]:
    """Gaussian `index`, as if seen PRIOR times, with what was seen: counts of magnitudes, signs alike."""
    first, p = gaussian(scale(index))
    seen = np.bincount(np.minimum(np.arange(len(counts)), -first), counts, 1 - first).astype(np.float64)
    side = seen[1:] / 2
    p = PRIOR * p + np.concatenate([side[::-1], seen[:1], side])
    return first, p / p.sum()


def frequencies(p: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Integers >= 1 of sum TOTAL that minimise the expected code length of a source with probabilities p [A].

    The cost -sum p log2 f is separable and convex, so giving out the total one by one, each time where it saves most,
    is optimal; starting from a lower bound of the optimum only saves time.
    """
    p = np.asarray(p, np.float64)
    f = np.maximum(1, np.floor(0.9 * TOTAL * p)).astype(int)
    gains = [(-pi * math.log1p(1 / fi), i) for i, (pi, fi) in enumerate(zip(p, f, strict=True))]
    heapq.heapify(gains)
    for _ in range(TOTAL - int(f.sum())):
        i = gains[0][1]
        f[i] += 1
        heapq.heapreplace(gains, (-p[i] * math.log1p(1 / f[i]), i))
    return f.astype(np.uint16)


def _ranks(first: int, n: int, raw_bits: int) -> NDArray[np.int64]:
    """Zigzag rank of symbol >> raw_bits, for the n symbols from `first` on."""
    v = np.arange(first, first + n) >> raw_bits
    return np.where(v >= 0, 2 * v, -2 * v - 1)


def expected_bits(first: int, pmf: NDArray[np.float64], raw_bits: int, freqs: NDArray[np.uint16]) -> float:
    """Mean bits of a symbol from pmf over the integers first, first + 1, ... in this table, before what rANS loses."""
    ranks = _ranks(first, len(pmf), raw_bits)
    escape = len(freqs) - 1
    bits = raw_bits - np.log2(freqs[np.minimum(ranks, escape)] / TOTAL)
    bits += np.where(ranks >= escape, 2 * np.floor(np.log2(np.maximum(ranks - escape, 0) + 1)) + 1, 0)
    return float(pmf @ bits)


def table(first: int, pmf: NDArray[np.float64]) -> tuple[int, NDArray[np.uint16]]:
    """(raw_bits, freqs) for symbols with probabilities pmf over the integers first, first + 1, ...

    The alphabet ends where the rest of the distribution is worth less than half a count: the escape's own count
    costs less than the counts of the useless symbols would. Of all raw bits the most that cost next to nothing.
    """
    candidates = []
    for raw_bits in range(MAX_RAW_BITS + 1):
        by_rank = np.bincount(_ranks(first, len(pmf), raw_bits), weights=pmf)
        rest = np.append(by_rank[::-1].cumsum()[::-1][1:], 0)  # rest[i]: all ranks above i
        size = min(int(np.argmax(rest * TOTAL < 0.5)) + 1, MAX_ALPHABET - 1)
        freqs = frequencies(np.append(by_rank[:size], by_rank[size:].sum()))
        candidates.append((expected_bits(first, pmf, raw_bits, freqs), raw_bits, freqs))
    limit = min(bits for bits, _, _ in candidates) * (1 + RAW_BITS_LOSS)
    _, raw_bits, freqs = max((c for c in candidates if c[0] <= limit), key=lambda c: c[1])
    return raw_bits, freqs


def build(
    others: Iterable[tuple[int, NDArray[np.float64]]] = (), counts: NDArray[np.int64] | None = None
) -> dict[str, NDArray]:
    """Arrays for cpp_ext.TableBank: the SCALES Gaussian tables, fitted where there are counts [SCALES, magnitude], then
    one for each (first, pmf) in `others`.

    Returns raw_bits uint8 [T], sizes uint16 [T], freqs uint16 [sum(sizes)].
    """
    scales = range(SCALES)
    pmfs = [gaussian(scale(i)) for i in scales] if counts is None else [fitted(i, counts[i]) for i in scales]
    tables = [table(first, pmf) for first, pmf in pmfs]
    tables += [table(first, pmf) for first, pmf in others]
    return {
        "raw_bits": np.array([raw_bits for raw_bits, _ in tables], np.uint8),
        "sizes": np.array([len(freqs) for _, freqs in tables], np.uint16),
        "freqs": np.concatenate([freqs for _, freqs in tables]),
    }
