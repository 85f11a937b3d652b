"""The README's table follows the results, and a README that does not is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.readme import CLOSE, OPEN, main, table
from bench.report import row

RESULT: dict[str, Any] = {
    "suite": "kodak",
    "machine": {"cpu": "CPU", "cores": 2, "platform": "Linux"},
    "commit": "abc1234",
    "command": "python -m bench kodak",
    "pictures": 24,
    "peers": {"settings": {"webp": "method 6"}, "libraries": {"libwebp": "1.6.0"}},
    "rows": [
        row("kodak/ours/qp18/bpp", 0.41234, "bit/pixel"),
        row("kodak/ours/qp18/psnr", 31.5, "dB"),
        row("kodak/ours/qp18/encode", 0.5, "s"),
        row("kodak/ours/qp18/decode", 0.6, "s"),
        row("kodak/bd-rate/ours-vs-webp", -12.34, "%"),
        row("kodak/bd-rate/ours-vs-webp/from", 27, "dB"),
        row("kodak/bd-rate/ours-vs-webp/to", 38, "dB"),
        row("kodak/bd-rate/webp-vs-vtm", 78.2, "%"),
    ],
}


def test_table_says_what_the_rows_say() -> None:
    text = table(RESULT)
    assert "| 18 | 0.412 | 31.50 | 0.50 | 0.60 |" in text
    assert "| WebP | +78.2 % | -12.3 % | 27.0 to 38.0 dB |" in text
    assert "| AVIF |  |  |  |" in text
    assert "`python -m bench kodak`, commit abc1234, CPU, 2 cores, Linux" in text


def test_writes_then_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "kodak.json"
    readme.write_text(f"# Title\n\n{OPEN}\nold\n{CLOSE}\n\nThe end.\n")
    results.write_text(json.dumps(RESULT))
    options = ["--readme", str(readme), "--results", str(results)]
    assert main([*options, "--check"]) == 1
    assert "out of date" in capsys.readouterr().err and "old" in readme.read_text()
    assert main(options) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("The end.\n") and table(RESULT) in text
    assert main([*options, "--check"]) == 0


@pytest.mark.parametrize("text", ["no markers", f"{CLOSE}{OPEN}", f"{OPEN}{OPEN}{CLOSE}"])
def test_refuses_a_readme_without_place(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "kodak.json"
    readme.write_text(text)
    results.write_text(json.dumps(RESULT))
    assert main(["--readme", str(readme), "--results", str(results)]) == 1
    assert OPEN in capsys.readouterr().err
