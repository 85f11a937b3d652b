"""Picture <-> file, given an executor: the corridor of the codec, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cpp_ext
from codec import alpha, metadata
from codec.coding import HYPER, code_latents
from codec.container import BLOCK, MAX_PIECE, Container, Piece, pack, unpack
from codec.errors import BadInput, Corrupt
from codec.modes import Decode, Encode, Preview
from codec.picture import Picture
from codec.tiles import HALO, Box, Grid
from rate import psnr

LATENT = 16  # y has one position per so many pixels in each direction, z one per BLOCK

Region = tuple[int, int, int, int]  # x, y, width, height, in pixels
Latents = tuple[NDArray[np.float32], NDArray[np.float32]]  # y_hat, Psi


def padded(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H, W, 3] -> (1, 3, height, width) in -1..1; the last row and column repeat to multiples of BLOCK."""
    h, w = rgb.shape[:2]
    full = np.pad(rgb, ((0, -h % BLOCK), (0, -w % BLOCK), (0, 0)), mode="edge")
    return np.ascontiguousarray(full.transpose(2, 0, 1)[None], np.float32) / np.float32(127.5) - np.float32(1)


def bank(runtime: Any) -> cpp_ext.TableBank:
    arrays = runtime.bundle.arrays
    return cpp_ext.TableBank(*(arrays[f"integer/tables/{n}"] for n in ("raw_bits", "sizes", "freqs")))


def quantize(rgb: NDArray[np.uint8], qp: int, runtime: Any, inside: Box | None = None) -> Encode:
    """All symbols of a picture, uint8 [H, W, 3], ready to be written; or of a box inside, while g_a sees all: its sides
    lie on multiples of BLOCK or on the picture's border."""
    bundle = runtime.bundle
    y, z = runtime.analyse(padded(rgb), qp)
    if inside:
        y, z = (_cut(a, inside, unit) for a, unit in ((y, LATENT), (z, BLOCK)))
    mode = Encode(y, z, bundle.config.slices, int(bundle.arrays["integer/skip"][0]))
    code_latents(runtime, mode, qp)
    return mode


