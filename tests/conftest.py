"""What several test files need: a network small enough to build in a second, with every mechanism of the real ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

import cpp_ext  # noqa: F401  before torch, whose OpenMP should not spin either

# Machines that are shared can take any time for anything.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photograph, uint8 [512, 512, 3], that comes with a test dependency."""
    data = pytest.importorskip("skimage.data")
    return data.astronaut()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> Path:
    """A bundle of an untrained network fitted to one photograph, its residual branches made to matter."""
    torch = pytest.importorskip("torch")
    from codec.config import CONFIGS
    from codec.models.mlicv2 import MLICv2
    from codec.training.data import to_signal
    from codec.training.export import write

    torch.manual_seed(0)
    model = MLICv2(CONFIGS["tiny"])
    x = torch.from_numpy(photo.copy()).reshape(4, 128, 4, 128, 3).transpose(1, 2).reshape(16, 128, 128, 3)
    model.fit_to(to_signal(x))
    with torch.no_grad():
        for name, a in model.arrays.items():
            if name.endswith(("/out/weight", "/back/weight")):
                a.normal_(std=0.3 * a.shape[1] ** -0.5)
            if name.endswith(("/anchor/1/weight", "/other/1/weight")):
                a.mul_(5)
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    write(model, path)
    return path
