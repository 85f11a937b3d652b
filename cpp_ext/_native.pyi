"""Arrays are one-dimensional, C-contiguous and exactly of the stated type (else TypeError); they are not copied.

Coding runs without the GIL: arrays must not be changed by another thread during a call.
"""

import numpy as np
from numpy.typing import NDArray

class CorruptStream(ValueError):
    """The payload is not what an Encoder with the same bank, indexes and lane count wrote."""

class TableBank:
    """Integer probability tables, immutable; shared by any number of coders and threads. 16 KiB a table."""

    def __init__(self, raw_bits: NDArray[np.uint8], sizes: NDArray[np.uint16], freqs: NDArray[np.uint16]) -> None:
        """Take T tables, 1 <= T <= 256.

        raw_bits [T]: k, low bits of a symbol that are stored as they are, 0..8.
        sizes [T]: entries of the alphabet of symbol >> k in the order 0, -1, 1, -2, 2, ..., then the escape; 1..256.
        freqs [sum(sizes)]: all tables in a row, each frequency >= 1, each table of sum 4096.
        Raises ValueError if any of this does not hold.
        """

    def __len__(self) -> int: ...

class Encoder:
    def __init__(self, bank: TableBank, lanes: int, isa: str = "") -> None:
        """lanes: interleaved coder states, 1, 4, 8 or 32 (else ValueError); about 3 bytes of payload each.

        isa: one of instruction_sets() (else ValueError); "" takes the best, or what the variable MLIC_CPU names. Bytes
        do not depend on it.
        """

    def put(self, symbols: NDArray[np.int16], indexes: NDArray[np.uint8]) -> None:
        """Append one pass: symbols [n], any int16 value, and the table of each, indexes [n].

        Raises ValueError, and takes nothing, if the lengths differ or an index names no table.
        """

    def finish(self) -> bytes:
        """The payload: no bytes for no symbols. The encoder is used up: put and finish then raise ValueError."""

class Decoder:
    def __init__(self, bank: TableBank, payload: bytes, lanes: int, isa: str = "") -> None:
        """Read a payload in place; isa as for Encoder.

        Raises CorruptStream if it cannot be one, ValueError for a bad lane count or instruction set.
        """

    def get(self, indexes: NDArray[np.uint8]) -> NDArray[np.int16]:
        """The symbols [n] of one pass; its indexes [n] and length must be those of the encoder's put.

        Raises ValueError if an index names no table, CorruptStream if the payload ends too early or holds what no
        encoder writes. Wrong bytes may also go unseen until finish().
        """

    def finish(self) -> None:
        """Raise CorruptStream unless everything was consumed and every lane is back in its first state.

        This finds truncation always and other damage nearly always (16 bits a lane); it is not a cryptographic check.
        """

def instruction_sets() -> list[str]:
    """Those of "scalar", "avx2", "avx512" and "neon" that this machine has."""

def choose_lanes(n_symbols: int) -> int:
    """1, 4, 8 or 32: the most lanes likely to cost less than 0.2 % of a payload of n_symbols coded symbols."""
