"""The committed results against what was measured before them, and against what others have published."""

import json
from pathlib import Path
from typing import Any

import pytest

from rate import DataMissing, bd_rate, data_dir, published_curve

RESULTS = Path(__file__).parents[2] / "results" / "rd.json"


def curve(name: str) -> tuple[list[float], list[float]]:
    levels: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["curves"][name]
    return [at["bpp"] for at in levels], [at["psnr"] for at in levels]


@pytest.fixture
def data() -> Path:
    try:
        return data_dir()
    except DataMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_committed_peers_agree_with_the_earlier_measurement(data: Path, name: str) -> None:
    """JPEG and WebP to the last digit given; AVIF within what its version and its number of threads move."""
    earlier = json.loads((data / "rd" / "measured_peers_kodak.json").read_text(encoding="utf-8"))["res"][name]
    bpp, psnr = curve(name)
    assert bpp == pytest.approx(earlier["bpp"], rel=0.012 if name == "avif" else 1e-4, abs=1e-4)
    assert psnr == pytest.approx(earlier["psnr"], abs=0.05 if name == "avif" else 1e-4)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_committed_peers_agree_with_published_curves(data: Path, name: str) -> None:
    anchor = published_curve(data, f"compressai/{name}")
    assert abs(bd_rate(anchor["bpp"], anchor["psnr"], *curve(name))) < 5


def test_published_curves_compare_as_published(data: Path) -> None:
    vtm, mlic = (published_curve(data, name) for name in ("compressai/vtm", "mlicplusplus"))
    assert bd_rate(vtm["bpp"], vtm["psnr"], mlic["bpp"], mlic["psnr"]) == pytest.approx(-15, abs=0.3)
    assert bd_rate(mlic["bpp"], mlic["psnr"], mlic["bpp"], mlic["psnr"]) == pytest.approx(0, abs=1e-9)
