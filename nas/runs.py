"""A folder of a search or a training: what it was asked for, its log, and a checkpoint to go on from."""

from __future__ import annotations

import argparse
import io
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from codec.cluster import connected
from codec.errors import CodecError
from codec.training.data import load_pictures
from quant.training import replace
from rate.options import one_line

CHECKPOINT, CONFIG, LOG = "checkpoint.pt", "config.json", "log.jsonl"


class Resumable(Protocol):
    """What has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that goes on needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


def save(path: Path, state: Any) -> None:
    """By torch.save; a whole file or none."""
    written = io.BytesIO()
    torch.save(state, written)
    replace(path, written.getvalue())


def save_figure(path: Path, figure: Any) -> None:
    """A figure of matplotlib as PNG; a whole file or none."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    replace(path, written.getvalue())


def read(path: Path) -> Any:
    """What torch.save wrote. Raises ValueError naming the file."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever bytes are taken for
        raise ValueError(f"{path} is damaged ({type(error).__name__}): remove it to begin again") from error


def check_outputs(*paths: Path | None) -> None:
    """Raises ValueError now for what would fail after the work."""
    given = [p for p in paths if p is not None]
    if len({p.resolve() for p in given}) < len(given):
        raise ValueError("outputs are different files")
    for p in given:
        if p.is_dir() or not p.name or not p.resolve().parent.is_dir():
            raise ValueError(f"{p} cannot be written: name a file in a folder that is there")


class Folder:
    """Made if absent, and locked. Raises ValueError where it is of something else than `config` says."""

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path, self.config = path, json.dumps(config, indent=1, default=str) + "\n"
        if not path.name:
            raise ValueError("--out is a folder to make")
        path.mkdir(parents=True, exist_ok=True)
        self.lock = (path / ".lock").open("w")
        try:
            import fcntl

            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError as error:
            raise ValueError(f"another process works in {path}") from error
        file = path / CONFIG
        if file.exists() and file.read_text() != self.config:
            raise ValueError(f"{path} was begun with {_difference(file, config)}: give this a folder of its own")

    def save(self, run: Resumable) -> None:
        """The checkpoint: whenever this is killed, the one before or the new one is there."""
        replace(self.path / CONFIG, self.config)
        save(self.path / CHECKPOINT, run.state_dict())

    def load(self, run: Resumable) -> bool:
        """Whether there was a checkpoint to go on from. Raises ValueError for one that is damaged or of another run."""
        file = self.path / CHECKPOINT
        if not file.exists():
            return False
        state = read(file)
        try:
            run.load_state_dict(state)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is of another run: remove it to begin again") from error
        return True

    def log(self, rows: list[dict[str, Any]]) -> None:
        """All rows so far."""
        replace(self.path / LOG, "".join(json.dumps(r) + "\n" for r in rows))


def _difference(file: Path, config: dict[str, Any]) -> str:
    try:
        before, now = json.loads(file.read_text()), json.loads(json.dumps(config, default=str))
        names = [n for n in now if before.get(n) != now[n]]
    except (json.JSONDecodeError, AttributeError):
        return "what its config.json no longer says"
    return "other options: " + ", ".join(names)


def trials(work: Any, given: list[Any], jobs: int, cluster: str | None = None) -> Iterator[Any]:
    """work(one) of each, in order, in so many processes, or on the Ray cluster at an address. work is a function of a
    module, which other processes can import. A trial whose machine fails begins again elsewhere."""
    if cluster is not None:
        yield from _on_cluster(work, given, cluster)
    elif jobs <= 1 or len(given) == 1:
        yield from map(work, given)
    else:
        yield from _in_processes(work, given, jobs)


def _in_processes(work: Any, given: list[Any], jobs: int) -> Iterator[Any]:
    pool = ProcessPoolExecutor(jobs, get_context("spawn"))
    try:
        for found in [pool.submit(work, one) for one in given]:
            yield found.result()
    except BrokenProcessPool as error:
        raise ValueError("a process of a trial died; the same command goes on") from error
    except BaseException:
        for process in list(pool._processes.values()):  # they would go on to the end of their trials
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        pool.shutdown()


def _on_cluster(work: Any, given: list[Any], address: str) -> Iterator[Any]:
    ray = connected(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=10)(work)
        for one in [remote.remote(one) for one in given]:
            yield ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        ray.shutdown()


def number(text: str) -> float:
    """4.6G, 300M, 12k or a plain number, more than 0. Raises ValueError."""
    factors = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    found = float(text[:-1]) * factors[text[-1]] if text[-1:] in factors else float(text)
    if not 0 < found < math.inf:
        raise ValueError(f"{text} is not more than 0")
    return found


def photographs(folder: Path, smallest: int) -> list[NDArray[np.uint8]]:
    """Those to train on: codec.training.data holds others out. Raises ValueError."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: --data holds at least 8 pictures, or tar archives of pictures")
    try:
        return load_pictures(folder, smallest)[0]
    except SystemExit as error:
        raise ValueError(str(error)) from error


def check_device(device: str) -> None:
    """Raises ValueError where it is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} is not there: {str(error).splitlines()[0]}") from error


def check_finite(args: argparse.Namespace, **least: float) -> None:
    """Raises ValueError for numbers below their least, or that are none."""
    for name, low in least.items():
        for value in v if isinstance(v := getattr(args, name), list) else [v]:
            if value is not None and not low <= value < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} is at least {low:g}, not {value}")


def use_threads(args: argparse.Namespace) -> None:
    """Of a trial: what was asked for, or its share of torch's own."""
    if threads := args.threads or (max(1, torch.get_num_threads() // args.jobs) if args.jobs > 1 else 0):
        torch.set_num_threads(threads)


def ended(name: str, work: Callable[[], None]) -> int:
    """The exit status of a command: 0, 1 with one line for what went wrong, 130 where it was stopped."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, even where that is ignored
    try:
        work()
    except (CodecError, FloatingPointError, ImportError, OSError, ValueError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; the same command goes on from the last whole epoch", file=sys.stderr)
        return 130
    return 0
