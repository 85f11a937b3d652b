"""Pictures and text to train on, whole in memory: CIFAR-10 from files, and the sources of Python's library."""

from __future__ import annotations

import io
import pickle
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIDE = 32
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training part


class NoData(ValueError):
    """The named data are not there, or are something else."""


@dataclass
class Examples:
    """train and test: pictures uint8 (n, 32, 32, 3) and labels int64, or text as int64 (n,) and no labels."""

    train: NDArray
    train_labels: NDArray
    test: NDArray
    test_labels: NDArray
    classes: int


def load(source: str) -> Examples:
    """cifar10:FOLDER, text:FOLDER or text: for Python's own sources. Raises NoData."""
    kind, _, where = source.partition(":")
    if kind == "text":
        return text(Path(where or sysconfig.get_paths()["stdlib"]))
    if kind != "cifar10" or not where:
        raise NoData(f"{source}: data are cifar10:FOLDER or text:FOLDER")
    folder = Path(where)
    if not folder.is_dir():
        raise NoData(f"{where} is not a folder")
    if (folder / "cifar-10-batches-py").is_dir():
        return _pickled(folder / "cifar-10-batches-py")
    if (folder / "data_batch_1").is_file():
        return _pickled(folder)
    if (folder / "labels.npz").is_file():
        return _sheets(folder)
    raise NoData(f"{where} holds neither cifar-10-batches-py nor sheets with labels.npz")


@contextmanager
def _read(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes libraries raise, as NoData that names it."""
    try:
        yield
    except (
        OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, SyntaxError, pickle.UnpicklingError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise NoData(f"{path}: {error or type(error).__name__}") from error


def _labels(values: Any, count: int) -> NDArray:
    """Raises ValueError unless they are `count` integers of 0..9."""
    labels = np.asarray(values)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < 10)).all():
        raise ValueError(f"{count} labels of 0 to 9 are needed")
    return labels.astype(np.int64)


class _Plain(pickle.Unpickler):
    """Arrays and containers only: nothing of a file is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in {("numpy", n) for n in ("_reconstruct", "ndarray", "dtype")}:
            return super().find_class(module, name)
        raise NoData(f"a pickle of CIFAR-10 does not hold {module}.{name}")


def _pickled(folder: Path) -> Examples:
    """The distributed form: five batches and a test batch of rows of 3,072 bytes."""

    def part(names: list[str]) -> tuple[NDArray, NDArray]:
        pictures, labels = [], []
        for name in names:
            with _read(folder / name):
                batch = _Plain(io.BytesIO((folder / name).read_bytes()), encoding="bytes").load()
                pictures.append(np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
                labels.append(_labels(batch[b"labels"], len(pictures[-1])))
        return np.ascontiguousarray(np.concatenate(pictures)), np.concatenate(labels)

    return Examples(*part([f"data_batch_{i}" for i in range(1, 6)]), *part(["test_batch"]), 10)


def _sheets(folder: Path) -> Examples:
    """Pictures of 25 rows of 40, train-NN.* and test-NN.*, in the order of labels.npz."""

    def part(name: str) -> tuple[NDArray, NDArray]:
        files = sorted(folder.glob(f"{name}-*"))
        if not files:
            raise NoData(f"{folder} has no sheets {name}-*")
        pictures = []
        for f in files:
            with _read(f), Image.open(f) as sheet:
                rows = np.asarray(sheet.convert("RGB"))
                made = rows.reshape(rows.shape[0] // SIDE, SIDE, rows.shape[1] // SIDE, SIDE, 3)
                pictures.append(made.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3))
        made = np.concatenate(pictures)
        with _read(folder / "labels.npz"):
            return made, _labels(np.load(folder / "labels.npz")[name][: len(made)], len(made))

    return Examples(*part("train"), *part("test"), 10)


def text(folder: Path) -> Examples:
    """The .py files directly in a folder as one text in ASCII, other characters left out; every tenth file tests."""
    files = sorted(folder.glob("*.py"))
    if len(files) < 10:
        raise NoData(f"{folder} has {len(files)} .py files: 10 are needed")
    parts: list[list[bytes]] = [[], []]
    for i, f in enumerate(files):
        parts[i % 10 == 9].append(f.read_bytes())
    bytes_of = [np.frombuffer(b"".join(p), np.uint8) for p in parts]
    train, test = (b[b < 128].astype(np.int64) for b in bytes_of)
    if min(len(train), len(test)) < 1000:
        raise NoData(f"{folder}: its .py files, or every tenth of them, have less than 1,000 characters")
    none = np.empty(0, np.int64)
    return Examples(train, none, test, none, 128)


def to_signal(pictures: NDArray) -> Tensor:
    """uint8 (n, 32, 32, 3) -> float32 (n, 3, 32, 32), channels last in memory, of mean 0 and deviation 1."""
    x = (torch.from_numpy(pictures).float() / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    return x.permute(0, 3, 1, 2)


def augmented(pictures: NDArray, rng: np.random.Generator) -> NDArray:
    """Each shifted by up to four pixels, with black around, and mirrored or not."""
    n = len(pictures)
    framed = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)))
    y, x = rng.integers(0, 9, (2, n))
    columns = x[:, None] + np.arange(SIDE)
    mirrored = rng.integers(0, 2, n).astype(bool)
    columns[mirrored] = columns[mirrored, ::-1]
    return framed[np.arange(n)[:, None, None], (y[:, None] + np.arange(SIDE))[:, :, None], columns[:, None, :]]
