"""Pictures in tiles: where they lie, that no seam shows, and that a region or a preview costs what it needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import codec
from codec import pipeline
from codec.container import BLOCK, MAX_PIECE, pack, unpack
from codec.errors import BadInput
from codec.tiles import HALO, Grid, tile_for
from rate import psnr


@given(st.integers(1, 65535), st.integers(1, 65535), st.one_of(st.none(), st.integers(0, 5000)))
def test_tiles_cover_the_picture_once(width: int, height: int, side: int | None) -> None:
    assume(side != 0 or width * height <= MAX_PIECE)
    tile = tile_for(width, height, side)
    if tile is None:
        assert side == 0 or (side is None and width * height <= 1 << 22) or max(width, height) <= side
        return
    assert tile[0] % BLOCK == tile[1] % BLOCK == 0 and tile[0] * tile[1] <= MAX_PIECE
    assert max(tile) <= max(BLOCK, -(-(side or 1024) // BLOCK) * BLOCK)
    grid = Grid(width, height, tile)
    first, last = grid.box(0, 0), grid.box(grid.rows - 1, grid.columns - 1)
    assert first[:2] == (0, 0) and last[2:] == (width, height) and last[0] < last[2] and last[1] < last[3]
    if grid.columns > 1:
        assert grid.box(0, 0)[2] == grid.box(0, 1)[0]
        assert grid.box(0, 1, HALO)[0] == grid.box(0, 1)[0] - HALO


@pytest.mark.parametrize("tile", [64, 128, 192])
@pytest.mark.parametrize("size", [(200, 130), (65, 300), (129, 1)])
def test_round_trip(tiny_bundle: Path, photo: NDArray, tile: int, size: tuple[int, int]) -> None:
    original = photo[: size[1], : size[0]]
    data = codec.encode(original, qp=40, tile=tile, model=tiny_bundle)
    assert unpack(data).tile is not None or max(size) <= tile
    whole = codec.encode(original, qp=40, model=tiny_bundle)
    shown, expected = (np.asarray(codec.decode(d, model=tiny_bundle)) for d in (data, whole))
    assert shown.shape == original.shape
    assert abs(psnr(original, shown) - psnr(original, expected)) < 1


@pytest.mark.parametrize("side", [0, 60000])
def test_pieces_too_large_are_refused_before_they_are_coded(side: int) -> None:
    with pytest.raises(BadInput, match="make smaller tiles"):
        tile_for(30000, 30000, side)


def test_a_region_is_that_of_the_picture(tiny_bundle: Path, photo: NDArray) -> None:
    original = photo[:300, :400]
    for tile in (0, 64, 128):
        data = codec.encode(original, qp=30, tile=tile, model=tiny_bundle)
        whole = np.asarray(codec.decode(data, model=tiny_bundle))
        for x, y, w, h in [(0, 0, 400, 300), (0, 0, 1, 1), (399, 299, 1, 1), (100, 60, 200, 70), (127, 128, 2, 64)]:
            part = np.asarray(codec.decode(data, crop=(x, y, w, h), model=tiny_bundle))
            assert (part == whole[y : y + h, x : x + w]).all()


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (396, 0, 5, 5), (0, 300, 5, 1)])
def test_regions_outside_are_refused(tiny_bundle: Path, photo: NDArray, region: tuple[int, int, int, int]) -> None:
    data = codec.encode(photo[:300, :400], qp=30, model=tiny_bundle)
    with pytest.raises(codec.BadInput, match="does not lie in the picture, 400x300"):
        codec.decode(data, crop=region, model=tiny_bundle)


def test_a_region_needs_its_tiles_and_their_neighbours_only(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:128, :320], qp=30, tile=64, model=tiny_bundle)
    found = unpack(data)
    whole = np.asarray(codec.decode(data, model=tiny_bundle))
    for i in range(10):  # two rows of five tiles
        damaged = bytearray(found.pieces[i].payload)
        damaged[len(damaged) // 2] ^= 1
        pieces = [*found.pieces]
        pieces[i] = replace(pieces[i], payload=bytes(damaged))
        bad = pack(replace(found, pieces=tuple(pieces)))
        if i % 5 <= 1:
            with pytest.raises(codec.Corrupt):
                codec.decode(bad, crop=(0, 0, 60, 60), model=tiny_bundle)
        else:
            part = np.asarray(codec.decode(bad, crop=(0, 0, 60, 60), model=tiny_bundle))
            assert (part == whole[:60, :60]).all()
        with pytest.raises(codec.Corrupt):
            codec.decode(bad, model=tiny_bundle)


def test_a_preview_of_a_file_that_is_cut_short(photo: NDArray) -> None:
    if not codec.installed_models():
        pytest.skip("no model bundle is installed")
    original = photo[100:356, 100:420]
    for tile in (0, 128):
        data = codec.encode(original, qp=40, tile=tile)
        cuts = [len(data) * share // 100 for share in (10, 30, 50, 70, 90, 100)]
        values = [psnr(original, np.asarray(codec.decode(data[:cut], preview=True))) for cut in cuts]
        assert values == sorted(values)
        assert (np.asarray(codec.decode(data, preview=True)) == np.asarray(codec.decode(data))).all()
        with pytest.raises(codec.Corrupt):
            codec.decode(data[:-1])
        if not tile:
            assert values[1] > 22


def test_a_preview_of_nothing_costs_nothing(tiny_bundle: Path, photo: NDArray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces as large as they may be, of which nothing came, or less than z."""
    found = unpack(codec.encode(photo[:64, :64], qp=10, model=tiny_bundle))
    monkeypatch.setattr(pipeline, "code_latents", None)
    hostile = replace(found, width=16384, height=8192, tile=(8192, 4096), pieces=found.pieces * 4)
    data, grey = pack(hostile), (127, 127, 127)
    for came in (4 * len(found.pieces[0].payload) - 1, 5, 0):
        cut = data[: came - 4 * len(found.pieces[0].payload)]
        image = codec.decode(cut, preview=True, crop=(8200, 4100, 3, 3), model=tiny_bundle)
        assert image.size == (3, 3) and image.getpixel((0, 0)) == grey
        with pytest.raises(codec.Corrupt, match="nothing of this large picture came"):
            codec.decode(cut, preview=True, model=tiny_bundle)
    one = pack(replace(found, width=8192, height=4096))
    assert codec.decode(one[:-1], preview=True, crop=(9, 9, 3, 3), model=tiny_bundle).getpixel((0, 0)) == grey


