"""Encoding and decoding as modes of codec.coding: arrays hold integers, y_hat and means in 1/64 of a step."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

import cpp_ext
from codec import tables
from codec.coding import HYPER
from codec.container import LANES, Piece
from codec.errors import Corrupt
from rate import gaussian_bits

UNIT = 64
LOWEST, HIGHEST = -32768, 32767  # y_hat in units: it is a 16-bit number for the network

Floats = NDArray[np.float32]


def pack(x: NDArray, half: int) -> NDArray:
    """Half a checkerboard of (1, channels, height, width): first its even rows, then its odd ones; 0: anchors."""
    return np.concatenate((x[:, :, 0::2, 1 - half :: 2], x[:, :, 1::2, half::2]), 2)


def place(coded: NDArray, known: NDArray | None) -> NDArray:
    """Inverse of pack: anchors among zeros, or others among the known anchors."""
    b, c, h, w = coded.shape
    half, top = int(known is not None), h // 2
    full = np.zeros((b, c, h, 2 * w), coded.dtype) if known is None else known.copy()
    full[:, :, 0::2, 1 - half :: 2], full[:, :, 1::2, half::2] = coded[:, :, :top], coded[:, :, top:]
    return full


SQUARED_ERROR_WORTH = 24.0  # bits per squared step; 16 to 40 do nearly as well, 10 loses (held-out photographs)
DEADZONES = 17  # magnitudes with a dead zone of their own


@cache
def _deadzones() -> Floats:
    """Steps by which magnitudes shrink before they are rounded: [scale index, magnitude].

    A magnitude becomes the next smaller one where that saves more bits than the added squared error is worth:
    (|v| - a + 1)^2 - (|v| - a)^2 = 2 (|v| - a) + 1 < bits / worth. Rate-distortion optimised quantization with our
    choice of worth: 1.0 % of the rate at equal PSNR. An escape costs less than a Gaussian's tail: hence the limit.
    """
    scales = np.array([tables.scale(index) for index in range(tables.SCALES)])
    bits = gaussian_bits(np.arange(DEADZONES), 0, scales[:, None])
    saved = np.diff(bits, prepend=bits[:, :1])
    return np.minimum(saved / (2 * SQUARED_ERROR_WORTH), 0.5).astype(np.float32)


class _Coding:
    """What both directions share: which symbols are coded, and a checksum of all decoded values."""

    def __init__(self, skip: int):
        self.skip, self.crc = skip, 0

    def coded(self, i: int, index: NDArray) -> NDArray[np.bool_]:
        return index >= (0 if i == HYPER else self.skip)

    def finished(self, symbols: NDArray, mean: NDArray) -> Floats:
        values = symbols * np.float32(UNIT) + mean
        self.crc = zlib.crc32(values.astype("<i2").tobytes(), self.crc)
        return values


class Encode(_Coding):
    """Quantizes y and z (float, steps) and collects symbols; `payload` then writes them."""

    def __init__(self, y: Floats, z: Floats, slices: tuple[int, ...], skip: int):
        super().__init__(skip)
        bounds = np.cumsum((0, *slices))
        self.targets = {(HYPER, 0): z}
        for i, (lo, hi) in enumerate(pairwise(bounds)):
            self.targets |= {(i, half): pack(y[:, lo:hi], half) for half in (0, 1)}
        self.passes: list[tuple[NDArray[np.int16], NDArray[np.uint8]]] = []

    def code(self, i: int, half: int, mean: Floats, index: Floats) -> Floats:
        target = self.targets.pop((i, half))
        mean, index = (np.broadcast_to(a, target.shape) for a in (mean, index))
        coded = self.coded(i, index)
        indexes, means = index[coded].astype(np.uint8), mean[coded]
        values = target[coded] - means / UNIT
        magnitudes = np.abs(values)
        if i != HYPER:
            nearest = np.minimum(np.rint(magnitudes), DEADZONES - 1).astype(np.uint8)
            magnitudes -= _deadzones()[indexes, nearest]
        rounded = np.copysign(np.rint(magnitudes), values)
        rounded = np.clip(rounded, np.ceil((LOWEST - means) / UNIT), np.floor((HIGHEST - means) / UNIT))
        self.passes.append((rounded.astype(np.int16), indexes))
        symbols = np.zeros(target.shape, np.float32)
        symbols[coded] = rounded
        return self.finished(symbols, mean)

    def payload(self, bank: cpp_ext.TableBank) -> tuple[bytes, int]:
        """(bytes, lanes)"""
        lanes = cpp_ext.choose_lanes(sum(len(s) for s, _ in self.passes))
        encoder = cpp_ext.Encoder(bank, lanes)
        for symbols, indexes in self.passes:
            encoder.put(symbols, indexes)
        return encoder.finish(), lanes


class Decode(_Coding):
    """Reads symbols. z_shape: (1, channels, height, width)."""

    def __init__(self, bank: cpp_ext.TableBank, piece: Piece, z_shape: tuple[int, ...], skip: int):
        super().__init__(skip)
        self.z_shape, self.expected = z_shape, piece.latents_crc
        self.decoder = cpp_ext.Decoder(bank, piece.payload, piece.lanes)

    def code(self, i: int, half: int, mean: Floats, index: Floats) -> Floats:
        if i == HYPER:
            mean, index = (np.broadcast_to(a, self.z_shape) for a in (mean, index))
        coded = self.coded(i, index)
        symbols = np.zeros(mean.shape, np.float32)
        symbols[coded] = self.read(index[coded].astype(np.uint8))
        values = symbols * UNIT + mean
        if values.min(initial=0) < LOWEST or values.max(initial=0) > HIGHEST:
            raise Corrupt("the file is damaged: a latent is out of range")
        return self.finished(symbols, mean)

    def read(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]:
        return self.decoder.get(indexes)

    def finish(self) -> None:
        """Raise Corrupt or CorruptStream unless all was read, and is what was encoded."""
        self.decoder.finish()
        if self.crc != self.expected:
            raise Corrupt(
                "the decoded latents are not those that were encoded: the file is damaged, or this machine is"
            )


_BATCH = 32 * LANES[-1]  # symbols that are read at a time; every lane has as many of them


class Preview(Decode):
    """Reads what there is: where the payload ends, symbols are zero, and latents what the network expects of them."""

    def __init__(self, bank: cpp_ext.TableBank, piece: Piece, z_shape: tuple[int, ...], skip: int):
        self.over = False
        # A cut may leave half a word, or nothing to begin with.
        for payload in (piece.payload, piece.payload[:-1], b""):
            with suppress(cpp_ext.CorruptStream):
                super().__init__(bank, replace(piece, payload=payload), z_shape, skip)
                break

    def read(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]:
        symbols = np.zeros(len(indexes), np.int16)
        for at in range(0, len(indexes), _BATCH):
            try:
                if not self.over:
                    symbols[at : at + _BATCH] = self.decoder.get(indexes[at : at + _BATCH])
            except cpp_ext.CorruptStream:
                self.over = True
        return symbols

    def finish(self) -> None:
        pass
