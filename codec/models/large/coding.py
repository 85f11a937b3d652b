"""Files of the full-size networks: modes of codec.coding that write and read symbols with our entropy coder.

The entropy path is floating point here: what one machine, library and thread count wrote, the same must read. Only the
deployed networks (codec.encode) write files for any machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import cpp_ext
from codec import tables
from codec.coding import HYPER
from codec.models.large import contexts

if TYPE_CHECKING:
    from codec.models.large.model import MLIC

REACH = 127  # z is told from its median by at most so much without an escape


def y_bank() -> cpp_ext.TableBank:
    """Gaussians of codec.tables."""
    return cpp_ext.TableBank(**tables.build())


@torch.no_grad()
def z_bank(model: MLIC) -> cpp_ext.TableBank:
    """A table for each channel of the bottleneck."""
    steps = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    medians = model.entropy_bottleneck.medians()
    values = steps.to(medians.device).reshape(1, 1, 1, -1) + medians
    p = model.entropy_bottleneck.likelihood(values)[0, :, 0].double().cpu().numpy()
    made = [tables.table(-REACH, row / row.sum()) for row in p]
    return cpp_ext.TableBank(
        raw_bits=np.array([raw for raw, _ in made], np.uint8),
        sizes=np.array([len(f) for _, f in made], np.uint16),
        freqs=np.concatenate([f for _, f in made]),
    )


def indexes(scale: Tensor) -> Tensor:
    """Deviations -> nearest Gaussian tables."""
    position = (scale.clamp(min=tables.SCALE_MIN).log() - tables.LOG_SCALE_MIN) / tables.INDEX_STEP
    return position.round().clamp(0, tables.SCALES - 1).to(torch.uint8)


def _channels(shape: torch.Size) -> np.ndarray:
    """The table of each z: its channel."""
    b, c, h, w = shape
    return np.broadcast_to(np.arange(c, dtype=np.uint8)[None, :, None], (b, c, h * w)).reshape(-1)


class Encode:
    """Quantizes y and z of one picture and collects symbols."""

    indexes = staticmethod(indexes)

    def __init__(self, model: MLIC, y: Tensor, z: Tensor):
        self.model, self.y, self.z = model, y, z
        self.passes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"y": [], "z": []}

    def code(self, i: int, half: int, mean: Tensor, scale: Tensor) -> Tensor:
        if i == HYPER:
            symbols = (self.z - mean).round()
            self._put("z", symbols.flatten(), _channels(symbols.shape))
            return symbols + mean
        c = self.model.options.slice
        coded = scale > 0
        values = contexts.pack(self.y[:, i * c : (i + 1) * c], anchors=half == 0)
        symbols = (values - mean).round() * coded
        self._put("y", symbols[coded], self.indexes(scale[coded]).cpu().numpy())
        return symbols + mean

    def _put(self, name: str, symbols: Tensor, index: np.ndarray) -> None:
        self.passes[name].append((symbols.clamp(-32768, 32767).to(torch.int16).cpu().numpy(), index))

    def strings(self) -> list[bytes]:
        """y, z: the number of lanes in a byte, and the payload."""
        made = []
        for name, bank in (("y", self.model.banks["y"]), ("z", self.model.banks["z"])):
            lanes = cpp_ext.choose_lanes(sum(len(s) for s, _ in self.passes[name]))
            encoder = cpp_ext.Encoder(bank, lanes)
            for symbols, index in self.passes[name]:
                encoder.put(symbols, index)
            made.append(bytes([lanes]) + encoder.finish())
        return made


class Decode:
    """Reads symbols. Raises cpp_ext.CorruptStream."""

    def __init__(self, model: MLIC, strings: list[bytes], shape: tuple[int, int]):
        self.model, self.shape = model, shape
        self.decoders = {}
        for name, string in zip(("y", "z"), strings, strict=True):
            if not string or string[0] not in (1, 4, 8, 32):
                raise cpp_ext.CorruptStream(f"{name} has no valid lane count")
            self.decoders[name] = cpp_ext.Decoder(model.banks[name], string[1:], string[0])

    def code(self, i: int, half: int, mean: Tensor, scale: Tensor) -> Tensor:
        if i == HYPER:
            shape = torch.Size((1, mean.shape[1], *self.shape))
            symbols = torch.from_numpy(self.decoders["z"].get(_channels(shape))).reshape(shape)
            return (symbols.to(mean) + mean).contiguous(memory_format=torch.channels_last)  # as in compress
        coded = scale > 0
        symbols = torch.zeros_like(mean)
        symbols[coded] = torch.from_numpy(self.decoders["y"].get(indexes(scale[coded]).cpu().numpy())).to(mean)
        return symbols + mean

    def finish(self) -> None:
        for decoder in self.decoders.values():
            decoder.finish()
