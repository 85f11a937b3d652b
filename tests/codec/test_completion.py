"""Completion as a shell asks for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from codec import completion
from codec.cli import cli, main
from tests.codec.commands import ROOT


def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str, words: str) -> list[str]:
    """What the command answers for a line with the cursor at its end."""
    parts = words.split(" ")
    monkeypatch.setenv(completion.VARIABLE, f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", parts[-1] if shell == "fish" else str(len(parts) - 1))
    assert main([]) == 0
    return capsys.readouterr().out.split("\n")


def test_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "plain,encode" in asked(monkeypatch, capsys, "bash", "codec enc")
    everything = set(asked(monkeypatch, capsys, "bash", "codec "))
    assert everything >= {f"plain,{name}" for name in cli.commands}


def test_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "plain,--threads" in asked(monkeypatch, capsys, "bash", "codec decode --th")
    assert {"plain,native", "plain,onnx"} <= set(asked(monkeypatch, capsys, "bash", "codec decode --runtime "))
    assert "plain,--effort\t" in "\n".join(asked(monkeypatch, capsys, "fish", "codec encode --eff"))
    assert "--effort" in asked(monkeypatch, capsys, "zsh", "codec encode --eff")


def test_paths_are_the_shells_affair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = click.Command("show", params=[click.Argument(["source"], shell_complete=completion.paths)])
    monkeypatch.setitem(cli.commands, "show", command)
    assert asked(monkeypatch, capsys, "bash", "codec show pho")[0] == "file,pho"


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_ask_this_command(shell: str) -> None:
    text = completion.script(shell, cli)
    assert f"{completion.VARIABLE}={shell}_complete" in text and "_codec_completion" in text


def test_another_shell() -> None:
    with pytest.raises(ValueError, match="'tcsh', not one of bash, zsh, fish"):
        completion.script("tcsh", cli)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_in_bash(tmp_path: Path) -> None:
    program = tmp_path / "codec"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m codec.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(completion.script("bash", cli))
    line = (
        "source script && complete -p codec && COMP_WORDS=(codec enc) && COMP_CWORD=1 && _codec_completion codec &&"
        ' echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", line], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    registered, completed = done.stdout.splitlines()
    assert registered.endswith("-F _codec_completion codec") and completed == "encode"
