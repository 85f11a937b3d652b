"""Float weights that a training can start from: those of a run, or those that were released with a bundle.

A bundle holds g_a, h_a and g_s in float16 already. What it lacks, the entropy path before it was rounded and the
learned levels of the per-QP vectors, lies beside it in NAME.float.npz: in the repository, not in the package.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec import files
from codec.bundle import Bundle
from codec.models.mlicv2 import MLICv2
from codec.training.run import CHECKPOINT, config_of, reading


def in_bundle(name: str) -> bool:
    """Whether a bundle holds this array as training does."""
    return name.startswith(("g_a/", "h_a/", "g_s/")) and name.endswith(("/weight", "/bias"))


def beside(bundle: Path) -> Path:
    return bundle.with_suffix(".float.npz")


def save_beside(model: MLICv2, bundle: Path) -> None:
    """Write what the bundle lacks."""
    arrays = {n: a.detach().cpu().numpy().astype(np.float16) for n, a in model.arrays.items() if not in_bundle(n)}
    made = io.BytesIO()
    np.savez(made, **arrays)
    files.write(str(beside(bundle)), made.getvalue())


def load(source: Path) -> MLICv2:
    """The averaged weights of a run's folder, or the released ones of a bundle file with its .float.npz beside it."""
    if source.is_dir():
        path = source / CHECKPOINT
        model = MLICv2(config_of(path))
        with reading(path):
            model.arrays.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["average"])
        return model
    bundle = Bundle(source)
    model = MLICv2(bundle.config)
    floats = bundle.part("float")
    with reading(beside(source), "NAME.float.npz of codec export"):
        with np.load(beside(source)) as rest:
            found: dict[str, Tensor] = {n: torch.from_numpy(rest[n]).float() for n in rest.files}
        found |= {n: torch.from_numpy(floats[n]).float() for n in model.arrays if in_bundle(n)}
        model.arrays.load_state_dict(found)
    return model
