"""Write a trained network as ONNX, with the integers that it computes.

    python -m quant.export RUN/seed-0 --out net.onnx
    python -m quant.export RUN/seed-0 --out net.onnx --qonnx net.qonnx.onnx

RUN is a folder of quant.train. net.onnx is QCDQ: QuantizeLinear, Clip and DequantizeLinear around float operators,
which ONNX Runtime and others run; weights of up to 4 bits are stored as INT4, of 5 and 6 bits in four and two bits, of
7 and 8 as INT8, above as INT16. The other form has Quant nodes of QONNX. All scales are powers of two, so that products
and sums of codes are exact in float32 and codes the same everywhere, up to a last pooling or a Transformer's norms,
which are floating point.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quant import data, training
from quant.config import ShiftQuantConfig
from quant.freeze import Frozen, freeze
from quant.networks import CONTEXT, NETWORKS
from rate import entropy_bits
from rate.options import Parser, one_line

OPSET = 21  # the first with 4-bit integers


def traced(model: nn.Module, example: Tensor, free: tuple[int, ...] = (0,)) -> Any:
    """The network as ONNX with nodes narrowbit::Activation and narrowbit::Weight; `free` dimensions, of x and y, may
    have any size."""
    return export_onnx(model, (example,), ["x"], ["y"], {t: {d: f"{t}{d}" for d in free} for t in "xy"})


def export_onnx(
    model: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], sizes: dict[str, dict[int, str]]
) -> Any:
    """The same with any inputs; sizes: of each tensor, the dimensions that are free, and their names."""
    import onnx

    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, inputs, written, dynamo=False, opset_version=18, custom_opsets={"narrowbit": 1}, input_names=names,
            output_names=outputs, dynamic_axes=sizes, do_constant_folding=False,
        )  # fmt: skip
    made = onnx.load_from_string(written.getvalue())
    del made.opset_import[:]
    made.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    made.ir_version = 10
    return made


def _attributes(node: Any) -> dict[str, int]:
    return {a.name: a.i for a in node.attribute}


class _Graph:
    """The nodes of a graph made anew, and its initializers by name."""

    def __init__(self, model: Any):
        import onnx

        self.onnx, self.model = onnx, model
        self.arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes: list[Any] = []
        self.added: list[Any] = []
        self.gone: set[str] = set()

    def constant(self, name: str, value: Any, kind: int) -> str:
        value = np.asarray(value)
        self.added.append(self.onnx.helper.make_tensor(name, kind, value.shape, value.flatten().tolist()))
        return name

    def integers(self, name: str, codes: NDArray, kind: int) -> str:
        """As few bytes as they need: of INT4 two to a byte."""
        flat = codes.flatten()
        if kind == self.onnx.TensorProto.INT4:
            pairs = np.pad(flat.astype(np.int8), (0, len(flat) % 2)).reshape(-1, 2).view(np.uint8)
            raw = (pairs[:, 0] & 15 | pairs[:, 1] << 4).astype(np.uint8).tobytes()
        else:
            raw = flat.tobytes()
        self.added.append(self.onnx.helper.make_tensor(name, kind, codes.shape, raw, raw=True))
        return name

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
        return output

    def finish(self) -> Any:
        graph = self.model.graph
        kept = [t for t in graph.initializer if t.name not in self.gone] + self.added
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(kept)
        return self.model


def qcdq(model: Any) -> Any:
    """Operators that every runtime has, in place of ours."""
    g = _Graph(model)
    kinds = g.onnx.TensorProto
    for node in model.graph.node:
        if node.domain != "narrowbit":
            g.nodes.append(node)
            continue
        a, name = _attributes(node), node.output[0]
        if node.op_type == "Activation":
            signed, wide, x = a["lowest"] < 0, a["bits"] > 8, node.input[0]
            if wide:  # runtimes clip no integers of 16 bits
                ends = [g.constant(f"{name}.{e}", a[e] * 2.0 ** a["power"], kinds.FLOAT) for e in ("lowest", "largest")]
                x = g.op("Clip", [x, *ends], f"{name}.real")
            kind = (kinds.INT16 if signed else kinds.UINT16) if wide else kinds.INT8 if signed else kinds.UINT8
            scale, zero = (
                g.constant(f"{name}.scale", 2.0 ** a["power"], kinds.FLOAT),
                g.constant(f"{name}.zero", 0, kind),
            )
            codes = g.op("QuantizeLinear", [x, scale, zero], f"{name}.codes")
            if not wide and (a["lowest"], a["largest"]) != ((-128, 127) if signed else (0, 255)):
                ends = [g.constant(f"{name}.{end}", a[end], kind) for end in ("lowest", "largest")]
                codes = g.op("Clip", [codes, *ends], f"{name}.clipped")
            g.op("DequantizeLinear", [codes, scale, zero], name)
        else:
            _stored(g, node.input[0], name, a["power"], a["bits"])
    return g.finish()


def _stored(g: _Graph, weight: str, name: str, power: int, bits: int) -> None:
    """Weights in no more bits than 4, 6, 8 or 16, and what makes real numbers of them."""
    kinds, codes = g.onnx.TensorProto, g.arrays[weight]
    g.gone.add(weight)
    if bits <= 4 or bits > 6:
        kind = kinds.INT4 if bits <= 4 else kinds.INT8 if bits <= 8 else kinds.INT16
        stored = g.integers(f"{name}.codes", codes, kind)
        g.op("DequantizeLinear", [stored, g.constant(f"{name}.scale", 2.0**power, kinds.FLOAT)], name)
        return
    # code = 4 upper + lower: four bits of each in INT4, two bits in bytes of four
    lower = np.pad(codes.flatten() & 3, (0, -codes.size % 4)).astype(np.uint8).reshape(-1, 4)
    upper = g.integers(f"{name}.upper", codes >> 2, kinds.INT4)
    g.op("DequantizeLinear", [upper, g.constant(f"{name}.scale4", 2.0 ** (power + 2), kinds.FLOAT)], f"{name}.high")
    packed = (lower << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8)[:, None]
    places = g.constant(f"{name}.places", [[0, 2, 4, 6]], kinds.UINT8)
    shifted = g.op(
        "BitShift", [g.integers(f"{name}.packed", packed, kinds.UINT8), places], f"{name}.shifted", direction="RIGHT"
    )
    four = g.op("BitwiseAnd", [shifted, g.constant(f"{name}.three", 3, kinds.UINT8)], f"{name}.four")
    flat = g.op("Reshape", [four, g.constant(f"{name}.flat", [-1], kinds.INT64)], f"{name}.flattened")
    ends = [g.constant(f"{name}.{n}", [v], kinds.INT64) for n, v in (("first", 0), ("last", codes.size))]
    flat = g.op("Slice", [flat, *ends], f"{name}.cut")
    flat = g.op("Reshape", [flat, g.constant(f"{name}.shape", codes.shape, kinds.INT64)], f"{name}.lower")
    real = g.op("Cast", [flat], f"{name}.real", to=kinds.FLOAT)
    low = g.op("Mul", [real, g.constant(f"{name}.scale1", 2.0**power, kinds.FLOAT)], f"{name}.low")
    g.op("Add", [f"{name}.high", low], name)


def qonnx(model: Any) -> Any:
    """Quant nodes of QONNX (arXiv 2206.07527) in place of ours; weights are real numbers, as it has them."""
    g = _Graph(model)
    kinds = g.onnx.TensorProto
    domain = "qonnx.custom_op.general"
    model.opset_import.append(g.onnx.helper.make_opsetid(domain, 1))
    for node in model.graph.node:
        if node.domain != "narrowbit":
            g.nodes.append(node)
            continue
        a, name = _attributes(node), node.output[0]
        half = 2 ** (a["bits"] - 1)
        lowest = a.get("lowest", -half)  # weights have none: they are in range
        signed, narrow = lowest in (-half, 1 - half), lowest == 1 - half
        scale, zero, width = (
            g.constant(f"{name}.{n}", float(v), kinds.FLOAT)
            for n, v in (("scale", 2.0 ** a["power"]), ("zero", 0 if signed else -lowest), ("bits", a["bits"]))
        )
        source = node.input[0]
        if node.op_type == "Weight":
            g.gone.add(source)
            source = g.constant(f"{name}.values", g.arrays[source] * 2.0 ** a["power"], kinds.FLOAT)
        g.op(
            "Quant", [source, scale, zero, width], name, domain=domain, signed=int(signed), narrow=int(narrow),
            rounding_mode="ROUND",
        )  # fmt: skip
    return g.finish()


def cost(model: nn.Module) -> dict[str, float]:
    """Of all frozen layers: weights, bits a weight as trained, and under the order-0 entropy of each layer's codes."""
    layers = [m for m in model.modules() if isinstance(m, Frozen)]
    count = sum(m.codes.numel() for m in layers)
    entropy = sum(entropy_bits(np.bincount(m.codes.flatten().numpy().astype(np.int64) + 128)) for m in layers)
    return {
        "weights": count, "bits": sum(m.codes.numel() * m.bits_w for m in layers) / count,
        "entropy_bits": entropy / count,
    }  # fmt: skip