def test_a_preview_of_a_file_that_is_not_cut_short_is_a_decoding(tiny_bundle: Path, photo: NDArray) -> None:
    found = unpack(codec.encode(photo[:64, :64], qp=10, model=tiny_bundle))
    forged = pack(replace(found, width=8192, height=4096))
    with pytest.raises(codec.Corrupt, match="the file is damaged"):
        codec.decode(forged, preview=True, model=tiny_bundle)


def test_no_length_of_a_file_breaks_a_preview(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:64, :64], qp=10, model=tiny_bundle)
    for length in range(31, len(data)):
        assert codec.decode(data[:length], preview=True, model=tiny_bundle).size == (64, 64)
    with pytest.raises(codec.Corrupt, match="within its header"):
        codec.decode(data[:30], preview=True, model=tiny_bundle)


@pytest.mark.parametrize("qp", [10, 36, 60])
def test_no_seam_shows(photo: NDArray, qp: int) -> None:
    """Errors within four pixels of tiles' borders are those of a picture in one piece, within 0.1 dB."""
    if not codec.installed_models():
        pytest.skip("no model bundle is installed")
    tiled = np.asarray(codec.decode(codec.encode(photo, qp=qp, tile=128)))
    whole = np.asarray(codec.decode(codec.encode(photo, qp=qp)))
    along = np.zeros(512, bool)
    for border in (128, 256, 384):
        along[border - 4 : border + 4] = True
    border = along[:, None] | along[None, :]
    near = psnr(photo[border][None], tiled[border][None]) - psnr(photo[border][None], whole[border][None])
    far = psnr(photo[~border][None], tiled[~border][None]) - psnr(photo[~border][None], whole[~border][None])
    assert abs(near - far) < 0.1


def test_the_number_of_threads_and_the_runtime_change_nothing(tiny_bundle: Path, photo: NDArray) -> None:
    original = photo[:150, :200]
    made = {
        codec.encode(original, qp=30, tile=64, model=tiny_bundle, threads=t, runtime=r)[31:]
        for t, r in [(1, "native"), (2, "native")]
    }
    assert len(made) == 1
    data = codec.encode(original, qp=30, tile=64, model=tiny_bundle)
    shown = [np.asarray(codec.decode(data, model=tiny_bundle, runtime=r)).astype(int) for r in ("native", "onnx")]
    assert np.abs(shown[0] - shown[1]).max() <= 1
