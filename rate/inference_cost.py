"""QONNX's own report of what a graph costs, beside ours, layer by layer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rate.graph import Counted, Product
from rate.onnxfile import Graph

QUANTIZERS = ("Quant", "QuantizeLinear", "DequantizeLinear")
Figures = tuple[int, int, int]  # MACs, bit operations, bits of weights


@dataclass(frozen=True)
class Report:
    """Of qonnx.util.inference_cost, weights of zero counted as any; layers: the operator and the figures of each."""

    macs: int
    bitops: int
    weight_bits: int
    layers: tuple[tuple[str, Figures], ...]


def report(model: Any) -> Report:
    """Of a model with fixed inputs. Raises ImportError without qonnx, ValueError where it gives up on the graph."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.inference_cost import inference_cost

    logging.getLogger("qonnx").setLevel(logging.ERROR)
    try:
        found = inference_cost(ModelWrapper(_prepared(model)), discount_sparsity=False, cost_breakdown=True)
    except Exception as error:  # whatever its transformations raise
        raise ValueError(f"QONNX cannot report on this graph: {type(error).__name__}: {error}") from error
    layers = ((name.rpartition("_")[0], _figures(cost)) for name, cost in found["node_cost"].items())
    return Report(*_figures(found["total_cost"]), tuple(layers))


def _figures(cost: dict[str, float]) -> Figures:
    macs, bitops, bits = (round(cost[f"total_{n}"]) for n in ("macs", "bops", "mem_w_bits"))
    return macs, bitops, bits


def _prepared(model: Any) -> Any:
    """A copy that QONNX gets through: it folds constants one by one, each time with all shapes anew, which for hundreds
    takes minutes, so that here only those that quantizers make are left to it; and convolutions have the attribute that
    ONNX lets them leave away and QONNX reads."""
    import onnx

    g, made = Graph(model), onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    ready, shapes = {"", *g.initializers}, g.shapes
    ready.update(g.sizes)
    for node in model.graph.node:
        if node.op_type not in QUANTIZERS and ready.issuperset(node.input):
            ready.update(node.output)
            continue
        made.graph.node.append(node)
        if node.op_type == "Conv" and g.attribute(node, "kernel_shape") is None:
            made.graph.node[-1].attribute.append(onnx.helper.make_attribute("kernel_shape", shapes[node.input[1]][2:]))
    wanted = {name for node in made.graph.node for name in node.input} & ready - {"", *g.initializers}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(g.array(name), name) for name in sorted(wanted))
    return made


def differences(counted: Counted, found: Report) -> list[str]:
    """Where the two say something else, a line for each layer; none: they are equal.

    QONNX sorts and renames nodes, so layers of one operator are held against each other by their figures.
    """
    theirs, ours = list(found.layers), list[Product]()
    for p in counted.products:
        equal = (p.operator, figures(p))
        if equal in theirs:
            theirs.remove(equal)
        else:
            ours.append(p)
    lines = []
    for p in ours:
        macs, bitops, bits = figures(p)
        near = min((t for t in theirs if t[0] == p.operator), key=lambda t: abs(t[1][0] - macs), default=None)
        if near is None:
            lines.append(f"{p.name}: QONNX counts no such {p.operator}")
            continue
        theirs.remove(near)
        pairs = zip(("MACs", "bit operations", "bits of weights"), (macs, bitops, bits), near[1], strict=True)
        lines.append(f"{p.name}: " + ", ".join(f"{a:,} {what} here, {b:,} in QONNX" for what, a, b in pairs if a != b))
    return lines + [f"a {operator} of {macs:,} MACs that only QONNX counts" for operator, (macs, _, _) in theirs]


def figures(p: Product) -> Figures:
    """What QONNX reports of a layer."""
    return p.macs, p.macs * p.w_bits * p.a_bits, p.weights * p.w_bits
