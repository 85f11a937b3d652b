"""Distortion of 8-bit RGB pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOSSLESS = 100.0  # dB that equal pictures count as: averages stay finite, and JSON has no infinity


def _check(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"pictures must be uint8, not {a.dtype} and {b.dtype}")
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3 or a.size == 0:
        raise ValueError(f"pictures must both be height x width x 3, not {a.shape} and {b.shape}")


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB: one mean square error over all pixels and the three colours, peak 255.

    a, b: uint8, (height, width, 3). Infinite for equal pictures. Raises ValueError for other types or shapes.
    """
    _check(a, b)
    error = float(np.mean(np.square(a.astype(np.int32) - b.astype(np.int32)), dtype=np.float64))
    return 10 * math.log10(255**2 / error) if error else math.inf


def psnr_y(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB of luma alone: BT.601 weights at full range, not rounded. Otherwise as `psnr`."""
    _check(a, b)
    difference = (a.astype(np.float64) - b) @ np.array([0.299, 0.587, 0.114])
    error = float(np.mean(np.square(difference)))
    return 10 * math.log10(255**2 / error) if error else math.inf


def psnr_luma(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int = 0) -> float:
    """PSNR in dB of 8-bit luma, as super-resolution counts it: BT.601 at studio range (16..235), rounded, without
    `border` pixels at each side. a, b as for `psnr`, larger than both borders."""
    _check(a, b)
    if min(a.shape[:2]) <= 2 * border:
        raise ValueError(f"a border of {border} leaves nothing of {a.shape[1]}x{a.shape[0]}")
    inside = np.s_[border : a.shape[0] - border, border : a.shape[1] - border]
    weights = np.array([65.481, 128.553, 24.966]) / 255
    luma = [np.rint(p[inside].astype(np.float64) @ weights + 16) for p in (a, b)]
    error = float(np.mean(np.square(luma[0] - luma[1])))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ms_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity in 0..1, mean of R, G and B (Wang et al. 2003, by the package pytorch-msssim).

    a, b: uint8, (height, width, 3), the smaller side above 160 (five scales). Raises ValueError for other types or
    shapes, ImportError without pytorch-msssim (and torch).
    """
    _check(a, b)
    if min(a.shape[:2]) <= 160:
        raise ValueError(f"MS-SSIM needs a smaller side above 160, this is {a.shape[1]}x{a.shape[0]}")
    import pytorch_msssim
    import torch

    planes = [torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float32)) for p in (a, b)]
    return float(pytorch_msssim.ms_ssim(*planes, data_range=255))


def ssimulacra2(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """SSIMULACRA 2 (Sneyers 2023) of b against the original a, at most 100, by the package ssimulacra2.

    a, b: uint8, (height, width, 3), sides of at least 8. Raises ValueError otherwise, ImportError without the package.
    """
    _check(a, b)
    if min(a.shape[:2]) < 8:
        raise ValueError(f"SSIMULACRA 2 needs sides of at least 8, this is {a.shape[1]}x{a.shape[0]}")
    from PIL import Image
    from ssimulacra2 import compute_ssimulacra2

    files = [io.BytesIO() for _ in range(2)]
    for picture, file in zip((a, b), files, strict=True):
        Image.fromarray(picture).save(file, "PNG", compress_level=0)
    return float(compute_ssimulacra2(*files))


METRICS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]] = {
    "psnr": psnr,
    "psnr_y": psnr_y,
    "ms_ssim": ms_ssim,
    "ssimulacra2": ssimulacra2,
}
