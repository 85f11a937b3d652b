"""A trained network of an architecture as integers: the levels of its weights, their steps, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nas.layers import QConv2d
from rate import entropy_bits
from rate.cost import FLOAT_BITS


@dataclass(frozen=True)
class Frozen:
    """levels: int8, or int16 above 8 bits, in the shape of the weight; steps (outputs,); bits of a level; those
    of its input and its step, what its channels are divided by before (inputs,), or None, and whether each position is
    divided by its largest number then."""

    levels: NDArray[np.int8] | NDArray[np.int16]
    steps: NDArray[np.float32]
    bits: int
    input_bits: int
    input_step: float
    signed_input: bool
    balance: NDArray[np.float32] | None = None
    rowwise: bool = False

    def packed(self) -> bytes:
        """The levels, `bits` bits each, in two's complement and most significant first."""
        return np.packbits(
            (self.levels.reshape(-1, 1).astype(np.int16) >> np.arange(self.bits - 1, -1, -1)) & 1
        ).tobytes()

    def entropy(self) -> float:
        """Bits of all levels under their own distribution."""
        return entropy_bits(np.unique(self.levels, return_counts=True)[1])


def unpack(data: bytes, shape: tuple[int, ...], bits: int) -> NDArray[np.int8] | NDArray[np.int16]:
    """What `packed` made of levels of this shape. Raises ValueError where the length is another."""
    count = int(np.prod(shape))
    if len(data) != -(-count * bits // 8):
        raise ValueError(f"{len(data)} bytes are not {count} levels of {bits} bits")
    flat = np.unpackbits(np.frombuffer(data, np.uint8))[: count * bits].reshape(count, bits).astype(np.int32)
    value = flat @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int32))
    signed = np.where(value >= 1 << (bits - 1), value - (1 << bits), value).reshape(shape)
    return signed.astype(np.int8) if bits <= 8 else signed.astype(np.int16)


def freeze(model: nn.Module) -> dict[str, Frozen]:
    """Of every quantized layer, by name. Raises ValueError for one that never ran or still has a choice of bits."""
    found = {}
    for name, m in model.named_modules():
        if not isinstance(m, QConv2d) or m.w_bits == (FLOAT_BITS,):
            continue
        if len(m.bits) != 1:
            raise ValueError(f"{name} is still searched: build the network of an architecture")
        of_weight, of_input = m.of_weight[0], m.of_input[0]
        if not of_weight.started:
            raise ValueError(f"{name} has no steps yet: run or train the network first")
        (w_bits,), (a_bits,) = m.w_bits, m.a_bits
        levels = of_weight.integers(m.balanced_weight()).numpy().astype(np.int8 if w_bits <= 8 else np.int16)
        steps = of_weight.step().detach().flatten().numpy()
        balance = None if m.balance is None else m.balance.numpy()
        step = float(of_input.step().detach())
        found[name] = Frozen(levels, steps, w_bits, a_bits, step, m.signed, balance, m.rowwise)
    return found
