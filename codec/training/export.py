"""Turn the averaged weights of a training run into a model bundle.

    codec export RUN OUT.safetensors                # RUN: the folder of a trunk or branch; writes OUT.float.npz too
    codec export RUN OUT.safetensors --data PHOTOS  # the coder's tables fitted to photographs: files 0.7 % smaller

The entropy path is rounded to the integers it was trained to bear, per-QP vectors are evaluated at all 64 levels, the
coder's tables are made, and the graphs written. The bundle's ids are hashes of what it holds. OUT.float.npz holds what
a later training needs beyond the bundle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from codec import files, network, tables
from codec.bundle import DRAWING, VERSION, analysing, identity
from codec.config import QPS, Config
from codec.container import BLOCK
from codec.manifest import SUFFIX
from codec.models.mlicv2 import MLICv2, qp_weights
from codec.models.ops import row_exponents
from codec.network import NARROW
from codec.ops.onnx import OnnxOps, Value
from codec.training import weights
from codec.training.counted import symbols
from codec.training.data import load_pictures
from codec.training.train import SKIP
from rate.options import Parser

FLOAT_SUM = 1 << 24  # integers below this are exact in float32


def integer_layer(weight: Tensor, bias: Tensor | None) -> dict[str, NDArray]:
    """A layer of the entropy path: int8 rows, exponents, int32 biases in units of the products."""
    exponent = row_exponents(weight)
    w = torch.floor(weight * torch.exp2(exponent) + 0.5).clamp(-127, 127)
    arrays = {"weight": w.numpy().astype(np.int8), "exponent": exponent.flatten().numpy().astype(np.int8)}
    bound = w.double().abs().sum(1) * 128 + 0.5 * torch.exp2(exponent.flatten() + NARROW[0])
    if bias is not None:
        b = torch.floor(bias.double() * torch.exp2(exponent.flatten().double() + NARROW[0]) + 0.5)
        arrays["bias"] = b.numpy().astype(np.int32)
        bound += b.abs()
    if bound.max() >= FLOAT_SUM:
        raise SystemExit(f"a layer's sums reach {bound.max():.0f}, which float32 cannot hold exactly: train with CLIP")
    return arrays


def integer_part(model: MLICv2, counts: NDArray[np.int64] | None = None) -> dict[str, NDArray]:
    """Everything that the bit stream depends on. counts: of codec.training.counted, for the tables."""
    arrays = model.arrays
    part: dict[str, NDArray] = {}
    for name in arrays:
        layer, _, kind = name.rpartition("/")
        if name.startswith(("h_s/", "slice/")) and kind == "weight":
            bias = arrays.get(f"{layer}/bias")
            part |= {f"{layer}/{n}": a for n, a in integer_layer(arrays[name], bias).items()}
    qp = qp_weights(torch.arange(QPS))
    log_gain = model.entropy.log_gain(qp, 0, model.cfg.latents)[:, 0, 0].double()
    for name, gain in (("y/to_steps", log_gain.exp()), ("y/to_signal", (-log_gain).exp())):
        exponent = 7 - torch.floor(torch.log2(gain))
        part[name] = torch.floor(gain * torch.exp2(exponent) + 0.5).numpy().astype(np.int16)
        part[f"{name}/exponent"] = exponent.numpy().astype(np.int8)
    index = (log_gain - tables.LOG_SCALE_MIN) / tables.INDEX_STEP
    part["y/index"] = torch.floor(index * 16 + 0.5).numpy().astype(np.int16)
    part["h_s/offset"] = torch.floor(qp @ arrays["h_s/offset"] * 16 + 0.5).numpy().astype(np.int16)
    mean, z_index = (t[:, 0, 0] for t in model.z_parameters(qp))
    part["z/mean"] = torch.floor(mean * 64 + 0.5).numpy().astype(np.int16)
    part["z/index"] = torch.floor(z_index + 0.5).clamp(0, tables.SCALES - 1).numpy().astype(np.uint8)
    part["exp"] = np.array([round(65535 * np.exp(-i / 16)) for i in range(256)], np.uint16)
    part["skip"] = np.array([SKIP], np.uint8)
    return part | {f"tables/{n}": a for n, a in tables.build(counts=counts).items()}


def float_part(model: MLICv2) -> dict[str, NDArray]:
    """Transforms and their per-QP vectors: scales as factors, offsets as they are."""
    qp = qp_weights(torch.arange(QPS))
    part: dict[str, NDArray] = {}
    for name, a in model.arrays.items():
        if name.startswith(("h_s/", "slice/", "z/")):
            continue
        values = a if name.endswith(("/weight", "/bias")) or a.ndim == 1 else qp @ a
        if name in ("g_a/gain", "g_s/gain", "y/gain", "y/reconstruct"):
            values = values.exp()
        part[name] = values.numpy().astype(np.float16)
    return part


def graphs(cfg: Config) -> dict[str, tuple[bytes, list[str]]]:
    """Name -> (ONNX graph, arrays it needs)."""
    made: dict[str, tuple[bytes, list[str]]] = {}

    def graph(name: str, integers: bool, inputs: dict[str, int], body: Callable[..., dict[str, Value]]) -> None:
        o = OnnxOps(integers)
        o.latents = cfg.latents
        outputs = body(o, *(Value(n, c) for n, c in inputs.items()))
        data = o.model(name, inputs, outputs)
        made[name] = (data, list(o.used))

    def analysis(o: Any, x: Value) -> dict[str, Value]:
        signal = network.g_a(o, cfg, x, "qp")
        z = network.h_a(o, cfg, signal, "qp")
        return {"y": o.binary("Mul", signal, o.vector("y/gain", cfg.latents, "qp")), "z": z}

    def synthesis(o: Any, y_hat: Value, psi: Value) -> dict[str, Value]:
        y_hat, psi = o.binary("Mul", y_hat, 1 / 64), o.binary("Mul", psi, 1 / 16)
        return {"x": network.g_s(o, cfg, y_hat, psi, "qp")}

    graph("analysis", False, {"x": 3}, analysis)
    graph("synthesis", False, {"y_hat": cfg.latents, "psi": cfg.features}, synthesis)
    graph("hyper", True, {"z_hat": cfg.hyper}, lambda o, z: {"psi": network.h_s(o, cfg, z, "qp")})
    for i, c in enumerate(cfg.slices):
        psi_before = {"psi": cfg.features} | ({"before": sum(cfg.slices[:i])} if i else {})

        def anchors(o: Any, psi: Value, before: Value | None = None, i: int = i) -> dict[str, Value]:
            names = ("t", "inter", "mean", "index")
            return dict(zip(names, network.anchors(o, cfg, i, psi, before, "qp"), strict=True))

        def others(o: Any, t: Value, inter: Value, anchor: Value, i: int = i) -> dict[str, Value]:
            return dict(zip(("mean", "index"), network.others(o, cfg, i, t, inter, anchor, "qp"), strict=True))

        graph(f"anchors{i}", True, psi_before, anchors)
        graph(f"others{i}", True, {"t": cfg.features, "inter": cfg.context, "anchor": c}, others)
    return made


@torch.no_grad()
def write(model: MLICv2, path: Path, counts: NDArray[np.int64] | None = None) -> dict[str, str]:
    """Write the bundle; returns its metadata. counts: as for integer_part."""
    integers = {f"integer/{n}": a for n, a in integer_part(model, counts).items()}
    floats = {f"float/{n}": a for n, a in float_part(model).items()}
    shown = {n: a for n, a in floats.items() if n.startswith(DRAWING)}
    metadata = {
        "mlic_bundle": VERSION, "config": json.dumps(model.cfg.to_dict()),
        "model_id": identity(integers, 4).hex(), "synthesis_id": identity(shown, 2).hex(),
        "analysis_id": identity(analysing(floats), 2).hex(),
    }  # fmt: skip
    arrays = integers | floats
    for name, (data, used) in graphs(model.cfg).items():
        arrays[f"graph/{name}"] = np.frombuffer(data, np.uint8)
        metadata[f"arrays/{name}"] = " ".join(used)
    files.write(str(path), save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, metadata))
    return metadata


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="codec export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("out", type=Path, help="the bundle to write, NAME.safetensors")
    parser.add_argument(
        "--data", type=Path, metavar="PHOTOS", help="8 or more, or tar archives of them, for the tables"
    )
    args = parser.parse_args(argv)
    if args.out.suffix != SUFFIX:
        parser.error(f"{args.out} is no name for a bundle: end it in {SUFFIX}")
    beside = weights.beside(args.out)
    for target in (args.out, beside):
        files.check_target(str(target))
    model = weights.load(args.run)
    pictures = load_pictures(args.data, BLOCK)[0] if args.data else []
    counts = None
    if pictures:
        with TemporaryDirectory() as folder:
            write(model, Path(folder) / args.out.name)
            counts = symbols(Path(folder) / args.out.name, pictures)
    metadata = write(model, args.out, counts)
    weights.save_beside(model, args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes, model {metadata['model_id']}, synthesis "
          f"{metadata['synthesis_id']}; {beside}: for `codec train --from`", file=sys.stderr)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
