"""The sizes of the networks of the family, deployed and full-size, counted from their definitions."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod
from typing import NamedTuple

from codec.config import CONFIGS
from codec.ops.shapes import count


class Size(NamedTuple):
    """parameters, and multiply-accumulates per picture pixel to encode and decode: together, since both walk the
    entropy model, and decoding alone."""

    name: str
    parameters: int
    macs: float
    decode_macs: float


def sizes() -> list[Size]:
    """All but the networks for tests; the full-size ones where torch is installed."""
    found = []
    for name, cfg in CONFIGS.items():
        parts = count(cfg)
        shapes = [shape for part in parts.values() for shape in part.layers.values()]
        decode = sum(parts[p].macs for p in ("h_s", "slices", "g_s"))
        found.append(Size(name, sum(map(prod, shapes)), sum(p.macs for p in parts.values()), decode))
    if find_spec("torch"):
        import torch

        from codec.models.large.model import MLIC, OPTIONS
        from rate import macs, parameters

        for name, options in OPTIONS.items():
            with torch.device("meta"):
                model, x = MLIC(options), torch.zeros(1, 3, 512, 512)
                model.selecting = options.selective
                whole = macs(model, x)
                encoder = sum(macs(net, at) for net, at in ((model.g_a, x), (model.h_a, model.g_a(x))))
            pixels = 512 * 512
            found.append(Size(name, parameters(model), whole / pixels, (whole - encoder) / pixels))
    return [size for size in found if not size.name.endswith("tiny")]
