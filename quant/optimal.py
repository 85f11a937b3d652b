"""How good a grouping is: the variance that stochastic rounding adds, and the least that any grouping could.

Channels of range r in a group of range R add at most n R^2 / (4 q^2) each, n elements and q the largest code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.quantizers import largest_code


def bound(scopes: NDArray[np.floating], n: int, bits: int) -> float:
    """Of the variance, from the range of each channel's group."""
    return float(n * np.square(scopes, dtype=np.float64).sum() / (4 * largest_code(bits) ** 2))


def best_scopes(ranges: NDArray[np.floating], groups: int) -> NDArray[np.float64]:
    """The ranges of the groups of each channel under the best division into so many groups, in the order of ranges.

    Groups are neighbours once sorted, so dynamic programming finds the best in O(groups channels^2).
    """
    order = np.argsort(-ranges, kind="stable")
    r = ranges[order].astype(np.float64)
    n = len(r)
    cost, starts = np.full(n + 1, np.inf), []
    cost[0] = 0.0
    for _ in range(min(groups, n)):
        # options[i, j]: channels i..j-1 in one group, which has the range of i
        lengths = np.arange(n + 1)[None, :] - np.arange(n)[:, None]
        options = np.where(lengths > 0, cost[:n, None] + lengths * np.square(r)[:, None], np.inf)
        starts.append(options.argmin(0))
        cost = np.minimum(options.min(0), cost)  # fewer groups are allowed
        starts[-1][cost < options.min(0)] = -1
    scopes, end = np.empty(n), n
    for start in reversed(starts):
        if end and start[end] >= 0:
            scopes[start[end] : end] = r[start[end]]
            end = int(start[end])
    found = np.empty(n)
    found[order] = scopes
    return found
