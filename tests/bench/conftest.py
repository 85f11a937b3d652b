"""Small pictures, and a stand-in for our codec, so that the suites run without weights or data."""

import io
import sys
import types
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


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """In place of the package `codec`: WebP, of a quality that rises with the QP."""

    def encode(image: Image.Image, quality: float = 50, *, qp: int | None = None) -> bytes:
        file = io.BytesIO()
        image.save(file, "webp", quality=round(quality if qp is None else qp * 100 / 63))
        return file.getvalue()

    module = types.SimpleNamespace(encode=encode, decode=lambda data: Image.open(io.BytesIO(data)).convert("RGB"))
    monkeypatch.setitem(sys.modules, "codec", module)
    return module
