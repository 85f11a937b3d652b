"""Where the tiles of a picture lie.

Tiles are coded each by itself, but the transforms on both sides look over the border: g_a at the pixels around a tile,
g_s at the decoded latents around it. So no seam shows, and a region costs its tiles and their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from codec.container import BLOCK, MAX_PIECE, tiles
from codec.errors import BadInput

HALO = BLOCK  # pixels (our choice)
ONE_PIECE = 1 << 22  # pixels up to which a picture is coded whole unless asked otherwise (our choice)
SIDE = 1024  # of larger pictures' tiles, about

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


@dataclass(frozen=True)
class Grid:
    """tile: width and height of all tiles but those at the right and bottom border; None: the picture is one."""

    width: int
    height: int
    tile: tuple[int, int] | None

    @property
    def columns(self) -> int:
        return tiles(self.width, self.height, self.tile)[0]

    @property
    def rows(self) -> int:
        return tiles(self.width, self.height, self.tile)[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(row, column) of all tiles, in the order of the file."""
        return ((r, c) for r in range(self.rows) for c in range(self.columns))

    def box(self, row: int, column: int, halo: int = 0) -> Box:
        """Of a tile, and of the picture so many pixels around it."""
        w, h = self.tile or (self.width, self.height)
        return (
            max(column * w - halo, 0), max(row * h - halo, 0),
            min((column + 1) * w + halo, self.width), min((row + 1) * h + halo, self.height),
        )  # fmt: skip

    def near(self, row: int, column: int) -> list[list[tuple[int, int]]]:
        """The tile and its neighbours, as rows of (row, column)."""
        columns = range(max(column - 1, 0), min(column + 2, self.columns))
        return [[(r, c) for c in columns] for r in range(max(row - 1, 0), min(row + 2, self.rows))]


def tile_for(width: int, height: int, side: int | None) -> tuple[int, int] | None:
    """Width and height of the tiles: about equal ones, of at most `side` pixels, rounded up to whole blocks (None:
    decide, 0: none). Raises ValueError, BadInput."""
    if side is not None and (side < 0 or side != int(side)):
        raise ValueError(f"tile is {side}, not a whole number of pixels")
    if side is None:
        side = 0 if width * height <= ONE_PIECE else SIDE
    if side == 0 or (width <= side and height <= side):
        w, h = width, height
    else:
        w, h = (BLOCK * ceil(length / ceil(length / side) / BLOCK) for length in (width, height))
    if w * h > MAX_PIECE:
        raise BadInput(f"pieces of {w}x{h} pixels are too large, at most {MAX_PIECE:,} will do: make smaller tiles")
    return None if (w, h) == (width, height) else (w, h)
