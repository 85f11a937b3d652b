"""A place to run commands in."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.codec.commands import ORPHAN


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory but for two inputs: a.png, 96x64, and orphan.mlic, of an unknown model."""
    monkeypatch.chdir(tmp_path)
    rows, columns = np.mgrid[0:64, 0:96]
    rgb = np.stack([rows * 4, columns * 2, (rows + columns) % 64], axis=2).astype(np.uint8)
    Image.fromarray(rgb).save("a.png")
    Path("orphan.mlic").write_bytes(ORPHAN)
    return tmp_path
