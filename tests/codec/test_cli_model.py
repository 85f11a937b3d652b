"""The `codec` command with the network that ships."""

import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from codec.cli import main
from tests.codec.commands import fails, need_bundle, python


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A .mlic file of 96x64 pixels at QP 20."""
    folder = tmp_path_factory.mktemp("sample")
    rows, columns = np.mgrid[0:64, 0:96]
    rgb = np.stack([rows * 4, columns * 2, (rows + columns) % 64], axis=2).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "a.png")
    assert main(["encode", str(folder / "a.png"), str(folder / "a.mlic"), "--qp", "20", "--quiet"]) == 0
    return (folder / "a.mlic").read_bytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@need_bundle
def test_round_trip_through_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "b.mlic", "-q", "80"]) == 0
    assert ", q 80 (qp 50), " in capsys.readouterr().err
    assert main(["verify", "b.mlic"]) == 0
    assert main(["decode", "b.mlic", "c.png"]) == 0
    assert "b.mlic -> c.png: 96x64, " in capsys.readouterr().err
    first, last = pixels(Path("a.png").read_bytes()), pixels(Path("c.png").read_bytes())
    assert first.shape == last.shape and np.abs(first.astype(int) - last).mean() < 12
    assert sorted(os.listdir()) == ["a.png", "b.mlic", "c.png", "orphan.mlic"]


@need_bundle
def test_round_trip_through_pipes(
    here: Path, sample: bytes, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(argv: list[str], data: bytes) -> bytes:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(argv) == 0
        return capsysbinary.readouterr().out

    assert piped(["encode", "-", "-", "--qp", "20"], Path("a.png").read_bytes()) == sample
    assert b'"width": 96' in piped(["info", "-", "--json"], sample)
    piped(["verify", "-"], sample)
    decoded = piped(["decode", "-", "-"], sample)
    Path("b.mlic").write_bytes(sample)
    assert main(["decode", "b.mlic", "b.ppm"]) == 0
    assert (pixels(decoded) == pixels(Path("b.ppm").read_bytes())).all()


@need_bundle
def test_the_number_of_threads_changes_nothing(here: Path, sample: bytes) -> None:
    for threads in ("1", "2"):
        assert main(["encode", "a.png", f"{threads}.mlic", "--qp", "20", "-j", threads]) == 0
        assert Path(f"{threads}.mlic").read_bytes() == sample
        assert main(["verify", f"{threads}.mlic", "-j", threads]) == 0


@need_bundle
def test_grey_stays_grey(here: Path) -> None:
    Image.open("a.png").convert("L").save("g.png")
    assert main(["encode", "g.png", "g.mlic"]) == 0
    assert main(["decode", "g.mlic", "h.png"]) == 0
    assert Image.open("h.png").mode == "L"


@need_bundle
def test_info_names_the_model(here: Path, sample: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.mlic").write_bytes(sample)
    assert main(["info", "b.mlic", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["model_id"]) in [(m["name"], m["model_id"][:8]) for m in codec.installed_models()]
    assert facts["bytes"] == len(sample) and facts["bpp"] == pytest.approx(8 * len(sample) / (96 * 64), rel=0.01)


@need_bundle
@pytest.mark.parametrize("command", ["verify b.mlic", "decode b.mlic b.png", "info b.mlic"])
@pytest.mark.parametrize("damage", ["flip", "cut", "append"])
def test_a_damaged_payload(
    here: Path, sample: bytes, capsys: pytest.CaptureFixture[str], command: str, damage: str
) -> None:
    flipped = sample[:-3] + bytes([sample[-3] ^ 16]) + sample[-2:]
    Path("b.mlic").write_bytes({"flip": flipped, "cut": sample[:-3], "append": sample + b"\0"}[damage])
    start = time.perf_counter()
    fails(capsys, 5, *command.split())
    assert time.perf_counter() - start < 1


@need_bundle
def test_decoding_never_loads_torch(here: Path, sample: bytes) -> None:
    Path("b.mlic").write_bytes(sample)
    script = (
        "import sys; from codec.cli import main;"
        "code = main(['encode', 'a.png', 'c.mlic']) or main(['decode', 'b.mlic', 'b.png']);"
        "code = code or main(['verify', 'b.mlic']);"
        "sys.exit(code or [m for m in ('torch', 'compressai') if m in sys.modules] != [])"
    )
    done = python(script)
    assert done.returncode == 0, done.stderr


@need_bundle
def test_any_number_of_threads(here: Path) -> None:
    assert main(["encode", "a.png", "one.mlic", "-j", "1", "--quiet"]) == 0
    assert main(["encode", "a.png", "many.mlic", "-j", "99999999999", "--quiet"]) == 0
    assert Path("one.mlic").read_bytes() == Path("many.mlic").read_bytes()


@need_bundle
def test_the_torch_runtime_without_torch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = """
import sys
sys.modules["torch"] = None
from codec.cli import main
main(["encode", "a.png", "a.mlic", "--quiet"])
sys.exit(main(["decode", "a.mlic", "b.png", "--runtime", "torch"]))
"""
    run = python(script, cwd=here)
    assert run.returncode == 1 and run.stderr.count("\n") == 1 and "needs PyTorch" in run.stderr


@need_bundle
def test_targets(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "b.mlic", "--target-size", "1.2k"]) == 0
    assert Path("b.mlic").stat().st_size <= 1200
    assert main(["encode", "a.png", "b.mlic", "--target-bpp", "1.5"]) == 0
    assert 8 * Path("b.mlic").stat().st_size <= 1.5 * 96 * 64
    assert main(["encode", "a.png", "b.mlic", "--target-psnr", "25"]) == 0
    capsys.readouterr()
    Path("b.mlic").unlink()
    message = fails(capsys, 6, "encode", "a.png", "b.mlic", "--target-size", "40")
    assert "40 bytes is out of reach: the least is" in message and message.endswith("at --qp 0")
    assert "99.0 dB is out of reach: the most is" in fails(
        capsys, 6, "encode", "a.png", "b.mlic", "--target-psnr", "99"
    )


@need_bundle
def test_regions_and_previews(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "b.mlic", "--tile", "64"]) == 0
    assert main(["decode", "b.mlic", "c.ppm"]) == main(["decode", "b.mlic", "d.ppm", "--crop", "50,10,40,30"]) == 0
    assert (pixels(Path("d.ppm").read_bytes()) == pixels(Path("c.ppm").read_bytes())[10:40, 50:90]).all()
    capsys.readouterr()
    assert "96x64" in fails(capsys, 1, "decode", "b.mlic", "e.png", "--crop", "60,10,40,30")
    Path("cut.mlic").write_bytes(Path("b.mlic").read_bytes()[:-200])
    fails(capsys, 5, "decode", "cut.mlic", "e.png")
    assert main(["decode", "cut.mlic", "e.png", "--preview"]) == 0
    assert pixels(Path("e.png").read_bytes()).shape == (64, 96, 3)


@need_bundle
def test_all_that_belongs_to_a_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.open("a.png").convert("RGBA")
    image.putalpha(200)
    image.save("rgba.png", icc_profile=b"a profile")
    assert main(["encode", "rgba.png", "b.mlic"]) == 0 and main(["decode", "b.mlic", "c.webp"]) == 0
    with Image.open("c.webp") as shown:
        assert shown.mode == "RGBA" and shown.info["icc_profile"] == b"a profile"
        assert set(np.unique(np.asarray(shown)[:, :, 3])) == {200}
    assert main(["info", "b.mlic"]) == 0
    assert "metadata:       ['icc']" in capsys.readouterr().out
    assert "holds no alpha channel" in fails(capsys, 1, "decode", "b.mlic", "c.jpg")
    assert main(["decode", "b.mlic", "d.png", "--metadata", "none"]) == 0
    assert "icc_profile" not in Image.open("d.png").info
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save("deep.png")
    capsys.readouterr()
    assert main(["encode", "deep.png", "e.mlic"]) == main(["decode", "e.mlic", "f.png"]) == 0
    assert "reduced to 8 bits; decoding gives 16 again" in capsys.readouterr().err
    assert Image.open("f.png").mode == "I;16"