def _cut(x: NDArray, box: Box, unit: int) -> NDArray:
    """The positions (1, channels, height, width) of a box in pixels, whole blocks of it."""
    left, top, right, bottom = (-(-side // BLOCK) * BLOCK // unit for side in box)
    return x[:, :, top:bottom, left:right]


def _shifted(box: Box, origin: Box) -> Box:
    x, y = origin[:2]
    return box[0] - x, box[1] - y, box[2] - x, box[3] - y


def encode(picture: Picture, qp: int, runtime: Any, tile: tuple[int, int] | None, kinds: Iterable[str]) -> bytes:
    """The file of a picture, with metadata of these kinds."""
    height, width = picture.rgb.shape[:2]
    grid = Grid(width, height, tile)
    pieces = []
    for i in grid:
        window = grid.box(*i, HALO)
        pixels = picture.rgb[window[1] : window[3], window[0] : window[2]]
        inside = _shifted(grid.box(*i), window) if tile else None
        pieces.append(piece(quantize(pixels, qp, runtime, inside), runtime))
    return file(picture, qp, pieces, runtime, tile, kinds)


def piece(mode: Encode, runtime: Any) -> Piece:
    """Write symbols that are known."""
    payload, lanes = mode.payload(bank(runtime))
    return Piece(lanes, mode.crc, payload)


def file(
    picture: Picture, qp: int, pieces: list[Piece], runtime: Any, tile: tuple[int, int] | None, kinds: Iterable[str]
) -> bytes:
    """The file of a picture that is coded."""
    height, width = picture.rgb.shape[:2]
    bundle = runtime.bundle
    boxes = metadata.pack({kind: picture.metadata[kind] for kind in kinds if kind in picture.metadata})
    if picture.alpha is not None:
        boxes["ALPH"] = alpha.pack(picture.alpha)
    ids = bundle.entropy_id, bundle.synthesis_id
    return pack(Container(width, height, qp, picture.grey, *ids, tuple(pieces), tile, picture.deep, boxes))


def _z_shape(box: Box, runtime: Any) -> tuple[int, ...]:
    return 1, runtime.bundle.config.hyper, -(-(box[3] - box[1]) // BLOCK), -(-(box[2] - box[0]) // BLOCK)


def _begun(found: Container, box: Box, coded: Piece, runtime: Any) -> bool:
    """Whether at least z came of a piece. What has less shows nothing, and would set networks to work on as many pixels
    as the header claims; z takes a byte for each thousand of them, whatever they show (measured: 37 KB for 2^25)."""
    if not coded.payload:
        return False
    mode = Preview(bank(runtime), coded, _z_shape(box, runtime), 0)
    mode.code(HYPER, 0, *runtime.z_parameters(found.qp))
    return not mode.over


def _read(found: Container, box: Box, coded: Piece, mode: type[Decode], runtime: Any) -> Latents:
    """Latents of a piece. Raises Corrupt if the payload does not end where it should or gives others."""
    bundle, z_shape = runtime.bundle, _z_shape(box, runtime)
    if mode is Preview and not coded.payload:  # nothing came of it: no work on it
        size = [BLOCK // LATENT * n for n in z_shape[2:]]
        empty = (np.zeros((1, c, *size), np.float32) for c in (bundle.config.latents, bundle.config.features))
        return next(empty), next(empty)
    try:
        decoding = mode(bank(runtime), coded, z_shape, int(bundle.arrays["integer/skip"][0]))
        result = code_latents(runtime, decoding, found.qp)
        decoding.finish()
    except cpp_ext.CorruptStream as error:
        raise Corrupt(f"the file is damaged: {error}") from error
    return result


def decode_latents(found: Container, runtime: Any) -> Iterator[Latents]:
    """(y_hat, Psi) of every piece. Raises Corrupt."""
    grid = Grid(found.width, found.height, found.tile)
    for i, coded in zip(grid, found.pieces, strict=True):
        yield _read(found, grid.box(*i), coded, Decode, runtime)


def quality(picture: Picture, data: bytes, runtime: Any) -> float:
    """PSNR in dB of a picture's file: RGB, of pixels that are not wholly transparent."""
    found = unpack(data)
    shown = Picture(draw(found, runtime, (0, 0, found.width, found.height))).shallow().rgb
    if picture.alpha is None:
        return psnr(picture.rgb, shown)
    seen = picture.alpha > 0
    return psnr(picture.rgb[seen][None], shown[seen][None]) if seen.any() else math.inf


def verify(found: Container, runtime: Any) -> None:
    """Raises Corrupt unless all but the drawing works."""
    for _ in decode_latents(found, runtime):
        pass
    metadata.unpack(found.boxes)
    if "ALPH" in found.boxes:
        alpha.unpack(found.boxes["ALPH"], found.width, found.height)


def decode(found: Container, runtime: Any, region: Region | None, preview: bool, kinds: Iterable[str]) -> Picture:
    """The picture, or a region of it, from the tiles that it needs; with metadata of these kinds.

    preview: from the first bytes of a file that may be cut short. Raises BadInput for a region that lies outside.
    """
    box = (0, 0, found.width, found.height)
    if region is not None:
        x, y, width, height = (int(n) for n in region)
        box = x, y, x + width, y + height
        if min(x, y) < 0 or min(width, height) < 1 or box[2] > found.width or box[3] > found.height:
            raise BadInput(
                f"the region {x},{y},{width},{height} does not lie in the picture, {found.width}x{found.height}"
            )
    opacity = None
    if "ALPH" in found.boxes:
        opacity = alpha.unpack(found.boxes["ALPH"], found.width, found.height)[box[1] : box[3], box[0] : box[2]]
    kept = {kind: data for kind, data in metadata.unpack(found.boxes).items() if kind in kinds}
    return Picture(draw(found, runtime, box, preview), found.grey, opacity, found.deep, kept)


def draw(found: Container, runtime: Any, crop: Box, preview: bool = False) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixels [H, W, 3] of a box inside the picture, of 16 bits where the source had them."""
    grid = Grid(found.width, found.height, found.tile)
    left, top, right, bottom = crop
    pixels: Any = np.empty((bottom - top, right - left, 3), np.uint16 if found.deep else np.uint8)
    latents: dict[tuple[int, int], Latents] = {}
    pieces = dict(zip(grid, found.pieces, strict=True))

    @cache
    def piece(k: tuple[int, int]) -> Piece:
        empty = preview and not _begun(found, grid.box(*k), pieces[k], runtime)
        return replace(pieces[k], payload=b"") if empty else pieces[k]

    if preview and (right - left) * (bottom - top) > MAX_PIECE and not any(piece(k).payload for k in grid):
        raise Corrupt("nothing of this large picture came: get more of the file, or ask for a region")
    for tile in grid:
        inside, window = grid.box(*tile), grid.box(*tile, HALO)
        shown = (max(inside[0], left), max(inside[1], top), min(inside[2], right), min(inside[3], bottom))
        if shown[0] >= shown[2] or shown[1] >= shown[3]:
            continue
        to = _shifted(shown, crop)
        if preview and not piece(tile).payload:
            pixels[to[1] : to[3], to[0] : to[2]] = np.iinfo(pixels.dtype).max // 2
            continue
        near = grid.near(*tile)
        latents = {k: v for k, v in latents.items() if k[0] >= near[0][0][0]}
        for k in (k for row in near for k in row if k not in latents):
            y_hat, psi = _read(found, grid.box(*k), piece(k), Preview if preview else Decode, runtime)
            latents[k] = y_hat.astype(np.int16), psi.astype(np.int16)  # a quarter of a large picture's memory
        around = _shifted(window, grid.box(*near[0][0]))
        y_hat, psi = (
            _cut(np.concatenate([np.concatenate([latents[k][n] for k in row], 3) for row in near], 2), around, LATENT)
            for n in (0, 1)
        )
        x = runtime.synthesise(y_hat.astype(np.float32), psi.astype(np.float32), found.qp)[0]
        a, b, c, d = _shifted(shown, window)
        pixels[to[1] : to[3], to[0] : to[2]] = _samples(x[:, b:d, a:c], pixels.dtype)
    return pixels


def _samples(x: NDArray[np.float32], kind: Any) -> NDArray:
    """-1..1, (3, height, width) -> the whole range of an unsigned type, [height, width, 3]."""
    half = np.float32(np.iinfo(kind).max / 2)
    return np.clip(np.rint(x.transpose(1, 2, 0) * half + half), 0, 2 * half).astype(kind)
