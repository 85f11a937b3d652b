"""Photographs -> crops. Pictures stay in memory as uint8; every crop is cut, turned and flipped on the fly."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HELD_OUT = 16  # every so-many-th picture, by name, is never trained on: checkpoints are judged by these


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files in the folder and in its *.tar archives, in order."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() else None
                    if stream:
                        yield member.name, stream.read()
        else:
            yield str(path), path.read_bytes()


def _decode(item: tuple[str, bytes]) -> tuple[str, np.ndarray | None]:
    name, data = item
    try:
        return name, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        print(f"skipped {name}: {error}", file=sys.stderr)
        return name, None


def load_pictures(folder: Path, smallest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All pictures of a folder (files and tar archives) as uint8 (height, width, 3): (for training, held out).

    Broken files and those with a side below `smallest` are named and left out; fewer than 8 pictures are an error.
    """
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(_decode, _files(folder)))
    small = [n for n, p in decoded if p is not None and min(p.shape[:2]) < smallest]
    for name in small:
        print(f"skipped {name}: smaller than {smallest} pixels", file=sys.stderr)
    pictures = [p for n, p in sorted(decoded, key=lambda d: d[0]) if p is not None and min(p.shape[:2]) >= smallest]
    if len(pictures) < 8:
        raise SystemExit(
            f"{folder} has {len(pictures)} usable pictures; training needs at least 8 with sides of {smallest} pixels"
        )
    held_out = pictures[::HELD_OUT]
    return [p for i, p in enumerate(pictures) if i % HELD_OUT], held_out


def crops(pictures: list[np.ndarray], count: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random crops, a quarter of them from pictures reduced by two where these are large enough, turned and flipped:
    uint8 (count, size, size, 3)."""
    batch = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        p = pictures[rng.integers(len(pictures))]
        step = 2 if min(p.shape[:2]) >= 2 * size and rng.random() < 0.25 else 1
        top, left = (int(rng.integers(side - step * size + 1)) for side in p.shape[:2])
        c = p[top : top + step * size, left : left + step * size]
        if step == 2:
            c = (c.reshape(size, 2, size, 2, 3).astype(np.uint16).sum((1, 3), dtype=np.uint16) + 2) >> 2
        c = np.rot90(c, rng.integers(4))
        batch[i] = c[:, ::-1] if rng.random() < 0.5 else c
    return torch.from_numpy(batch)


def to_signal(x: Tensor) -> Tensor:
    """uint8 -> float in -1..1, the unit of the transforms."""
    return x.float() / 127.5 - 1
