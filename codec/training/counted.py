"""How often the encoder of a bundle writes which symbol: what the coder's tables are fitted to (our choice).

The networks learn against Gaussians, but what meets their scales has more zeros than those, and the encoder rounds
towards zero: tables fitted to photographs save 0.7 to 1.0 % of Kodak's latents at QP 4 to 52 (measured); tables of each
slice or each QP save no more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec import tables
from codec.bundle import Bundle
from codec.pipeline import quantize
from codec.runtime.native import NativeRuntime

MAGNITUDES = 1024  # the last counts all from there on
PICTURES, SIDE, LEVELS = 48, 512, range(4, 64, 8)


def symbols(bundle: Path, pictures: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Of y, [scale index, magnitude], on the middles of up to PICTURES pictures at LEVELS of QP."""
    runtime = NativeRuntime(Bundle(bundle))
    found = np.zeros(tables.SCALES * MAGNITUDES, np.int64)
    for p in pictures[:: max(len(pictures) // PICTURES, 1)][:PICTURES]:
        top, left = ((n - SIDE) // 2 if n > SIDE else 0 for n in p.shape[:2])
        middle = np.ascontiguousarray(p[top:, left:][:SIDE, :SIDE])
        for qp in LEVELS:
            for written, indexes in quantize(middle, qp, runtime).passes[1:]:  # the first is z
                sizes = np.minimum(np.abs(written.astype(np.int64)), MAGNITUDES - 1)
                found += np.bincount(indexes * np.int64(MAGNITUDES) + sizes, minlength=len(found))
    return found.reshape(tables.SCALES, MAGNITUDES)
