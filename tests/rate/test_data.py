"""Finding the data, and what the package costs to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from rate import DataMissing, data_dir, published_curve


def test_the_option_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    (tmp_path / "here").mkdir()
    assert data_dir(str(tmp_path / "here")) == tmp_path / "here"


def test_missing_data_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_DATA", raising=False)
    with pytest.raises(DataMissing, match=r"--data DIR or set MLIC_DATA"):
        data_dir()
    with pytest.raises(DataMissing, match="--data names"):
        data_dir(tmp_path / "absent")
    with pytest.raises(DataMissing, match=r"rd_summary\.json"):
        published_curve(tmp_path, "a")


def test_published_curve(tmp_path: Path) -> None:
    (tmp_path / "rd").mkdir()
    text = '{"kodak": {"a": {"bpp": [1.0], "psnr": [30.0], "source": "x"}}}'
    (tmp_path / "rd" / "rd_summary.json").write_text(text)
    assert published_curve(tmp_path, "a")["psnr"] == [30.0]
    with pytest.raises(KeyError, match="'b' on 'kodak'"):
        published_curve(tmp_path, "b")


def test_importing_rate_needs_numpy_only() -> None:
    heavy = "{'torch', 'scipy', 'matplotlib', 'bjontegaard', 'pytorch_msssim', 'PIL'}"
    code = f"import sys, rate; print(*({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
