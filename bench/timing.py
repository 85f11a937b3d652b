"""Contenders in turn: what disturbs one disturbs all."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .report import Row, row


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many of torch's."""
    import torch

    kept = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(kept)


def keep_memory() -> None:
    """Let malloc keep what is freed, where it can, for the rest of the process.

    What is new to it comes a page at a time, which can take longer than the work, and differs from run to run.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # glibc's
        for option, value in ((-4, 0), (-1, -1), (-2, 1 << 28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)


def in_turn(work: Mapping[str, Callable[[], Any]], runs: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each of so many counted runs of every contender, one after the other."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs + warm):
        for name, f in work.items():
            start = time.perf_counter()
            f()
            times[name].append(time.perf_counter() - start)
    return {name: t[warm:] for name, t in times.items()}


def rows_of(prefix: str, times: Mapping[str, list[float]]) -> list[Row]:
    """Medians and least, in milliseconds."""
    rows = [row(f"{prefix}/{name}", 1e3 * statistics.median(t), "ms", 3) for name, t in times.items()]
    return rows + [row(f"{prefix}/{name}/least", 1e3 * min(t), "ms", 3) for name, t in times.items()]


def ratio(times: Mapping[str, list[float]], of: str, to: str) -> float:
    """How many times as long `of` takes, by medians."""
    return statistics.median(times[of]) / statistics.median(times[to])


def show(rows: list[Row]) -> None:
    """The ratios, on the terminal."""
    for r in rows:
        if r["unit"] == "times":
            print(f"{r['name']:54} {r['value']:>6} {r['unit']}")
