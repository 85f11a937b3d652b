"""Ctrl-C and SIGTERM that are not lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def noted(held: bool = False) -> Iterator[list[int]]:
    """The signals that came, even where what their handlers raised is lost: nanobind drops it when it takes arrays.

    If `held`, their handlers are not called.
    """
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if here}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if not held:
            ours[signal.Signals(number)](number, frame)

    for number in ours:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """They wait until the end of this, and do not reach the processes that it starts."""
    came: list[int] = []
    try:
        # Both: a mask is of this thread only, and Python runs handlers here whichever thread the signal came to.
        with noted(held=True) as came, _masked():
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _masked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
