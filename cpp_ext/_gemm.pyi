"""Integer kernels of quant: products, convolutions, codes, normalization; gemm.hpp, conv.hpp, quantize.hpp and
norm.hpp say how arrays lie. Real numbers are float32, or bfloat16 as uint16.

Arrays are C-contiguous, of numpy or torch; outputs are written in place. Arrays of the wrong size raise ValueError.
threads: 0 for as many as OpenMP would take.
"""

from typing import Any

COLUMNS: int
LINE: int
MOST_POSITIONS: int
SIGNS: int
STATISTICS: int

def isa() -> str:
    """The instruction set in use: scalar, avx2 or avx512. Raises ValueError if MLIC_CPU asks for what is not there."""

def pack(b: Any, panels: Any, corrections: Any) -> None: ...
def multiply(threads: int, a: Any, panels: Any, corrections: Any, c: Any) -> None: ...
def ranges(threads: int, x: Any, bits: Any) -> None: ...
def row_ranges(threads: int, x: Any, factors: Any, bits: Any) -> None: ...
def scaled_ranges(threads: int, x: Any, factors: Any, sizes: Any) -> None: ...
def rows(
    threads: int, x: Any, inverse: Any, shifts: Any, lowest: int, largest: int, seed: int | None, bytes: Any
) -> None: ...
def relu(threads: int, x: Any, y: Any, bits: Any) -> None: ...
def relu_backward(threads: int, dy: Any, bits: Any, dx: Any) -> None: ...
def saved_size(images: int, height: int, width: int, inputs: int, groups: int, bits: int) -> int: ...
def convolve_forward(
    threads: int, x: Any, inverse: Any, shifts: Any, lowest: int, largest: int, bits: int, weights: Any, groups: int,
    stride: int, padding: int, scale: float, y: Any, saved: Any,
) -> None: ...  # fmt: skip
def multiply_rows(
    threads: int, x: Any, rows: Any, lowest: int, largest: int, bits: int, weights: Any, columns: int, scale: Any,
    scale_w: Any, y: Any, saved: Any,
) -> None: ...  # fmt: skip
def multiply_rows_backward(
    threads: int, dy: Any, inverse: Any, rows: Any, inverse_w: Any, rows_w: Any, largest: int, seed: int | None,
    bits: int, lowest: int, saved: Any, weights: Any, columns: int, scale: Any, dx: Any, wanted: bool, dw: Any | None,
) -> None: ...  # fmt: skip
def convolve_backward(
    threads: int, dy: Any, inverse: Any, shifts: Any, inverse_w: Any | None, shifts_w: Any | None, of_rows: int,
    range: float, largest: int, seed: int | None, bits: int, lowest: int, saved: Any, weights: Any, groups: int,
    stride: int, padding: int, scales: Any, dx: Any, wanted: bool, dw: Any | None,
) -> None: ...  # fmt: skip
def normalize(
    threads: int, x: Any, gamma: Any, beta: Any, eps: float, z: Any, kept: Any, statistics: Any, mean: Any,
    scale: Any,
) -> bool: ...  # fmt: skip
def normalize_backward(
    threads: int, dz: Any, gamma: Any, kept: Any, statistics: Any, dx: Any, dgamma: Any, dbeta: Any
) -> bool: ...
def normalize_rows(
    threads: int, x: Any, gamma: Any, beta: Any, eps: float, z: Any, kept: Any, statistics: Any
) -> bool: ...
def normalize_rows_backward(
    threads: int, dz: Any, gamma: Any, kept: Any, statistics: Any, dx: Any, dgamma: Any, dbeta: Any
) -> bool: ...
