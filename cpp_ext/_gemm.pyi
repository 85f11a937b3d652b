"""Products of 8-bit integers, and codes for them; gemm.hpp and quantize.hpp say how arrays lie.

Arrays are C-contiguous, of numpy or torch; outputs are written in place. Arrays of the wrong size raise ValueError.
threads: 0 for as many as OpenMP would take.
"""

from typing import Any

COLUMNS: int

def isa() -> str:
    """The instruction set in use: scalar, avx2 or avx512. Raises ValueError if MLIC_CPU asks for what is not there."""

def pack(b: Any, panels: Any, corrections: Any) -> None: ...
def multiply(threads: int, a: Any, panels: Any, corrections: Any, c: Any) -> None: ...
def ranges(threads: int, x: Any, bits: Any) -> None: ...
def rows(threads: int, x: Any, inverse: Any, shifts: Any, largest: int, seed: int | None, bytes: Any) -> None: ...
