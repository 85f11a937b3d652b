"""The committed results against what was measured before them."""

import json
from pathlib import Path

import pytest

from bench.kodak import curve
from bench.measure import from_json
from rate import DataMissing, data_dir


def test_committed_peers_agree_with_the_earlier_measurement() -> None:
    """JPEG and WebP to the last digit given; AVIF within what its version and its number of threads move."""
    committed = Path(__file__).parents[2] / "results" / "peers_kodak.json"
    try:
        earlier = json.loads((data_dir() / "rd" / "measured_peers_kodak.json").read_text(encoding="utf-8"))["res"]
    except DataMissing as missing:
        pytest.skip(str(missing))
    points = from_json(json.loads(committed.read_text(encoding="utf-8"))["points"])
    for name, levels in points.items():
        bpp, psnr = curve(levels)
        close = 0.012 if name == "avif" else 1e-4
        assert bpp == pytest.approx(earlier[name]["bpp"], rel=close, abs=1e-4)
        assert psnr == pytest.approx(earlier[name]["psnr"], abs=0.05 if name == "avif" else 1e-4)
