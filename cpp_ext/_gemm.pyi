"""Products of 8-bit integers; gemm.hpp says how arrays lie.

Arrays are C-contiguous, of numpy or torch; outputs are written in place. Arrays of the wrong size raise ValueError.
threads: 0 for as many as OpenMP would take.
"""

from typing import Any

COLUMNS: int

def isa() -> str:
    """The instruction set in use: scalar, avx2 or avx512. Raises ValueError if MLIC_CPU asks for what is not there."""

def pack(b: Any, panels: Any, corrections: Any) -> None: ...
def multiply(threads: int, a: Any, panels: Any, corrections: Any, c: Any) -> None: ...
