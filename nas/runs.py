"""A folder of a search or a training: what it was asked for, its log, and a checkpoint to go on from."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch

CHECKPOINT, CONFIG, LOG = "checkpoint.pt", "config.json", "log.jsonl"


class Resumable(Protocol):
    """What has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that goes on needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


def write(path: Path, text: str) -> None:
    """A whole file or none."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


class Folder:
    """Made if absent. Raises ValueError where it is of something else than `config` says."""

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        text, file = json.dumps(config, indent=1, default=str) + "\n", path / CONFIG
        if file.exists() and file.read_text() != text:
            raise ValueError(f"{path} was begun with other options: give this a folder of its own")
        write(file, text)

    def save(self, run: Resumable) -> None:
        """The checkpoint: whenever this is killed, the one before or the new one is there."""
        temporary = self.path / f"{CHECKPOINT}.tmp"
        with temporary.open("wb") as f:
            torch.save(run.state_dict(), f)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(self.path / CHECKPOINT)

    def load(self, run: Resumable) -> bool:
        """Whether there was a checkpoint to go on from. Raises ValueError for one that cannot be read."""
        file = self.path / CHECKPOINT
        if not file.exists():
            return False
        try:
            run.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} cannot be read ({error}): remove it to begin again") from error
        return True

    def log(self, rows: list[dict[str, Any]]) -> None:
        """All rows so far."""
        write(self.path / LOG, "".join(json.dumps(r) + "\n" for r in rows))


def trials(work: Any, given: list[Any], jobs: int, cluster: str | None = None) -> list[Any]:
    """work(one) of each, in order, in so many processes, or on the Ray cluster at an address. work is a function of a
    module, which other processes can import. A trial whose machine fails begins again elsewhere."""
    if cluster is not None:
        return _on_cluster(work, given, cluster)
    if jobs <= 1 or len(given) == 1:
        return [work(one) for one in given]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(pool.map(work, given))


def _on_cluster(work: Any, given: list[Any], address: str) -> list[Any]:
    try:
        import ray
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'narrowbit[cluster]'") from error
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=10)(work)
        return ray.get([remote.remote(one) for one in given])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        ray.shutdown()


def number(text: str) -> float:
    """4.6G, 300M, 12k or a plain number. Raises ValueError."""
    factors = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    return float(text[:-1]) * factors[text[-1]] if text[-1:] in factors else float(text)
