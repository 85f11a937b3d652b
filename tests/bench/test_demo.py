"""The demo's whole course, and how it fails."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import codec
from bench import demo

Make = Callable[..., Image.Image]


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
