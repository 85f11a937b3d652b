"""What a decoding of mlicv2-s would take on the engine of the suite `fpga`: cycles by the formula that simulation
confirms, seconds by a clock that is assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .report import Row, row

if TYPE_CHECKING:
    from quant.rtl.layer import Layer

SIZE = (768, 512)  # of the picture whose decoding is counted
DEVICE = "XC7Z045 (ZC706)"
DEVICE_LUTS = 218_600
MHZ = 200  # assumed: nothing here has timing
FILLED = 0.7  # of the LUTs of a device that may be used


def decoder_layers(size: tuple[int, int]) -> dict[str, list[tuple[Layer, tuple[int, int, int]]]]:
    """Convolutions of a decoding, by part, as layers of zeros, and the shapes of their inputs."""
    from codec import network
    from codec.config import CONFIGS
    from codec.ops.shapes import Counts, Shape, ShapeOps
    from quant.rtl.layer import Layer

    width, height = size
    found: list[tuple[Layer, tuple[int, int, int]]] = []

    class Listing(ShapeOps):
        def add_layer(self, x: Shape, out: int, weights: tuple[int, ...]) -> None:
            # The mean of a map is one position; a packed map has all lines of one and half its columns.
            scale = 2.0 ** -(round(-np.log2(x.area)) // 2) if x.area else 0.0
            h = round(height * scale) or 1
            zeros = np.zeros(out, np.int64)
            layer = Layer(np.zeros(weights, np.int8), zeros, zeros)
            found.append((layer, (x.channels, h, round(x.area * width * height) // h or 1)))

        def conv(self, x: Shape, name: str, out: int, form: object = None, bias: bool = True) -> Shape:
            self.add_layer(x, out, (out, x.channels, 1, 1))
            return super().conv(x, name, out, form, bias)

        def depthwise(self, x: Shape, name: str) -> Shape:
            self.add_layer(x, x.channels, (x.channels, 5, 5))
            return super().depthwise(x, name)

    cfg, ops = CONFIGS["mlicv2-s"], Listing(Counts())
    y, psi = Shape(cfg.latents, 1 / 256), Shape(cfg.features, 1 / 256)
    parts: dict[str, list[tuple[Layer, tuple[int, int, int]]]] = {}
    network.h_s(ops, cfg, Shape(cfg.hyper, 1 / 4096), None)
    for i, c in enumerate(cfg.slices):
        before = Shape(sum(cfg.slices[:i]), 1 / 256) if i else None
        t, inter, _, _ = network.anchors(ops, cfg, i, psi, before, None)
        network.others(ops, cfg, i, t, inter, Shape(c, 1 / 256), None)
    parts["entropy-part"] = found.copy()
    found.clear()
    network.g_s(ops, cfg, y, psi, None)
    parts["synthesis"] = found.copy()
    return parts


def decoding(side: int, values: dict[str, float | None]) -> list[Row]:
    """Cycles of a tile for the convolutions of mlicv2-s, and what follows for the device if its clock is as assumed."""
    from quant.rtl.engine import Shape
    from quant.rtl.kinds import KINDS
    from quant.rtl.program import cut, cycles

    rows: list[Row] = []
    total = products = 0
    for part, layers in decoder_layers(SIZE).items():
        here = 0
        for layer, shape in layers:
            here += cycles(cut(layer, np.broadcast_to(np.int8(0), shape), KINDS["int8"], Shape(side)))[0]
            products += layer.weights.size * shape[1] * shape[2]
        rows.append(row(f"fpga/decode/{part}/cycles", here, "cycles"))
        total += here
    rows += [
        row("fpga/decode/cycles", total, "cycles"),
        row("fpga/decode/products", products, "multiplications"),
        row("fpga/decode/busy", 100 * products / (total * side * side), "% of the array's multipliers", 1),
        row("fpga/decode/one-tile", total / MHZ / 1e6, "s, estimated", 3),
    ]
    for kind in ("int8", "fp16"):
        if lut := values.get(f"fpga/tile/{kind}/lut"):
            tiles = int(FILLED * DEVICE_LUTS / lut)
            rows.append(row(f"fpga/decode/{kind}/tiles", tiles, f"that {FILLED:.0%} of the device's LUTs hold"))
            if tiles:
                seconds = total / MHZ / 1e6 / tiles
                rows.append(row(f"fpga/decode/{kind}/all-tiles", seconds, "s, estimated, at best", 3))
    return rows
