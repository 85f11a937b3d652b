"""The sheet of decoded parts is made of real files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import sheet
from bench.__main__ import main


@pytest.fixture
def kodak(tmp_path: Path) -> Path:
    (tmp_path / "kodak").mkdir()
    ramp = np.add.outer(np.arange(600) % 97, np.arange(640) % 131).astype(np.uint8)
    for name in sheet.PARTS:
        Image.fromarray(np.stack([ramp, ramp.T[:600, :600].repeat(2, 1)[:, :640], ramp[::-1]], 2)).save(
            tmp_path / "kodak" / f"{name}.png"
        )
    return tmp_path


def test_originals_stand_beside_what_was_decoded(kodak: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = kodak / "sheet.png"
    line = ["sheet", "--data", str(kodak), "--out", str(out), "--bpp", "0.5", "--against", "webp"]
    assert main([*line, "--json", str(kodak / "s.json")]) == 0
    made = Image.open(out)
    width, height = sheet.SIDE * sheet.TIMES, sheet.SIDE * sheet.TIMES + sheet.LINE
    assert made.size == (3 * width, len(sheet.PARTS) * height)
    name, (left, top) = next(iter(sheet.PARTS.items()))
    part = Image.open(kodak / "kodak" / f"{name}.png").crop((left, top, left + sheet.SIDE, top + sheet.SIDE))
    shown = [
        np.asarray(
            made.crop((i * width, sheet.LINE, (i + 1) * width, height)).resize(part.size, Image.Resampling.NEAREST)
        )
        for i in range(3)
    ]
    assert np.array_equal(shown[0], part)
    assert 0 < np.abs(shown[1].astype(int) - shown[0]).mean() < 25  # decoded, and the same part
    assert f"wrote {out}" in capsys.readouterr().out


@pytest.mark.parametrize(("out", "message"), [("no/x.png", "no such folder"), ("x.text", "not the name of a picture")])
def test_what_cannot_be_written_is_said_first(tmp_path: Path, out: str, message: str, capsys: Any) -> None:
    assert main(["sheet", "--data", str(tmp_path), "--out", str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err
