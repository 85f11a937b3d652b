"""Small pictures, so that the suites run without data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Smooth random colours with a little noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int32)
    return Image.fromarray(np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8))


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """picture(seed, width=64, height=48): an RGB picture, always the same for a seed."""
    return _picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `set` of two pictures."""
    where = tmp_path / "set"
    where.mkdir()
    for seed in (1, 2):
        _picture(seed).save(where / f"p{seed}.png")
    return where
