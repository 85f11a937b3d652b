"""What is measured, as graphs that all devices share: files of ONNX, the codec's models, trained networks' folders."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.devices import Absent, Torch, cuda, needed
from rate.graph import fixed, inputs, load
from rate.numbers import Numbers, of_type
from rate.onnxfile import Graph

Feed = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]
INTEGERS = {  # inputs of the codec's graphs, as codec.network has them: narrow, or 16 bits of steps
    **dict.fromkeys(("psi", "t", "inter"), of_type(8, True)),
    **dict.fromkeys(("y_hat", "z_hat", "before", "anchor"), of_type(16, True)),
}
QP = 32  # of the codec's graphs; their cost is the same at any


@dataclass(frozen=True)
class Subject:
    """graphs: one or several that run in turn, sizes fixed, as a runtime gets them, and counted: as they are counted,
    which is the same or, where both were exported, QONNX; numbers: of inputs that are integers of few bits. torch: the
    same on a device, "cpu" or "cuda"; raises Absent. pixels: of the picture that goes in or comes out, 0 where none is.
    """

    name: str
    graphs: Sequence[Any]
    feeds: Sequence[Feed]
    counted: Sequence[Any]
    torch: Callable[[str], Torch]
    pixels: int
    numbers: Mapping[str, Numbers] = field(default_factory=dict)


def find(what: str, size: tuple[int, int], shapes: Shapes) -> list[Subject]:
    """A file of ONNX, a bundle's name or file, or the folder of a network that quant.train or nas.train left.

    size: width and height of the picture that a codec codes or super-resolution makes. shapes: of inputs of a file that
    leaves them free, by their names; "" stands for the only one. Raises ValueError, OSError, CodecError.
    """
    path = Path(what)
    if path.is_dir():
        if (path / "arch.json").is_file():
            return [_searched(path, size)]
        if (path / "config.json").is_file():
            return [_trained(path)]
        raise ValueError(f"{what} has neither config.json of quant.train nor arch.json of nas.train")
    if path.suffix == ".onnx":
        return [_file(path, shapes)]
    return _codec(what, size)


def _on_no_device(why: str) -> Callable[[str], Torch]:
    def refuse(_: str) -> Torch:
        raise Absent(why)

    return refuse


def _module(model: Any, x: Any) -> Callable[[str], Torch]:
    """A torch module and its input, on a device."""
    modules = tuple(sorted({type(m).__module__ for m in model.modules()} | {"torch"}))

    def on(device: str) -> Torch:
        if device == "cuda":
            cuda()
        return Torch(copy.deepcopy(model).to(device), (x.to(device),), modules)

    return on


def _pixels(model: Any) -> int:
    """Of the largest input or output with three channels."""
    shapes, graph = Graph(model).shapes, model.graph
    found = [shapes[t.name] for t in (*graph.input, *graph.output) if t.name in shapes]
    return max((s[0] * s[2] * s[3] for s in found if len(s) == 4 and s[1] == 3), default=0)


# -- files ----------------------------------------------------------------------------------------------------------
def _file(path: Path, shapes: Shapes) -> Subject:
    model = load(path)
    only = list(inputs(model))
    if "" in shapes and len(only) != 1:
        raise ValueError(f"{path} has {len(only)} inputs: give --shape NAME=... of {', '.join(only)}")
    try:
        model = fixed(model, {name or only[0]: shape for name, shape in shapes.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    why = "a file of ONNX is no network of torch: name the model or the folder that it was exported from"
    return Subject(path.stem, [model], [_made_up(model)], [model], _on_no_device(why), _pixels(model))


def _made_up(model: Any) -> Feed:
    """Normal numbers, or zeros of integers, which are mostly indexes."""
    import onnx

    random, feed = np.random.default_rng(0), Feed()
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    for name, shape in inputs(model).items():
        kind = onnx.helper.tensor_dtype_to_np_dtype(kinds[name])
        sizes = [int(d) for d in shape]
        values = random.standard_normal(sizes) if kind.kind == "f" else np.zeros(sizes)
        feed[name] = values.astype(kind)
    return feed


# -- trained networks -----------------------------------------------------------------------------------------------
def _trained(folder: Path) -> Subject:
    """Of quant.train, frozen as quant.export does it."""
    import torch

    from quant import export
    from quant.freeze import freeze

    torch.manual_seed(0)  # of the samples that scales are chosen by
    options, examples, model = export.load(folder, None)
    frozen = freeze(model, export._inputs(options, examples, 4))
    x = next(iter(export._inputs(options, examples, 1)))[:1]
    return _exported(options.model, frozen, x, (0,))


def _searched(folder: Path, size: tuple[int, int]) -> Subject:
    """Of nas.train, deployed as nas.export does it."""
    import torch

    from nas.eval import load as trained
    from nas.export import FREE, deployed

    model, architecture = trained(folder)
    scale = int(architecture.options.get("scale", 4))
    if size[0] % scale or size[1] % scale:
        raise ValueError(f"{size[0]}x{size[1]} is no picture that {folder} makes: it enlarges {scale} times")
    torch.manual_seed(0)
    x = torch.rand(1, 3, size[1] // scale, size[0] // scale)
    return _exported(f"{architecture.space}-x{scale}", deployed(model), x, FREE)


def _exported(name: str, model: Any, x: Any, free: tuple[int, ...]) -> Subject:
    from quant.export import qcdq, qonnx, traced

    run, counted = (fixed(form(traced(model, x, free)), {"x": tuple(x.shape)}) for form in (qcdq, qonnx))
    return Subject(name, [run], [{"x": x.numpy()}], [counted], _module(model, x), _pixels(run))


# -- the codec ------------------------------------------------------------------------------------------------------
class Steps:
    """Functions of codec.network, one after the other, on arrays that only they need: a part of the codec in torch."""

    def __init__(self, ops: Any, config: Any, steps: Sequence[tuple[Any, tuple[Any, ...]]]):
        self.config, self.steps = config, steps
        used: dict[str, Any] = {}
        every, ops.p = ops.p, lambda name: used.setdefault(name, every(name))
        try:
            self.ops = ops
            self()
        finally:
            ops.p = every
        self.ops = type(ops)(used.__getitem__, ops.kind)

    def __call__(self) -> list[Any]:
        return [f(self.ops, self.config, *arrays, QP) for f, arrays in self.steps]


def _codec(what: str, size: tuple[int, int]) -> list[Subject]:
    """g_a with h_a, g_s, and all that entropy parameters take, on a picture that is made up."""
    from codec import network
    from codec.bundle import find as bundle_of
    from codec.modes import UNIT
    from codec.runtime.onnx import OnnxRuntime
    from codec.runtime.walk import PSI

    if size[0] % 64 or size[1] % 64:
        raise ValueError(f"the codec's graphs take multiples of 64 pixels, not {size[0]}x{size[1]}")
    bundle = bundle_of(what)
    runtime = OnnxRuntime(bundle)
    cfg, qp = bundle.config, np.asarray(QP, np.int64)
    x = _picture(*size)
    y, z = runtime.analyse(x, QP)
    y_hat, z_hat = (np.rint(a).astype(np.float32) * UNIT for a in (y, z))
    psi = runtime.hyper(z_hat, QP)
    fed: dict[str, Feed] = {
        "analysis": {"x": x}, "synthesis": {"y_hat": y_hat, "psi": psi}, "hyper": {"z_hat": z_hat},
    }  # fmt: skip
    entropy: list[tuple[Any, list[tuple[NDArray[Any] | None, int]]]] = [(network.h_s, [(fed["hyper"]["z_hat"], UNIT)])]
    checkers = np.indices(y.shape[2:]).sum(0) % 2
    for i, width in enumerate(cfg.slices):
        lo = sum(cfg.slices[:i])
        before, anchor = y_hat[:, :lo] if i else None, y_hat[:, lo : lo + width] * checkers.astype(np.float32)
        t, inter, _, _ = runtime.anchors(i, psi, before, QP)
        fed[f"anchors{i}"] = {"psi": psi} if before is None else {"psi": psi, "before": before}
        fed[f"others{i}"] = {"t": t, "inter": inter, "anchor": anchor}
        entropy += [
            (_slice(network.anchors, i), [(psi, PSI), (before, UNIT)]),
            (_slice(network.others, i), [(t, PSI), (inter, PSI), (anchor, UNIT)]),
        ]
    parts: dict[str, tuple[list[str], Sequence[tuple[Any, Any]], str]] = {
        "analysis": (["analysis"], [(_analysis, [(x, 1)])], "transforms"),
        "entropy": ([n for n in fed if n not in ("analysis", "synthesis")], entropy, "entropy"),
        "synthesis": (["synthesis"], [(network.g_s, [(y_hat, UNIT), (psi, PSI)])], "transforms"),
    }
    subjects = []
    for part, (names, steps, executor) in parts.items():
        graphs, feeds = [], []
        for name in names:
            model = with_arrays(bundle, runtime, name)
            wanted = inputs(model)
            feed = {n: a.astype(np.float32) for n, a in fed[name].items()} | ({"qp": qp} if "qp" in wanted else {})
            graphs.append(fixed(model, {n: a.shape for n, a in feed.items()}))
            feeds.append(feed)
        if part == "synthesis" and bundle.synthesis_is_a_graph:
            torch = _on_no_device("this bundle's synthesis is a graph: name the folder that nas.train left")
        else:
            torch = _steps(bundle, executor, steps)
        whole = size[0] * size[1]
        subjects.append(Subject(f"{bundle.name}.{part}", graphs, feeds, graphs, torch, whole, INTEGERS))
    return subjects


class _slice:
    """A function of codec.network at slice i; a class, so that it can be pickled."""

    def __init__(self, f: Any, i: int):
        self.f, self.i = f, i

    def __call__(self, ops: Any, cfg: Any, *arrays: Any) -> Any:
        return self.f(ops, cfg, self.i, *arrays)


def _analysis(ops: Any, cfg: Any, x: Any, qp: int) -> Any:
    from codec import network

    signal = network.g_a(ops, cfg, x, qp)
    return signal * ops.vector("y/gain", qp), network.h_a(ops, cfg, signal, qp)


def _steps(bundle: Any, executor: str, steps: Sequence[tuple[Any, Any]]) -> Callable[[str], Torch]:
    def on(device: str) -> Torch:
        torch = cuda() if device == "cuda" else needed("torch", "pip install torch")

        from codec.runtime.torch import TorchRuntime

        runtime = TorchRuntime(bundle, device=device)
        entered = [
            (f, tuple(None if a is None else runtime.enter(a, unit) for a, unit in arrays)) for f, arrays in steps
        ]
        with torch.inference_mode():
            part = Steps(getattr(runtime, executor), bundle.config, entered)
        return Torch(part, (), ("torch", "bench.subjects", "codec.runtime.torch"))

    return on


def _picture(width: int, height: int) -> NDArray[np.float32]:
    """Waves of three colours with a little noise, (1, 3, height, width) in -1..1."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / (17 + 9 * c)) * np.cos(rows / (23 - 5 * c)) for c in range(3)]
    noisy = 0.7 * np.stack(waves) + 0.05 * random.standard_normal((3, height, width))
    return np.clip(noisy, -1, 1).astype(np.float32)[None]


def with_arrays(bundle: Any, runtime: Any, name: str) -> Any:
    """A bundle's graph with its arrays inside: weights of the entropy path as int8 with a scale for each output, so
    that the graph itself says what they take."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(bundle.arrays[f"graph/{name}"].tobytes())
    inside, first = [t for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL], []
    for label in bundle.metadata[f"arrays/{name}"].split():
        values = np.ascontiguousarray(runtime.initializer(label))
        base = label.partition("@")[0]
        if base.endswith("/weight") and f"integer/{base}" in bundle.arrays:
            codes = bundle.arrays[f"integer/{base}"].reshape(values.shape)
            scale = np.exp2(int(label.partition("@")[2]) - 4 - bundle.arrays[f"integer/{base[:-7]}/exponent"])
            inside += [numpy_helper.from_array(codes, f"{label}.codes"),
                       numpy_helper.from_array(scale.astype(np.float32), f"{label}.scale")]  # fmt: skip
            first.append(helper.make_node("DequantizeLinear", [f"{label}.codes", f"{label}.scale"], [label], axis=0))
        else:
            inside.append(numpy_helper.from_array(values, label))
    nodes = [*first, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(inside)
    model.graph.node.extend(nodes)
    return model
