"""Ctrl-C and SIGTERM that are not lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """The signals that came, even where what their handlers raised is lost: nanobind drops it when it takes arrays."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if here}
    ours = {number: partial(_note, came, handler) for number, handler in handlers.items() if callable(handler)}
    for number, note in ours.items():
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, handlers[number])


def _note(came: list[int], handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    came.append(number)
    handler(number, frame)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """They wait until the end of this."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
