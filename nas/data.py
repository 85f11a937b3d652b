"""Pictures for super-resolution: crops with their reductions to train on, whole pictures to judge by.

Reduction is MATLAB's imresize, bicubic with antialiasing, for both: what the published tables use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec import picture
from codec.training.data import Photos
from nas.searcher import Batch
from rate import psnr_luma

MULTIPLE = 12  # sides of judged pictures are cut to multiples of it, whatever the scale


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=256)
def reduction(size: int, scale: int) -> Tensor:
    """The matrix (size / scale, size) that reduces one side by an integer; beyond a border the picture is mirrored.

    Raises ValueError where scale does not divide size.
    """
    if size % scale:
        raise ValueError(f"{scale} does not divide {size} pixels")
    made = np.zeros((size // scale, size))
    for i in range(size // scale):
        centre = (i + 0.5) * scale - 0.5
        at = np.arange(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
        weights = _cubic((at - centre) / scale)
        mirrored = np.mod(at, 2 * size)
        mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
        np.add.at(made[i], mirrored, weights / weights.sum())
    return torch.from_numpy(made).float()


def reduced(x: Tensor, scale: int) -> Tensor:
    """(..., height, width) in 0..1 -> (..., height / scale, width / scale), rounded to 8 bits and clipped."""
    rows, columns = (reduction(n, scale).to(x) for n in x.shape[-2:])
    return ((rows @ x @ columns.T).clamp(0, 1) * 255).round() / 255


class Crops:
    """Batches of random crops: (reduced, crop), both in 0..1, (batch, 3, side, side). The same for the same epoch.

    part, parts: of the pictures, which share these batches come from: halves for weights and logits.
    """

    def __init__(
        self, pictures: list[NDArray[np.uint8]], scale: int, side: int, batch: int, steps: int, seed: int,
        part: int = 0, parts: int = 1, device: str = "cpu",
    ):  # fmt: skip
        self.scale, self.side, self.batch, self.steps, self.seed = scale, side, batch, steps, [seed, part]
        self.photos = Photos(pictures[part::parts], side * scale, device)

    def __call__(self, epoch: int) -> Iterable[Batch]:
        """steps batches. side is of the reduced crop."""
        rng = np.random.default_rng([*self.seed, epoch])
        for _ in range(self.steps):
            x = self.photos.crops(self.batch, self.side * self.scale, rng).permute(0, 3, 1, 2).float() / 255
            yield reduced(x, self.scale).contiguous(memory_format=torch.channels_last), x


SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


def judged_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """All pictures of a folder by file name, as RGB, grey ones too, cut to multiples of 12. Raises ValueError."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} is no folder with pictures ({', '.join(s[1:] for s in SUFFIXES)})")
    found = {}
    for path in paths:
        rgb = picture.load(path).rgb
        h, w = (n // MULTIPLE * MULTIPLE for n in rgb.shape[:2])
        if not h or not w:
            raise ValueError(f"{path} is smaller than {MULTIPLE} pixels")
        found[path.name] = np.ascontiguousarray(rgb[:h, :w])
    return found


def to_picture(y: Tensor) -> NDArray[np.uint8]:
    """(1, 3, height, width) in 0..1 -> uint8 (height, width, 3)."""
    return (y[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@torch.no_grad()
def judge(model: nn.Module, pictures: dict[str, NDArray[np.uint8]], scale: int) -> dict[str, float]:
    """PSNR of luma, picture by picture, without a border of `scale` pixels. The model is left as it was."""
    training = model.training
    model.eval()
    found = {}
    for name, rgb in pictures.items():
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        y = model(reduced(x, scale))
        if not torch.isfinite(y).all():
            raise ValueError(f"the network gives no finite picture of {name}")
        found[name] = psnr_luma(to_picture(y), rgb, scale)
    model.train(training)
    return found
