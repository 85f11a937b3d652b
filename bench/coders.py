"""Entropy coders behind one interface: ours on every instruction set, and what learned codecs use elsewhere.

A coder takes int16 symbols and the uint8 index of each one's Gaussian (deviation `tables.scale(index)`), and gives a
payload that it reads back. Each is used the way its library means it to be; what it needs besides (tables, lists of
Python integers where it takes nothing else) is made in its constructor or in the timed call, as its own users have it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import cpp_ext
from codec import tables

Symbols = NDArray[np.int16]
Indexes = NDArray[np.uint8]
PASS = 1 << 16  # symbols of one call: a slice of a photograph of a megapixel


class Coder(Protocol):
    """limit: most symbols that it is given, where time or memory asks for that."""

    limit: int

    def encode(self, symbols: Symbols, indexes: Indexes) -> Any: ...
    def decode(self, payload: Any, indexes: Indexes) -> Any: ...  # arrays of symbols, or one
    def size(self, payload: Any) -> int: ...


def _passes(n: int) -> list[slice]:
    return [slice(start, start + PASS) for start in range(0, n, PASS)]


class Ours:
    limit = 1 << 22

    def __init__(self, isa: str):
        self.isa, self.bank = isa, cpp_ext.TableBank(**tables.build())

    def encode(self, symbols: Symbols, indexes: Indexes) -> tuple[bytes, int]:
        lanes = cpp_ext.choose_lanes(len(symbols))
        encoder = cpp_ext.Encoder(self.bank, lanes, self.isa)
        for part in _passes(len(symbols)):
            encoder.put(symbols[part], indexes[part])
        return encoder.finish(), lanes

    def decode(self, payload: tuple[bytes, int], indexes: Indexes) -> list[NDArray]:
        decoder = cpp_ext.Decoder(self.bank, *payload, self.isa)
        parts = [decoder.get(indexes[part]) for part in _passes(len(indexes))]
        decoder.finish()
        return parts

    def size(self, payload: tuple[bytes, int]) -> int:
        return len(payload[0])


def _compiled(package: str, name: str) -> ModuleType:
    """An extension module without its package, whose import wants much more. Raises ImportError."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed")
    folder = Path(found.origin).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (path := folder / f"{name}{suffix}").exists():
            spec = importlib.util.spec_from_file_location(f"{package}.{name}", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ImportError(f"{package} has no compiled {name}")


class CompressAI:
    """Its rANS with 16-bit cumulative frequencies. prepared: lists of Python integers exist before the clock starts."""

    limit = 1 << 22
    TAIL_MASS = 1e-9  # its GaussianConditional's

    def __init__(self, prepared: bool):
        self.ans = _compiled("compressai", "ans")
        quantize = _compiled("compressai", "_CXX").pmf_to_quantized_cdf
        self.cdfs, self.sizes, self.offsets = [], [], []
        for index in range(tables.SCALES):
            first, p = tables.gaussian(tables.scale(index))
            half = math.ceil(tables.scale(index) * 6.1094)  # the quantile of TAIL_MASS / 2
            pmf = p[-first - half : -first + half + 1]
            self.cdfs.append(quantize([*pmf.tolist(), self.TAIL_MASS], 16))
            self.sizes.append(len(pmf) + 2)
            self.offsets.append(-half)
        longest = max(map(len, self.cdfs))
        self.cdfs = [c + [0] * (longest - len(c)) for c in self.cdfs]
        self.lists: Callable[[NDArray], list[int]] = self._kept if prepared else np.ndarray.tolist  # type: ignore
        self.known: dict[int, list[int]] = {}

    def _kept(self, array: NDArray) -> list[int]:
        if id(array) not in self.known:
            self.known[id(array)] = array.tolist()
        return self.known[id(array)]

    def encode(self, symbols: Symbols, indexes: Indexes) -> bytes:
        encoder = self.ans.BufferedRansEncoder()
        encoder.encode_with_indexes(self.lists(symbols), self.lists(indexes), self.cdfs, self.sizes, self.offsets)
        return encoder.flush()

    def decode(self, payload: bytes, indexes: Indexes) -> NDArray:
        decoder = self.ans.RansDecoder()
        decoder.set_stream(payload)
        return np.array(decoder.decode_stream(self.lists(indexes), self.cdfs, self.sizes, self.offsets))

    def size(self, payload: bytes) -> int:
        return len(payload)


class Constriction:
    """Its ANS coder with a Gaussian of its own for every symbol: the means and deviations are arrays."""

    limit = 1 << 22

    def __init__(self) -> None:
        import constriction

        self.make = constriction.stream.stack.AnsCoder
        self.family = constriction.stream.model.QuantizedGaussian(-1024, 1024)
        self.scales = np.array([tables.scale(index) for index in range(tables.SCALES)])

    def _parameters(self, indexes: Indexes) -> tuple[NDArray, NDArray]:
        return np.zeros(len(indexes)), self.scales[indexes]

    def encode(self, symbols: Symbols, indexes: Indexes) -> NDArray[np.uint32]:
        coder = self.make()
        coder.encode_reverse(symbols.astype(np.int32), self.family, *self._parameters(indexes))
        return coder.get_compressed()

    def decode(self, payload: NDArray[np.uint32], indexes: Indexes) -> NDArray:
        return self.make(payload).decode(self.family, *self._parameters(indexes))

    def size(self, payload: NDArray[np.uint32]) -> int:
        return payload.nbytes


class Torchac:
    """Arithmetic coding with a cumulative distribution per symbol, as a network would have given it, in 16 bits."""

    limit = 1 << 17  # of 514 cumulative frequencies each
    HALF = 256

    def __init__(self) -> None:
        import torch
        import torchac

        self.torch, self.library = torch, torchac
        steps = 2 * self.HALF + 1
        cdfs = np.zeros((tables.SCALES, steps + 1))
        for index in range(tables.SCALES):
            first, p = tables.gaussian(tables.scale(index))
            place = np.clip(np.arange(first, first + len(p)) + self.HALF, 0, steps - 1)
            cdfs[index, 1:] = np.cumsum(np.bincount(place, weights=p, minlength=steps))
        # Each symbol keeps a count; the last 65536 is stored as 0, as the library does.
        counts = np.rint(cdfs / cdfs[:, -1:] * (65536 - steps)).astype(np.int64) + np.arange(steps + 1)
        self.cdfs = torch.from_numpy(counts.astype(np.uint16).view(np.int16))

    def encode(self, symbols: Symbols, indexes: Indexes) -> bytes:
        shifted = self.torch.from_numpy(np.clip(symbols + self.HALF, 0, 2 * self.HALF).astype(np.int16))
        return self.library.encode_int16_normalized_cdf(self.cdfs[self.torch.from_numpy(indexes).long()], shifted)

    def decode(self, payload: bytes, indexes: Indexes) -> NDArray:
        cdfs = self.cdfs[self.torch.from_numpy(indexes).long()]
        return self.library.decode_int16_normalized_cdf(cdfs, payload).numpy() - self.HALF

    def size(self, payload: bytes) -> int:
        return len(payload)


CODERS: dict[str, Callable[[], Coder]] = {
    **{f"ours/{isa}": lambda isa=isa: Ours(isa) for isa in cpp_ext.instruction_sets()},  # type: ignore[misc]
    "compressai/as-called": lambda: CompressAI(prepared=False),
    "compressai/lists-prepared": lambda: CompressAI(prepared=True),
    "constriction/ans": Constriction,
    "torchac/int16": Torchac,
}
