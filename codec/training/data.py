"""Photographs -> crops. Pictures stay as uint8 in the memory of the device; crops are cut, turned and flipped there."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, ...
        why = "it is no picture" if isinstance(error, Image.UnidentifiedImageError) else error
        print(f"skipped {name}: {why}", file=sys.stderr)
        return name, None


def load_pictures(folder: Path, smallest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All pictures of a folder (files and tar archives) as uint8 (height, width, 3): (for training, held out).

    Broken files and those with a side below `smallest` are named and left out. Raises SystemExit for fewer than 8
    pictures and for what is no folder.
    """
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not a folder")
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


REDUCED = 1 / 3  # of the batches


class Photos:
    """Pictures in one uint8 tensor on the device that trains, each also reduced by two where that leaves enough."""

    def __init__(self, pictures: list[np.ndarray], smallest: int, device: torch.device | str = "cpu"):
        halves = [_half(p) for p in pictures if min(p.shape[:2]) >= 2 * smallest]
        every = pictures + halves
        self.sizes = np.array([p.shape[:2] for p in every])
        self.starts = np.cumsum([0, *(h * w for h, w in self.sizes)])[:-1]
        # A reduced picture is drawn a third as often as a full one.
        shares = np.array([1.0] * len(pictures) + [1 / 3] * len(halves))
        self.chances = shares / shares.sum()
        self.smallest = smallest
        self.pixels = torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in every])).to(device)

    def crops(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """Random crops, turned and flipped: uint8 (count, size, size, 3). All chance is in rng.

        A third of the batches are larger crops, up to twice as large, that are reduced to this size.
        """
        largest = min(2 * size, self.smallest)
        taken = int(rng.integers(size, largest + 1)) if rng.random() < REDUCED else size
        x = self._cut(count, taken, rng)
        if taken == size:
            return x
        planes = x.permute(0, 3, 1, 2).float()
        reduced = F.interpolate(planes, (size, size), mode="bicubic", antialias=True, align_corners=False)
        return reduced.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _cut(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        which = rng.choice(len(self.sizes), count, p=self.chances)
        corner = [rng.integers(self.sizes[which, axis] - size + 1) for axis in (0, 1)]
        width = self.sizes[which, 1]
        start = self.starts[which] + corner[0] * width + corner[1]
        table = torch.from_numpy(np.stack([start, width, *rng.integers(0, 2, (3, count))]))
        if self.pixels.is_cuda:
            table = table.pin_memory().to(self.pixels.device, non_blocking=True)  # nothing waits for it here
        start, width, flip_rows, flip_columns, swap = (t[:, None, None] for t in table)
        index = torch.arange(size, device=self.pixels.device)
        rows, columns = (torch.where(f == 1, size - 1 - index, index) for f in (flip_rows, flip_columns))
        upright = rows.mT * width + columns
        turned = rows * width + columns.mT
        return self.pixels[start + torch.where(swap == 1, turned, upright)]


def _half(p: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) -> means of 2x2 pixels."""
    h, w = p.shape[0] // 2, p.shape[1] // 2
    total = p[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).sum((1, 3), dtype=np.uint16)
    return ((total + 2) >> 2).astype(np.uint8)


def to_signal(x: Tensor) -> Tensor:
    """uint8 -> float in -1..1, the unit of the transforms."""
    return x.float() / 127.5 - 1
