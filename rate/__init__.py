"""Everything that is counted in bits: likelihoods, bits per pixel, BD-rate, distortion, and the published curves.

Importing this package needs numpy and nothing else; `bd_rate` and `ms_ssim` import their libraries when called.
"""

from .bdrate import bd_rate, psnr_overlap
from .data import Curve, DataMissing, data_dir, published_curve, read_curve
from .entropy import bits_per_pixel, entropy_bits, gaussian_bits
from .metrics import ms_ssim, psnr

__all__ = [
    "Curve",
    "DataMissing",
    "bd_rate",
    "bits_per_pixel",
    "data_dir",
    "entropy_bits",
    "gaussian_bits",
    "ms_ssim",
    "psnr",
    "psnr_overlap",
    "published_curve",
    "read_curve",
]
