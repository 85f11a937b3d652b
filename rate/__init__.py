"""Everything that is counted in bits: likelihoods, bits per pixel, BD-rate, distortion, and the published curves.

Importing this package needs numpy and nothing else; BD-rates, `ms_ssim` and `ssimulacra2` import their libraries when
called.
"""

from .bdrate import Comparison, bd_psnr, bd_rate, compare, psnr_overlap
from .complexity import macs, parameters
from .cost import MEASURES, Layer, Measure
from .data import Curve, DataMissing, data_dir, published_curve, read_curve
from .entropy import bits_per_pixel, entropy_bits, gaussian_bits
from .metrics import LOSSLESS, METRICS, ms_ssim, psnr, psnr_luma, psnr_y, ssimulacra2

__all__ = [
    "LOSSLESS",
    "MEASURES",
    "METRICS",
    "Comparison",
    "Curve",
    "DataMissing",
    "Layer",
    "Measure",
    "bd_psnr",
    "bd_rate",
    "bits_per_pixel",
    "compare",
    "data_dir",
    "entropy_bits",
    "gaussian_bits",
    "macs",
    "ms_ssim",
    "parameters",
    "psnr",
    "psnr_luma",
    "psnr_overlap",
    "psnr_y",
    "published_curve",
    "read_curve",
    "ssimulacra2",
]
