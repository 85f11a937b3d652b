"""What is wrong on a command line is said in one line, by every program."""

from importlib import import_module
from pathlib import Path

import pytest

from rate.options import one_line

PROGRAMS = (
    "bench.__main__", "bench.demo", "bench.readme", "codec.training.export", "codec.training.train", "nas.baselines",
    "nas.eval", "nas.export", "nas.search", "nas.synthesis", "nas.train", "quant.export", "quant.train",
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("given", [["--nonsense"], ["search", "--nonsense"]])
def test_one_line_says_what_is_wrong(program: str, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if not program.startswith("bench"):
        pytest.importorskip("torch")
    with pytest.raises(SystemExit) as stopped:
        import_module(program).main(given)
    said = capsys.readouterr()
    assert stopped.value.code == 2 and not said.out
    assert len(said.err.splitlines()) == 1 and ": error: " in said.err and said.err.endswith("--help`)\n")


def test_help_keeps_the_lines_of_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    module = import_module("nas.synthesis")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0 and module.__doc__.splitlines()[2] in capsys.readouterr().out


def test_an_error_of_a_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError) as missing:
        (tmp_path / "none").read_text()
    assert one_line(missing.value) == f"{tmp_path / 'none'}: no such file or directory"
    assert one_line(ValueError("a\n  b")) == "a b" and one_line(ValueError()) == "ValueError"
