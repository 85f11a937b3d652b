"""The layers of codec.network on CPUs; layers.hpp says what each function does and the shapes of its arrays.

Arrays are C-contiguous float32, of numpy or torch; outputs are written in place. Arrays of the wrong size raise
ValueError. arithmetic: 0 float, 1 clipped, 2 rounded. threads: 0 for as many as OpenMP would take.
"""

from typing import Any

PANEL: int
half: Any  # the passes of training, narrow to depthwise_back, for bfloat16 between them and matrix products

def isa() -> str:
    """The instruction set in use: scalar, avx2 or avx512. Raises ValueError if MLIC_CPU asks for what is not there."""

def pack(weights: Any, panels: Any) -> None: ...
def linear(
    arithmetic: int,
    threads: int,
    form: int,
    x: Any,
    panels: Any,
    bias: Any | None,
    y: Any,
    residual: Any | None = None,
    narrow: Any | None = None,
) -> None: ...
def attention(threads: int, heads: int, q: Any, k: Any, v: Any, table: Any, out: Any) -> None: ...
def narrow(arithmetic: int, threads: int, x: Any, h: Any) -> None: ...
def act(arithmetic: int, threads: int, t: Any, h: Any) -> None: ...
def act_back(arithmetic: int, threads: int, t: Any, dh: Any, dt: Any, dbias: Any) -> None: ...
def gate(arithmetic: int, threads: int, uv: Any, h: Any) -> None: ...
def gate_back(arithmetic: int, threads: int, uv: Any, dh: Any, duv: Any, dbias: Any) -> None: ...
def add(arithmetic: int, threads: int, x: Any, r: Any, y: Any, h: Any | None = None) -> None: ...
def add_back(
    arithmetic: int, threads: int, x: Any, r: Any, dy: Any, dh: Any | None, dx: Any, dr: Any, dbias: Any
) -> None: ...
def depthwise(arithmetic: int, threads: int, x: Any, weights: Any, bias: Any, y: Any) -> None: ...
def depthwise_back(
    arithmetic: int,
    threads: int,
    x: Any,
    weights: Any,
    y: Any,
    dy: Any,
    passed: Any,
    dx: Any,
    dweights: Any | None,
    dbias: Any,
) -> None: ...
