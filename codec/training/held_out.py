"""Rate and distortion on photographs that are never trained on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from codec.models.mlicv2 import MLICv2, qp_weights
from codec.models.ops import products
from codec.training.data import to_signal
from codec.training.run import Run

QPS = (4, 20, 36, 52)
PICTURES = 16


@torch.no_grad()
def evaluate(model: MLICv2, pictures: list[NDArray[np.uint8]], size: int = 256) -> list[dict[str, float]]:
    """Rate and PSNR on the middles of the pictures at a few QPs, latents rounded; averages over pictures."""
    middles = [p[(p.shape[0] - size) // 2 :, (p.shape[1] - size) // 2 :][:size, :size] for p in pictures[:PICTURES]]
    device = model.arrays["y/gain"].device
    x = torch.from_numpy(np.stack(middles)).to(device)
    rows = []
    for qp in QPS:
        results = []
        for part in x.split(4):
            x_hat, bits = model(to_signal(part), qp_weights(torch.full((len(part),), float(qp), device=device)))
            error = ((x_hat.clamp(-1, 1) - to_signal(part)) * 127.5).square().mean((1, 2, 3))
            results.append(torch.stack((sum(bits.values()) / size**2, 10 * torch.log10(65025 / error))))
        bpp, psnr = torch.cat(results, 1).mean(1).tolist()
        rows.append({"qp": qp, "bpp": bpp, "psnr": psnr})
    return rows


def with_average(run: Run, pictures: list[NDArray[np.uint8]]) -> list[dict[str, float]]:
    """Evaluate the averaged weights in full precision."""
    with run.averaged(), products("highest"):
        return evaluate(run.model, pictures)
