"""Points kept as they come, a JSON line each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .measure import Codec, Point


def key(codec: Codec, level: int, picture: str, metrics: tuple[str, ...], machine: dict[str, Any]) -> str:
    """What a point depends on; picture is the digest of its pixels."""
    what = [codec.name, codec.settings, codec.version, level, picture, sorted(metrics), machine]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


class Store:
    """The file of a report folder. A line that a crash cut short or damaged is dropped."""

    def __init__(self, path: Path):
        self.path = path
        self.points: dict[str, Point] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                value = json.loads(line)
                name = value.pop("key")
                self.points[name] = Point(**value)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, name: str, point: Point) -> None:
        """Keep a point, on disk before this returns."""
        self.points[name] = point
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": name, **asdict(point)}) + "\n")
