"""`codec evaluate`: real files, averages, a JSON that is a curve file, and one line for whatever is wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import codec
from codec.cli import main
from rate import bits_per_pixel, psnr, read_curve

pytest.importorskip("bjontegaard", reason="the extra `bench` is not installed")


@pytest.fixture
def folder(tmp_path: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures, one of them too small for MS-SSIM, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(photo[:170, 100:300]).save(pictures / "a.png")
    Image.fromarray(photo[200:270, 100:190]).save(pictures / "b.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG, but no more")
    return pictures


def test_an_exact_picture_is_a_number_in_json(folder: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.evaluate.psnr", lambda a, b: math.inf)
    assert (
        main(["evaluate", str(folder), "--qp", "9", "--model", str(tiny_bundle), "--quiet", "--json", "out.json"]) == 0
    )
    assert json.loads(Path("out.json").read_text())["psnr"] == [100.0]


def test_measures_real_files(folder: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(folder), "--qp", "60,0,20,40", "--model", str(tiny_bundle)]
    assert main([*arguments, "--json", "out.json"]) == 0
    out, err = capsys.readouterr()
    assert err.count("skipped") == 1 and "broken.png" in err and "2 pictures" in err
    made = json.loads(Path("out.json").read_text())
    assert len(made["skipped"]) == 1 and "broken.png" in made["skipped"][0]
    assert made["qp"] == [0, 20, 40, 60] and list(made["pictures"]) == ["a.png", "b.png"]
    original = np.asarray(Image.open(folder / "b.png"))
    data = codec.encode(original, qp=40, model=tiny_bundle)
    decoded = np.asarray(codec.decode(data, model=tiny_bundle))
    b = made["pictures"]["b.png"]
    assert b["bytes"][2] == len(data) and b["ms_ssim"] == [None] * 4
    assert b["bpp"][2] == pytest.approx(bits_per_pixel(len(data), 90, 70), abs=1e-5)
    assert b["psnr"][2] == pytest.approx(psnr(original, decoded), abs=1e-4)
    assert made["psnr"][2] == pytest.approx((b["psnr"][2] + made["pictures"]["a.png"]["psnr"][2]) / 2, abs=1e-3)
    assert made["ms_ssim"][2] == pytest.approx(made["pictures"]["a.png"]["ms_ssim"][2], abs=1e-4)
    assert f"{made['bpp'][3]:.4f}" in out


def test_bd_rate_against_a_curve_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder), "--qp", "0,20,40,60", "--json", "out.json", "--quiet"]) == 0
    made = json.loads(Path("out.json").read_text())
    twice = {"bpp": [2 * rate for rate in made["bpp"]], "psnr": made["psnr"]}
    Path("twice.json").write_text(json.dumps({"kodak": {"a": twice}}))
    against = ["--against", "out.json", "--against", "twice.json:kodak/a"]
    assert main(["evaluate", str(folder), "--qp", "0,20,40,60", *against]) == 0
    out, _ = capsys.readouterr()
    assert "BD-rate against out.json: +0.00 %" in out.replace("-0.00", "+0.00")
    assert "BD-rate against twice.json:kodak/a: -50.00 % over" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--qp", "0,64"], 2, "levels in 0..63"),
        (["--qp", "many"], 2, "levels in 0..63"),
        (["--qp", "1,2,3", "--against", "curve.json"], 1, "at least 4 levels"),
        (["--against", "several.json"], 1, "name one as several.json:NAME"),
        (["--against", "nothing.json"], 1, "has no curve"),
        (["--against", "absent.json"], 1, "absent.json"),
        (["--json", "no/such/folder.json"], 1, "there is no directory"),
        (["--model", "absent"], 4, "no model absent"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = {"bpp": [0.1, 0.2, 0.4, 0.8], "psnr": [25, 28, 31, 34]}
    Path("curve.json").write_text(json.dumps(curve))
    Path("several.json").write_text(json.dumps({"kodak": {"a": curve, "b": curve}}))
    Path("nothing.json").write_text("{}")
    assert main(["evaluate", str(folder), *options]) == code
    _, err = capsys.readouterr()
    assert err.startswith("codec: error: ") and err.count("\n") == 1 and message in err


def test_a_folder_without_pictures(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path), "--model", str(tiny_bundle), "--qp", "20"]) == 1
    assert "has no picture that can be coded" in capsys.readouterr().err


def test_read_curve_knows_the_usual_layouts(tmp_path: Path) -> None:
    file = tmp_path / "vtm.json"
    file.write_text(json.dumps({"name": "VTM", "results": {"bpp": [0.1], "psnr-rgb": [30.0], "ms-ssim-rgb": [0.9]}}))
    assert read_curve(file) == {"bpp": [0.1], "psnr": [30.0], "source": "VTM"}
    file.write_text(json.dumps({"kodak": {"x/y": {"bpp": [0.2], "psnr": [31.0], "source": "a page"}}}))
    assert read_curve(f"{file}:kodak/x/y") == {"bpp": [0.2], "psnr": [31.0], "source": "a page"}
    file.write_text("not JSON")
    with pytest.raises(ValueError, match="is not JSON"):
        read_curve(file)
