"""What the installed bundles are, read from their first bytes: `codec info` must not wait for numpy."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"


def metadata(path: Path) -> dict[str, str]:
    """The string metadata of a safetensors file. Raises ValueError if it is none."""
    with path.open("rb") as f:
        (size,) = struct.unpack("<Q", f.read(8).ljust(8, b"\0"))
        if size > min(path.stat().st_size, 1 << 24):
            raise ValueError("the header's length is out of bounds")
        found = json.loads(f.read(size)).get("__metadata__", {})
    return {str(k): str(v) for k, v in found.items()}


def installed() -> list[dict[str, Any]]:
    """Bundles that ship with the package, by name."""
    found = []
    for path in sorted(FOLDER.glob(f"*{SUFFIX}")):
        m = metadata(path)
        found.append({
            "name": json.loads(m["config"])["name"], "model_id": m["model_id"], "synthesis_id": m["synthesis_id"],
            "bytes": path.stat().st_size, "path": str(path),
        })  # fmt: skip
    return found
