"""Where the evaluation data lie, and the published rate-distortion curves among them. The project ships neither."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypedDict

VARIABLE = "MLIC_DATA"


class DataMissing(FileNotFoundError):
    """The evaluation data are not where they were looked for; the message says how to name their folder."""


class Curve(TypedDict):
    """One curve: bits per pixel and RGB PSNR in dB, point by point, and the file that stated them."""

    bpp: list[float]
    psnr: list[float]
    source: str


def data_dir(cli_value: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `cli_value` (the option --data) if given, else the environment variable MLIC_DATA.

    Raises DataMissing where neither is set or the folder does not exist.
    """
    value = cli_value or os.environ.get(VARIABLE)
    if not value:
        raise DataMissing(f"no data folder: give --data DIR or set {VARIABLE} (it holds kodak/ and rd/)")
    path = Path(value)
    if not path.is_dir():
        raise DataMissing(f"{'--data' if cli_value else VARIABLE} names {path}, which is not a folder")
    return path


def published_curve(data: Path, codec: str, pictures: str = "kodak") -> Curve:
    """One curve of <data>/rd/rd_summary.json, by codec ("compressai/vtm") and picture set.

    Raises DataMissing for an absent file, KeyError for an unknown set or codec.
    """
    path = data / "rd" / "rd_summary.json"
    if not path.is_file():
        raise DataMissing(f"no published curves: {path} is missing")
    try:
        return read_curve(f"{path}:{pictures}/{codec}")
    except ValueError as error:
        raise KeyError(f"no published curve of {codec!r} on {pictures!r}") from error


def read_curve(path: str | os.PathLike[str]) -> Curve:
    """The rate-distortion curve of a JSON file: FILE, or FILE:NAME where it holds several.

    Takes what `codec evaluate` writes, CompressAI's layout ({"results": {"bpp": [...], "psnr-rgb": [...]}}) and
    summaries like rd_summary.json, in which NAME is "kodak/compressai/vtm". Raises FileNotFoundError, and ValueError
    for a file that holds no curve or no such name.
    """
    file, _, name = str(path).partition(".json:")
    where = Path(file + ".json" if name else file)
    try:
        value: Any = json.loads(where.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{where} is not JSON: {error}") from error
    known = _curves(value)
    if name not in known:
        names = " or ".join(sorted((n for n in known if n), key=len)[:3])
        raise ValueError(
            f"{where} has no curve{f' {name!r}' if name else ''}"
            + (f": name one as {where}:NAME, for example {names}" if names else " in a layout that is known")
        )
    rates, quality = known[name]["bpp"], known[name]["psnr"]
    numbers = [v for v in (*rates, *quality) if isinstance(v, int | float) and math.isfinite(v)]
    if len(rates) != len(quality) or not rates or len(numbers) < 2 * len(rates) or min(rates) <= 0:
        raise ValueError(f"{where}: a curve is two lists of as many finite numbers, its rates above 0")
    return {**known[name], "source": known[name]["source"] or f"{where}{name and ':'}{name}"}


def _curves(value: Any, name: str = "") -> dict[str, Curve]:
    """Everything in a parsed file that is a curve, by the keys that lead to it."""
    if not isinstance(value, dict):
        return {}
    points = value["results"] if isinstance(value.get("results"), dict) else value
    quality = points.get("psnr", points.get("psnr-rgb"))
    if isinstance(points.get("bpp"), list) and isinstance(quality, list):
        return {
            name: {"bpp": points["bpp"], "psnr": quality, "source": str(value.get("source", value.get("name", "")))}
        }
    found: dict[str, Curve] = {}
    for key, inner in value.items():
        found |= _curves(inner, f"{name}/{key}" if name else str(key))
    return found
