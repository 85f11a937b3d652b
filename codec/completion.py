"""Completion of the `codec` command's own words in a shell, by click. The shell asks the command itself at every TAB.

source <(codec completion bash)                                       # in ~/.bashrc; zsh: the same in ~/.zshrc
codec completion fish > ~/.config/fish/completions/codec.fish
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "codec"
VARIABLE = "_CODEC_COMPLETE"  # where click's main() looks for a question, for a program of this name


def script(shell: str, command: click.Command) -> str:
    """What a shell has to run to complete `command` under the name of codec. Raises ValueError for another shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise ValueError(f"shell is {shell!r}, not one of {', '.join(SHELLS)}")
    return kind(command, {}, PROGRAM, VARIABLE).source()


def paths(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For `shell_complete=`: leaves the word to the shell's own completion of file names."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
