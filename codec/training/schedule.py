"""What to train on, and how fast, at every moment of a trunk and of the branches that leave it for a release.

The trunk runs at a constant rate for as long as there is time; it never has to start over. A branch starts from its
state, lets the rate fall to zero, and ends with larger crops and with the arithmetic of the release.
(Warm-up, stable, decay: our choice of lengths.)
"""

from __future__ import annotations

from typing import NamedTuple

LEARNING_RATE = 1.5e-3  # of Muon and AdamW alike
WARM_UP = 400  # steps; after 100, fresh optimizers threw trained weights off their course in batches of 64 crops
TRUNK_CROPS = (16, 128)  # crops of a batch, their side in pixels: small ones make more steps of the same work
# From this share of a branch on. The last ones are nearer to what the codec will see: few pixels are near a border.
BRANCH_CROPS = ((0.0, 16, 128), (0.6, 4, 256), (0.9, 2, 384))
ROUND_FROM = 0.8  # share of a branch after which the entropy path rounds as the integers will and symbols are skipped
LARGEST = max(size for _, _, size in BRANCH_CROPS)


class Step(NamedTuple):
    rate: float  # factor of LEARNING_RATE
    crops: int
    size: int
    rounding: bool


def trunk(steps: int) -> Step:
    return Step(min(1.0, (steps + 1) / WARM_UP), *TRUNK_CROPS, False)


def branch(share: float) -> Step:
    """share: of the branch's time, 0..1."""
    _, count, size = [stage for stage in BRANCH_CROPS if share >= stage[0]][-1]
    return Step(min(1.0, max(0.0, 1.0 - share)), count, size, share >= ROUND_FROM)