def load(folder: Path, source: str | None) -> tuple[training.Options, data.Examples, nn.Module]:
    """A run's options, data and network. Raises ValueError, OSError."""
    try:
        fields = json.loads((folder / "config.json").read_text())
        version, config = fields.pop("version", None), fields.pop("config")
        if version != training.VERSION:
            raise ValueError(f"{folder} was trained by another version of quant.train")
        if config is None:
            raise ValueError(f"{folder} was trained in floating point: there are no integers to write")
        options = training.Options(**fields, config=ShiftQuantConfig.from_dict(config))
        if options.model not in NETWORKS:
            raise ValueError(f"{folder} was trained with a network {options.model}, which is unknown")
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged, or of another program") from error
    examples = data.load(source or options.data)
    model = training.build(options, examples.classes)
    if (options.model == "char") == bool(examples.test_labels.size):
        raise ValueError(f"{options.model} does not take {source or options.data}")
    try:
        model.load_state_dict(training.checkpoint(folder)["model"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{folder / training.CHECKPOINT} is of another network") from error
    return options, examples, model


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 with one line for what went wrong, 130 where it was stopped."""
    p = Parser(prog="python -m quant.export", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN/seed-N", help="folder that quant.train filled")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX, as QCDQ")
    p.add_argument("--qonnx", type=Path, metavar="FILE", help="the same as QONNX")
    p.add_argument("--data", metavar="KIND:FOLDER", help="where the run's data are now, to choose scales by")
    p.add_argument("--json", type=Path, metavar="FILE", help="what is printed, for programs")
    args = p.parse_args(argv)
    try:
        outputs = [p for p in (args.out, args.qonnx, args.json) if p is not None]
        _check_outputs(outputs, args.run)
        options, examples, model = load(args.run, args.data)
        frozen = freeze(model, _inputs(options, examples, 4))
        example = next(iter(_inputs(options, examples, 1)))[:2]
        made = qcdq(traced(frozen, example)).SerializeToString()
        results = {
            "trained": training.judge(options, model, examples),
            "exported": training.judge(training.Options(**{**vars(options), "real": "float32"}), frozen, examples),
            "bytes": len(made), **cost(frozen),
        }  # fmt: skip
        other = qonnx(traced(frozen, example)).SerializeToString() if args.qonnx else b""
        training.replace(args.out, made)
        if args.qonnx:
            training.replace(args.qonnx, other)
        if args.json:
            training.replace(args.json, json.dumps(results, indent=1) + "\n")
    except (ValueError, OSError, ImportError) as error:
        print(f"quant.export: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquant.export: interrupted, nothing was written", file=sys.stderr)
        return 130
    unit = "%" if examples.test_labels.size else "bits per character"
    print(
        f"{args.out}: {len(made):,} bytes for {results['weights']:,} weights of {results['bits']:.2f} bits "
        f"({results['entropy_bits']:.2f} entropy coded); test {results['exported']:.2f} {unit}, "
        f"{results['trained']:.2f} before scales were fixed"
    )
    return 0


def _check_outputs(outputs: list[Path], run: Path) -> None:
    """Raises ValueError now for what would fail, or take something away, after the work."""
    if len({p.resolve() for p in outputs}) < len(outputs):
        raise ValueError("--out, --qonnx and --json are different files")
    for p in outputs:
        if p.is_dir() or not p.resolve().parent.is_dir():
            raise ValueError(f"{p} cannot be written: name a file in a folder that is there")
        if not os.access(p.resolve().parent, os.W_OK):
            raise ValueError(f"{p} cannot be written: choose another folder or change its permissions")
        if p.resolve().parent == run.resolve():
            raise ValueError(f"{p} would lie among the files of the run: choose another folder")


def _inputs(options: training.Options, examples: data.Examples, count: int) -> list[Tensor]:
    """Batches of training examples, as the network takes them; not augmented."""
    if not examples.test_labels.size:
        text = torch.from_numpy(examples.train[: count * 16 * CONTEXT].copy())
        return list(text.view(-1, 16, CONTEXT))
    return [data.to_signal(examples.train[128 * i : 128 * (i + 1)]) for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
