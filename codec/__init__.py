"""A learned image codec whose files decode to the same integers on any machine.

    data = codec.encode(image, quality=50)      # a Pillow image, array or path -> bytes of a .mlic file
    image = codec.decode(data)                  # -> Pillow image

Heavy libraries are imported where they are used: `import codec` costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.container import DAMAGED, MAX_QP, Container, peek
from codec.errors import BadInput, CodecError, Corrupt, NotMLIC, OutOfReach, UnknownModel, UnsupportedVersion, install

if TYPE_CHECKING:
    from PIL import Image

    from codec.bundle import Bundle
    from codec.picture import Picture, Source
    from codec.target import Goal

__all__ = [
    "BadInput", "CodecError", "Corrupt", "NotMLIC", "OutOfReach", "UnknownModel", "UnsupportedVersion",
    "decode", "decode_picture", "encode", "info", "installed_models", "quality_to_qp", "verify",
]  # fmt: skip

EFFORTS = {5: 0, 7: 200, 8: 500, 9: 2000}  # iterations of refinement


def quality_to_qp(quality: float) -> int:
    """Quality 0..100 -> rate level 0..63. Raises ValueError outside."""
    if not 0 <= quality <= 100:
        raise ValueError(f"quality is {quality}, not 0..100")
    return round(quality * MAX_QP / 100)


def encode(
    image: Source,
    quality: float = 50,
    *,
    qp: int | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    metadata: str | Iterable[str] = "all",
    tile: int | None = None,
    model: str | Path | None = None,
    threads: int | None = None,
    runtime: str = "native",
    effort: int = 5,
    time_limit: float = math.inf,
    progress: Callable[[int, float], None] = lambda done, cost: None,
) -> bytes:
    """A picture (path, bytes, Pillow image, array uint8 or uint16 [H, W, 3], ...) -> the bytes of a .mlic file.

    qp, 0..63, takes the place of quality, 0..100; so does a target: the best file of at most so many bytes or bits per
    pixel, or the least of at least so many dB of PSNR (RGB, of pixels that are not wholly transparent).
    metadata: "all", "none" or some of "icc", "exif", "xmp". tile: the side of tiles in pixels, 0 for none; None has
    pictures above 2^22 pixels in tiles of about 1024. runtime: "native", "onnx" or "torch". effort: of EFFORTS; above
    5 the latents are refined for so many iterations, at most time_limit seconds, with torch (codec.refine); progress
    then hears of iterations done and of the best bits per pixel + lambda * squared error.
    Raises BadInput, UnknownModel, OutOfReach, ValueError, CodecError where torch is missing.
    """
    from codec import bundle, picture, pipeline
    from codec.metadata import kinds
    from codec.tiles import tile_for

    goal = _goal(quality, qp, target_size, target_bpp, target_psnr)
    if effort not in EFFORTS:
        raise ValueError(f"effort is {effort}, not one of {', '.join(map(str, EFFORTS))}")
    keep = kinds(metadata)
    executor = _runtime(bundle.find(model), runtime, threads)
    executor.prepare("analysis")
    loaded = picture.load(image)
    height, width = loaded.rgb.shape[:2]
    pixels, grid = height * width, tile_for(width, height, tile)
    refine = _refinement(pixels, grid) if EFFORTS[effort] else None

    def psnr(data: bytes) -> float:
        return pipeline.quality(loaded, data, executor)

    level, data = goal.reach(lambda qp: pipeline.encode(loaded, qp, executor, grid, keep), psnr, pixels)
    if refine:
        mode = refine(loaded.rgb, level, executor, EFFORTS[effort], time_limit, progress)
        refined = pipeline.file(loaded, level, [pipeline.piece(mode, executor)], executor, None, keep)
        data = refined if goal.met(refined, psnr, pixels) else data
    return data


def _goal(quality: float, qp: int | None, size: int | None, bpp: float | None, psnr: float | None) -> Goal:
    from codec.target import Goal

    given = {"qp": qp, "size": size, "bpp": bpp, "psnr": psnr}
    goals = [Goal(kind, value) for kind, value in given.items() if value is not None]
    if len(goals) > 1:
        raise ValueError("qp, target_size, target_bpp and target_psnr say the same thing: give one of them")
    if qp is not None and qp not in range(MAX_QP + 1):
        raise ValueError(f"qp is {qp}, not 0..{MAX_QP}")
    if not all(math.isfinite(goal.value) for goal in goals):
        raise ValueError("a target is a finite number")
    return goals[0] if goals else Goal("qp", quality_to_qp(quality))


def _refinement(pixels: int, grid: tuple[int, int] | None) -> Any:
    try:
        from codec.refine import MAX_PIXELS, refine
    except ModuleNotFoundError as error:
        raise CodecError(f"an effort above 5 needs PyTorch: {install('train')}") from error
    if pixels > MAX_PIXELS:
        raise BadInput(f"{pixels:,} pixels are too many for an effort above 5, which takes at most {MAX_PIXELS:,}")
    if grid:
        raise BadInput("an effort above 5 is for pictures in one piece: leave tiles out")
    return refine


def decode(
    data: bytes,
    *,
    crop: tuple[int, int, int, int] | None = None,
    preview: bool = False,
    metadata: str | Iterable[str] = "all",
    model: str | Path | None = None,
    threads: int | None = None,
    runtime: str = "native",
) -> Image.Image:
    """The bytes of a .mlic file -> a Pillow image of mode RGB, RGBA, L, LA or I;16.

    crop: x, y, width, height of a region; of a picture in tiles only those that it needs are decoded, and need be
    whole. preview: from the first bytes of a file that may be cut short; grey where nothing came. The image's `info`
    has what `metadata` names of icc_profile, exif and xmp. runtime: "native", "onnx" or "torch".
    Raises NotMLIC, UnsupportedVersion, UnknownModel, Corrupt, BadInput (crop, metadata).
    """
    return decode_picture(
        data, crop=crop, preview=preview, metadata=metadata, model=model, threads=threads, runtime=runtime
    ).image()


def decode_picture(
    data: bytes,
    *,
    crop: tuple[int, int, int, int] | None = None,
    preview: bool = False,
    metadata: str | Iterable[str] = "all",
    model: str | Path | None = None,
    threads: int | None = None,
    runtime: str = "native",
) -> Picture:
    """As decode, but arrays: 16 bits a sample where the source had them."""
    from codec import pipeline
    from codec.metadata import kinds

    keep = kinds(metadata)
    found, undamaged, executor = _open(data, model, threads, runtime, whole=crop is None and not preview)
    executor.prepare("synthesis")
    return pipeline.decode(found, executor, crop, preview and not undamaged, keep)


def verify(data: bytes, *, model: str | Path | None = None, threads: int | None = None) -> None:
    """Decode all of a .mlic file but the drawing of the picture. Raises as decode does."""
    from codec import pipeline

    found, _, executor = _open(data, model, threads, "native")
    pipeline.verify(found, executor)


def info(data: bytes) -> dict[str, Any]:
    """What a .mlic file says about itself. Raises NotMLIC, UnsupportedVersion, Corrupt (damaged header)."""
    found, whole = peek(_checked(data))
    from codec.metadata import BOXES

    names = {m["model_id"]: m["name"] for m in installed_models()}
    return {
        "width": found.width, "height": found.height, "qp": found.qp, "quality": round(found.qp * 100 / MAX_QP, 1),
        "model": names.get(found.entropy_id.hex()), "model_id": found.entropy_id.hex(),
        "bytes": len(data), "bpp": 8 * len(data) / (found.width * found.height), "grey": found.grey,
        "alpha": "ALPH" in found.boxes, "bits": 16 if found.deep else 8, "tile": found.tile and list(found.tile),
        "metadata": [kind for kind, box in BOXES.items() if box in found.boxes],
        "checksums": "ok" if whole else "bad",
    }  # fmt: skip


def installed_models() -> list[dict[str, Any]]:
    """The installed model bundles: name, model_id, synthesis_id, bytes, path."""
    from codec.manifest import installed

    return installed()


@lru_cache(maxsize=4)
def _cached(path: Path, _written: int, kind: str, threads: int | None) -> Any:
    from codec.bundle import Bundle

    if kind == "torch":
        from codec.runtime.torch import TorchRuntime

        return TorchRuntime(Bundle(path), threads)
    if kind == "onnx":
        from codec.runtime.onnx import OnnxRuntime

        return OnnxRuntime(Bundle(path), threads)
    if kind != "native":
        raise ValueError(f"runtime is {kind!r}, not native, onnx or torch")
    from codec.runtime.native import NativeRuntime

    return NativeRuntime(Bundle(path), threads)


def _runtime(bundle: Bundle, kind: str, threads: int | None) -> Any:
    """Executors are kept: opening one costs more than coding a small picture."""
    from codec.runtime import cores

    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads is {threads}, not at least 1")
        threads = min(threads, 4 * cores())  # beyond that they only cost, until there are none left to start
    try:
        return _cached(bundle.path, bundle.path.stat().st_mtime_ns, kind, threads)
    except ModuleNotFoundError as error:
        if kind != "torch":
            raise
        raise CodecError(f"the torch runtime needs PyTorch: {install('train')}") from error


def _checked(data: bytes) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"a .mlic file is given as its bytes, not as {type(data).__name__}")
    return bytes(data)


def _open(
    data: bytes, model: str | Path | None, threads: int | None, runtime: str, whole: bool = True
) -> tuple[Container, bool, Any]:
    """Check in the order header, model, payload: the fields of a file, which must be whole unless a part will do,
    whether it is, and an executor of its model."""
    found, undamaged = peek(_checked(data))
    from codec.bundle import find_by_id

    bundle = find_by_id(found.entropy_id, model)
    if not found.pieces or (whole and not undamaged):
        raise Corrupt(DAMAGED)
    return found, undamaged, _runtime(bundle, runtime, threads)
