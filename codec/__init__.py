"""A learned image codec whose files decode to the same integers on any machine.

    data = codec.encode(image, quality=50)      # a Pillow image, array or path -> bytes of a .mlic file
    image = codec.decode(data)                  # -> Pillow image

Heavy libraries are imported where they are used: `import codec` costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.container import Container, peek
from codec.errors import BadInput, CodecError, Corrupt, NotMLIC, UnknownModel, UnsupportedVersion

if TYPE_CHECKING:
    from PIL import Image

    from codec.bundle import Bundle
    from codec.picture import Source

__all__ = [
    "BadInput", "CodecError", "Corrupt", "NotMLIC", "UnknownModel", "UnsupportedVersion",
    "decode", "encode", "info", "installed_models", "quality_to_qp", "verify",
]  # fmt: skip

MAX_QP = 63
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
    model: str | Path | None = None,
    threads: int | None = None,
    runtime: str = "native",
    effort: int = 5,
    time_limit: float = math.inf,
    progress: Callable[[int, float], None] = lambda done, cost: None,
) -> bytes:
    """A picture (path, bytes, Pillow image, uint8 array [H, W, 3], ...) -> the bytes of a .mlic file.

    qp, 0..63, takes the place of quality, 0..100. runtime: "native", "onnx" or "torch". effort: of EFFORTS; above 5 the
    latents are refined for so many iterations, at most time_limit seconds, with torch (codec.refine); progress then
    hears of iterations done and of the best bits per pixel + lambda * squared error.
    Raises BadInput, UnknownModel, ValueError, CodecError where torch is missing.
    """
    from codec import bundle, picture, pipeline

    level = quality_to_qp(quality) if qp is None else qp
    if level not in range(MAX_QP + 1):
        raise ValueError(f"qp is {qp}, not 0..{MAX_QP}")
    if effort not in EFFORTS:
        raise ValueError(f"effort is {effort}, not one of {', '.join(map(str, EFFORTS))}")
    executor = _runtime(bundle.find(model), runtime, threads)
    executor.prepare("analysis")
    loaded = picture.load(image)
    if EFFORTS[effort]:
        refine = _refinement(loaded.rgb.shape[0] * loaded.rgb.shape[1])
        mode = refine(loaded.rgb, level, executor, EFFORTS[effort], time_limit, progress)
    else:
        mode = pipeline.quantize(loaded.rgb, level, executor)
    return pipeline.write(loaded, level, mode, executor)


def _refinement(pixels: int) -> Any:
    try:
        from codec.refine import MAX_PIXELS, refine
    except ModuleNotFoundError as error:
        raise CodecError("an effort above 5 needs PyTorch: pip install 'narrowbit[train]'") from error
    if pixels > MAX_PIXELS:
        raise BadInput(f"{pixels:,} pixels are too many for an effort above 5, which takes at most {MAX_PIXELS:,}")
    return refine


def decode(
    data: bytes, *, model: str | Path | None = None, threads: int | None = None, runtime: str = "native"
) -> Image.Image:
    """The bytes of a .mlic file -> an RGB or L Pillow image. runtime: "native", "onnx" or "torch".

    Raises NotMLIC, UnsupportedVersion, UnknownModel, Corrupt.
    """
    from codec import picture, pipeline

    found, executor = _open(data, model, threads, runtime)
    executor.prepare("synthesis")
    return picture.to_image(pipeline.decode(found, executor), found.grey)


def verify(data: bytes, *, model: str | Path | None = None, threads: int | None = None) -> None:
    """Decode the latents of a .mlic file without drawing the picture. Raises as decode does."""
    from codec import pipeline

    pipeline.decode_latents(*_open(data, model, threads, "native"))


def info(data: bytes) -> dict[str, Any]:
    """What a .mlic file says about itself. Raises NotMLIC, UnsupportedVersion, Corrupt (damaged header)."""
    found, whole = peek(data)
    names = {m["model_id"]: m["name"] for m in installed_models()}
    return {
        "width": found.width, "height": found.height, "qp": found.qp, "quality": round(found.qp * 100 / MAX_QP, 1),
        "model": names.get(found.entropy_id.hex()), "model_id": found.entropy_id.hex(),
        "bytes": len(data), "bpp": 8 * len(data) / (found.width * found.height), "grey": found.grey,
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
        threads = min(threads, 4 * cores())  # beyond that they only cost, until there are none left to start
    try:
        return _cached(bundle.path, bundle.path.stat().st_mtime_ns, kind, threads)
    except ModuleNotFoundError as error:
        if kind != "torch":
            raise
        raise CodecError("the torch runtime needs PyTorch: pip install 'narrowbit[train]'") from error


def _open(data: bytes, model: str | Path | None, threads: int | None, runtime: str) -> tuple[Container, Any]:
    """Check in the order header, model, payload: the fields of a whole file, and an executor of its model."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"a .mlic file is given as its bytes, not as {type(data).__name__}")
    found, whole = peek(bytes(data))
    from codec.bundle import find_by_id

    bundle = find_by_id(found.entropy_id, model)
    if not whole:
        raise Corrupt("the file is damaged, cut short or has bytes appended (its checksum differs): get a fresh copy")
    return found, _runtime(bundle, runtime, threads)
