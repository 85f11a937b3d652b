"""The README's tables follow the results, and a README that does not is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.readme import ROOT, TABLES, coder, learning, main, process, table
from bench.report import row

SOURCE: dict[str, Any] = {
    "machine": {"cpu": "CPU", "cores": 2, "platform": "Linux"},
    "commit": "abc1234",
    "command": "python -m bench rd",
    "pictures": 24,
}
RD: dict[str, Any] = SOURCE | {
    "codecs": [
        {"name": "ours", "settings": "mlicv2-s", "version": "abc", "absent": None},
        {"name": "webp", "settings": "method 6", "version": "webp 1.6.0", "absent": None},
        {"name": "avif", "settings": "", "version": "", "absent": "not here"},
    ],
    "published": {"vtm": {}},
    "rules": ["24 pictures of kodak."],
    "rows": [
        row("rd/ours/qp18/bpp", 0.41234, "bit/pixel"),
        row("rd/ours/qp18/psnr", 31.5, "dB"),
        row("rd/ours/qp18/encode_s", 0.5, "s"),
        row("rd/ours/qp18/decode_s", 0.6, "s"),
        row("rd/ours/bdrate/webp", -12.34, "%"),
        row("rd/ours/bdrate/webp/from", 27, "dB"),
        row("rd/ours/bdrate/webp/to", 38, "dB"),
        row("rd/webp/bdrate/vtm", 78.2, "%"),
    ],
}
LEARNING = SOURCE | {"rows": [row("learning/1600/webp", 26.6, "%"), row("learning/9000/webp", -7.1, "%")]}
PROCESS = SOURCE | {
    "rows": [
        row("process/encode/wall", 0.9, "s"),
        row("process/decode/wall", 0.8, "s"),
        row("process/peak", 229, "MiB"),
    ]
}
CODER = SOURCE | {
    "rows": [
        row("coder/ours/avx2/codec-like/encode", 512.3, "Msym/s"),
        row("coder/ours/avx2/codec-like/decode", 498.7, "Msym/s"),
        row("coder/ours/avx2/uniform/encode", 120.0, "Msym/s"),
        row("coder/ours/avx2/uniform/decode", 230.0, "Msym/s"),
        row("coder/ours/overhead/codec-like", 0.052, "%"),
        row("coder/ours/overhead/uniform", 0.033, "%"),
        row("coder/torchac/int16/codec-like/encode", None, "Msym/s"),
        row("coder/torchac/int16/codec-like/decode", None, "Msym/s"),
        row("coder/share/encode", 0.61, "%"),
        row("coder/share/decode", 0.42, "%"),
    ]
}


def test_tables_say_what_the_rows_say() -> None:
    text = table(RD)
    assert "| 18 | 0.412 | 31.50 | 0.50 | 0.60 |" in text
    assert "| WebP | +78.2 % | -12.3 % | 27.0 to 38.0 dB |" in text
    assert "| AVIF (aom) |  |  |  |" in text and "JPEG" not in text
    assert "* 24 pictures of kodak." in text and "webp: method 6, webp 1.6.0." in text
    assert "`python -m bench rd`, commit abc1234, CPU, 2 cores, Linux" in text
    assert "| 1,600 |  | +26.6 % |  |  |" in learning(LEARNING) and "| 9,000 |  | -7.1 % |" in learning(LEARNING)
    assert "encode 0.90 s, decode 0.80 s, at most 229 MiB" in process(PROCESS)
    assert "| ours, AVX2 | 512, 499 | 120, 230 | +0.05 %, +0.03 % |" in coder(CODER) and "torchac" not in coder(CODER)
    assert "the coder takes 0.6 % and 0.4 %" in coder(CODER)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, result in (("rd", RD), ("learning", LEARNING), ("process", PROCESS), ("coder", CODER)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    for name in (
        "big",
        "batch",
        "large",
        "ablation",
        "gemm",
        "l1norm",
        "quant-accuracy",
        "quant-train",
        "nas-sr",
        "nas-step",
        "nas-synthesis",
        "fpga",
    ):
        (tmp_path / f"{name}.json").write_text((ROOT / "results" / f"{name}.json").read_text())
    return tmp_path


def test_writes_then_checks(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = results / "README.md"
    places = "\n".join(f"<!-- {marker} -->\nold\n<!-- /{marker} -->" for marker in TABLES)
    readme.write_text(f"# Title\n\n{places}\n\nThe end.\n")
    options = ["--readme", str(readme), "--results", str(results)]
    assert main([*options, "--check"]) == 1
    assert "out of date" in capsys.readouterr().err and "old" in readme.read_text()
    assert main(options) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("The end.\n") and table(RD) in text
    assert main([*options, "--check"]) == 0


@pytest.mark.parametrize("text", ["none", "<!-- /rd-table --><!-- rd-table -->", "<!-- rd-table --><!-- rd-table -->"])
def test_refuses_a_readme_without_place(results: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    readme = results / "README.md"
    readme.write_text(text)
    assert main(["--readme", str(readme), "--results", str(results)]) == 1
    assert "<!-- rd-table -->" in capsys.readouterr().err


def test_our_readme_is_up_to_date() -> None:
    if not (ROOT / "results" / "rd.json").exists():
        pytest.skip("no results are committed")
    assert main(["--check"]) == 0
