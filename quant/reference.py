"""Integer matrix products with shifts along the inner dimension, in int64: what every kernel must equal bit for bit.

a (m, k) and b (k, n) are codes, shifts (k,) at least 0: the sums over k of (a * b) << shift.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]


def shifted_products(a: Integers, b: Integers, shifts: Integers) -> NDArray[np.int64]:
    """Each product is shifted before it is added, as the paper has it (figure 3) and as hardware would."""
    out = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for k, shift in enumerate(shifts):
        out += np.outer(a[:, k].astype(np.int64), b[k].astype(np.int64)) << int(shift)
    return out


def by_groups(a: Integers, b: Integers, shifts: Integers) -> NDArray[np.int64]:
    """A product for each group, added by Horner's rule: one shift for each output and group."""
    out = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for shift in range(int(shifts.max(initial=0)), -1, -1):
        group = shifts == shift
        out = (out << 1) + a[:, group].astype(np.int64) @ b[group].astype(np.int64)
    return out


def pre_shifted(a: Integers, b: Integers, shifts: Integers) -> NDArray[np.int64]:
    """The shift is in the codes of a already: an ordinary product, and what our kernels do."""
    return (a.astype(np.int64) << shifts.astype(np.int64)) @ b.astype(np.int64)
