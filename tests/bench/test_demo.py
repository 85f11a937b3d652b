"""The demo's searches, and its whole course."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import codec
from bench import codecs, demo
from bench.measure import measure

Make = Callable[..., Image.Image]


def test_smallest() -> None:
    for answer in range(11):
        assert demo.smallest(0, 10, lambda n, a=answer: n >= a) == answer  # type: ignore[misc]
    assert demo.smallest(0, 10, lambda n: False) == 10


@pytest.mark.parametrize("target", [10.0, 27.0, 30.0, 33.0, 90.0])
@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_lowest_quality_that_reaches_a_psnr(picture: Make, name: str, target: float) -> None:
    image = picture(3)
    quality, point = demo.at_psnr(image, name, target)
    assert point.psnr == measure(image, codecs.find((name,)), quality).psnr
    assert point.psnr >= target or quality == 100
    assert quality == 0 or measure(image, codecs.find((name,)), quality - 1).psnr < target


def test_jpeg_of_size(picture: Make) -> None:
    image = picture(3)
    quality, data = demo.jpeg_of_size(image, 1500)
    assert len(data) <= 1500 < len(codecs.find(("jpeg",)).encode(image, quality + 1))
    assert demo.jpeg_of_size(image, 1)[0] == 1
    assert demo.jpeg_of_size(image, 10**6)[0] == 100


def test_the_sample_needs_no_download() -> None:
    pytest.importorskip("skimage", reason="the extra `demo` is not installed")
    assert Image.open(demo.sample()).size == (600, 400)


@pytest.mark.skipif(not codec.installed_models(), reason="no model bundle is installed")
def test_whole_course(picture: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, out = tmp_path / "photo.png", tmp_path / "out"
    picture(4, 90, 60).save(original)
    assert demo.main(["--picture", str(original), "--out", str(out), "-q", "40"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("mlicv2-s", "JPEG q", "WEBP q", "AVIF q", "side-by-side.png"))
    sheet = Image.open(out / "side-by-side.png")
    assert sheet.width > 3 * 90 and sheet.height > 2 * 60


def test_a_failing_command_is_one_line(
    picture: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(4).save(tmp_path / "photo.png")
    script = tmp_path / "codec"
    script.write_text("#!/bin/sh\necho no model bundle >&2\nexit 4\n")
    script.chmod(0o755)
    monkeypatch.setattr(demo, "command", lambda: str(script))
    assert demo.main(["--picture", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]) == 1
    assert "status 4: no model bundle" in capsys.readouterr().err
