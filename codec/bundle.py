"""A trained network as one file (safetensors): everything that coding needs, and nothing that training does.

The arrays are named PART/NAME:

    integer/...   the entropy path: int8 weights, and an exponent per row (value = integer * 2^-exponent); int32 biases
                  in units of the products, 4 bits finer; per-QP tables of 64 rows; the coder's tables; `exp` of the
                  integer softmax; `skip`: symbols with a smaller scale index are not coded
    float/...     g_a, h_a and g_s in float16, with their per-QP vectors evaluated at the 64 levels
    graph/...     ONNX graphs of both, which name these arrays as external initializers

The metadata hold the configuration and the format version. model id: SHA-256 of the integer part, its first 4 bytes go
into files and must match. synthesis id: the same of the float arrays of g_s, 2 bytes, for information. Where they have
"synthesis": "graph", graph/synthesis is another network, which alone draws pictures, and the id is its own. analysis
id: the same of the other float arrays; bundles of before have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from codec import manifest
from codec.config import QPS, Config
from codec.errors import UnknownModel
from codec.ops.shapes import count, vectors
from rate.options import one_line

VERSION = "0"
DRAWING = ("float/g_s/", "float/y/")  # arrays that draw the picture


def analysing(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """What only an encoder reads."""
    return {n: a for n, a in arrays.items() if n.startswith("float/") and not n.startswith(DRAWING)}


def identity(arrays: Mapping[str, NDArray], size: int) -> bytes:
    """First bytes of the SHA-256 over names, types, shapes and little-endian contents, in the order of names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        a = a.astype(a.dtype.newbyteorder("<"))
        total.update(f"{name} {a.dtype.str} {a.shape};".encode() + a.tobytes())
    return total.digest()[:size]


def shapes(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Of the float part and of the layers of the integer part."""
    layers = {n: shape for part in count(cfg).values() for n, shape in part.layers.items()} | vectors(cfg)
    found = {}
    for n, shape in layers.items():
        if n.endswith(("/weight", "/bias")):
            found[f"{'integer' if n.startswith(('h_s/', 'slice/')) else 'float'}/{n}"] = shape
        elif not n.startswith(("h_s/", "z/")):
            found[f"float/{n}"] = (QPS, *shape[1:]) if len(shape) > 1 else shape  # evaluated at all levels
    return found


@dataclass
class Bundle:
    path: Path

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        try:
            self.metadata = manifest.metadata(self.path)
            if self.metadata.get("mlic_bundle") != VERSION:
                raise UnknownModel(f"{self.path} is not a model bundle of version {VERSION}")
            self.config = Config.from_dict(json.loads(self.metadata["config"]))
            self.entropy_id = bytes.fromhex(self.metadata["model_id"])
            self.synthesis_id = bytes.fromhex(self.metadata["synthesis_id"])
        except OSError as error:
            raise UnknownModel(one_line(error)) from error
        except (AttributeError, KeyError, ValueError) as error:
            raise UnknownModel(f"{self.path} is not a model bundle: {error}") from error
        self.name = self.config.name

    @property
    def synthesis_is_a_graph(self) -> bool:
        """Whether another network than codec.network's draws the pictures."""
        return self.metadata.get("synthesis") == "graph"

    @cached_property
    def arrays(self) -> dict[str, NDArray]:
        """All arrays; raises UnknownModel if they are not what the file's ids and its configuration promise."""
        try:
            arrays = load_file(self.path)
        except SafetensorError as error:
            raise UnknownModel(f"{self.path} is damaged: {error}") from error
        if identity({n: a for n, a in arrays.items() if n.startswith("integer/")}, 4) != self.entropy_id:
            raise UnknownModel(f"{self.path} is damaged: its contents do not match its model id")
        if identity(self._drawing(arrays), 2) != self.synthesis_id:
            raise UnknownModel(f"{self.path} is damaged: its contents do not match its synthesis id")
        if self.metadata.get("analysis_id", found := identity(analysing(arrays), 2).hex()) != found:
            raise UnknownModel(f"{self.path} is damaged: its contents do not match its analysis id")
        layers = {n: a.shape for n, a in arrays.items() if n.startswith("float/") or n.endswith(("/weight", "/bias"))}
        if layers != shapes(self.config):
            raise UnknownModel(f"{self.path} is damaged: its arrays are not those of its configuration")
        return arrays

    def _drawing(self, arrays: dict[str, NDArray]) -> dict[str, NDArray]:
        """What the synthesis id is of."""
        if self.synthesis_is_a_graph:
            return {"graph": arrays["graph/synthesis"]} if "graph/synthesis" in arrays else {}
        return {n: a for n, a in arrays.items() if n.startswith(DRAWING)}

    def part(self, prefix: str) -> dict[str, NDArray]:
        """Arrays of a part, their names without it."""
        return {n[len(prefix) + 1 :]: a for n, a in self.arrays.items() if n.startswith(f"{prefix}/")}


def installed() -> list[Bundle]:
    """The bundles that ship with the package, by name."""
    return [Bundle(Path(m["path"])) for m in manifest.installed()]


def find(model: str | Path | None) -> Bundle:
    """A bundle by name or file; the default one for None. Raises UnknownModel."""
    known = {b.name: b for b in installed()}
    if model is None:
        if not known:
            raise UnknownModel("no model bundle is installed: give one with --model FILE")
        return known.get("mlicv2-s") or next(iter(known.values()))
    if str(model) in known:
        return known[str(model)]
    if Path(model).is_file():
        return Bundle(Path(model))
    raise UnknownModel(f"no model {model}: installed are {', '.join(known) or 'none'}; or give a bundle file")


def find_by_id(entropy_id: bytes, model: str | Path | None) -> Bundle:
    """The bundle that a file asks for. Raises UnknownModel, naming the id."""
    candidates = installed() if model is None else [find(model)]
    for bundle in candidates:
        if bundle.entropy_id == entropy_id:
            return bundle
    have = ", ".join(f"{b.name} {b.entropy_id.hex()}" for b in candidates) or "none"
    raise UnknownModel(
        f"the file needs model {entropy_id.hex()}, but here is {have}: give the bundle with --model FILE"
    )
