"""A graph of ONNX to be read: its inputs with sizes, its shapes, its constants."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.cost import FLOAT_BITS
from rate.numbers import REAL, Numbers, of_array

Shape = tuple[int, ...]
SIZED_BY_VALUES = ("Expand", "Pad", "ReduceSum", "Reshape", "Resize", "Slice", "Squeeze", "Tile", "Unsqueeze")


def load(source: Path | bytes) -> Any:
    """The ModelProto of a file or its bytes. Raises ValueError for what is none, OSError."""
    import onnx

    data = source if isinstance(source, bytes) else source.read_bytes()
    name = "this" if isinstance(source, bytes) else str(source)
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's and onnx's have no class in common
        raise ValueError(f"{name} is not a graph of ONNX") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{name} is not a graph of ONNX: it has no operators")
    return model


def inputs(model: Any) -> dict[str, tuple[int | str, ...]]:
    """Of each input that is no constant, its sizes; a name, or "?", where one is free."""
    constants = {t.name for t in model.graph.initializer}
    return {
        i.name: tuple(d.dim_value or d.dim_param or "?" for d in i.type.tensor_type.shape.dim)
        for i in model.graph.input
        if i.name not in constants
    }


def fixed(model: Any, shapes: Mapping[str, Shape] | None = None) -> Any:
    """A copy whose inputs have sizes, by `shapes` where the graph leaves them free.

    Raises ValueError where a size stays free, for a shape of no input, and for one that the graph does not take.
    """
    import onnx

    made, given = onnx.ModelProto(), dict(shapes or {})
    made.CopyFrom(model)
    found = inputs(model)
    for name in given:
        if name not in found:
            raise ValueError(f"the graph has no input {name}: it has {', '.join(found) or 'none'}")
    for i in made.graph.input:
        if i.name not in found:
            continue
        sizes, shape = found[i.name], given.get(i.name)
        if shape is None:
            if any(isinstance(d, str) for d in sizes):
                raise ValueError(f"input {i.name} has free sizes ({', '.join(map(str, sizes))}): give its shape")
            continue
        fits = len(shape) == len(sizes) and all(isinstance(d, str) or d == s for d, s in zip(sizes, shape, strict=True))
        if not fits or min(shape, default=1) < 1:
            raise ValueError(f"input {i.name} is ({', '.join(map(str, sizes))}), not {shape}")
        for dim, size in zip(i.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
    for o in made.graph.output:
        for dim in o.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")  # the name of an input's size, which has a number now
    return made


class Graph:
    """A model with fixed inputs: shapes, constants, and the numbers of every tensor, as far as it was walked."""

    def __init__(self, model: Any):
        import onnx

        self.onnx, self.model = onnx, model
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.made_by = {name: node for node in model.graph.node for name in node.output if name}
        self.numbers: dict[str, Numbers] = {}
        self.arrays: dict[str, NDArray[Any]] = {}
        self.sizes: dict[str, NDArray[Any]] = {}  # what operators Shape give
        self.constants = self.followed()

    def followed(self) -> set[str]:
        """The names of all constants, by now. Nodes stand in the order in which they run."""
        found = {"", *self.initializers, *self.sizes}
        for node in self.model.graph.node:
            if found.issuperset(node.input):
                found.update(node.output)
        return found

    def plain(self) -> Any:
        """A copy that onnx can follow: Quant, which it does not know, has the shape of its input; of sizes that are
        computed from constants it follows few, so they are constants here."""
        made, folded = self.onnx.ModelProto(), dict[str, Any]()
        made.CopyFrom(self.model)
        del made.graph.value_info[:], made.graph.node[:]
        for node in self.model.graph.node:
            if node.op_type in SIZED_BY_VALUES:
                for name in node.input[1:]:
                    if name in self.made_by and self.constant(name):
                        folded[name] = self.onnx.numpy_helper.from_array(self.array(name), name)
        for node in self.model.graph.node:
            if node.op_type == "Quant":
                made.graph.node.append(self.onnx.helper.make_node("Identity", node.input[:1], node.output))
            elif folded.keys().isdisjoint(node.output):
                made.graph.node.append(node)
        made.graph.initializer.extend(folded.values())
        return made

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Of every tensor that has one. Raises ValueError where operators do not fit each other."""
        found, told = self.inferred(), -1
        while told < len(self.sizes):  # what a Shape tells of tensors known by now makes others known
            told = len(self.sizes)
            for node in self.model.graph.node:
                if node.op_type == "Shape" and node.input[0] in found:
                    part = slice(self.attribute(node, "start", 0), self.attribute(node, "end"))
                    self.sizes[node.output[0]] = np.array(found[node.input[0]][part], np.int64)
            if told < len(self.sizes):
                self.constants = self.followed()
                found = self.inferred()
        return found

    def inferred(self) -> dict[str, Shape]:
        try:
            whole = self.onnx.shape_inference.infer_shapes(self.plain(), strict_mode=True, data_prop=True).graph
        except self.onnx.shape_inference.InferenceError as error:
            raise ValueError(f"the graph's shapes do not fit: {str(error).strip().splitlines()[-1]}") from error
        found = {name: tuple(t.dims) for name, t in self.initializers.items()}
        for v in (*whole.input, *whole.value_info, *whole.output):
            if v.type.tensor_type.HasField("shape"):
                dims = v.type.tensor_type.shape.dim
                if all(d.HasField("dim_value") for d in dims):
                    found[v.name] = tuple(d.dim_value for d in dims)
        return found

    def shape(self, name: str) -> Shape:
        if name not in self.shapes:
            raise ValueError(f"the shape of {name} does not follow from the inputs' shapes")
        return self.shapes[name]

    def constant(self, name: str) -> bool:
        """Whether nothing of the input is in it."""
        return name in self.constants

    def root(self, name: str) -> str:
        """What a constant was made of."""
        while name in self.made_by and self.made_by[name].input:
            name = self.made_by[name].input[0]
        return name

    def array(self, name: str) -> NDArray[Any]:
        """The values of a constant."""
        if name in self.sizes:
            return self.sizes[name]
        if name not in self.arrays:
            if name in self.initializers:
                self.arrays[name] = self.onnx.numpy_helper.to_array(self.initializers[name])
            else:
                node = self.made_by[name]
                if node.op_type == "Quant":
                    self.arrays[name] = self.codes_of_quant(node) * self.array(node.input[1])
                else:
                    self.run(node)
        return self.arrays[name]

    def run(self, node: Any) -> None:
        """A node of constants, by onnx's own reference."""
        from onnx.reference import ReferenceEvaluator

        values = {n: self.array(n) for n in node.input if n}
        helper = self.onnx.helper
        ins = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
               for n, a in values.items()]  # fmt: skip
        outs = [helper.make_empty_tensor_value_info(n) for n in node.output]
        graph = helper.make_graph([node], "constants", ins, outs)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        found = ReferenceEvaluator(model).run(None, values)
        self.arrays.update(zip(node.output, found, strict=True))

    def codes_of_quant(self, node: Any) -> NDArray[Any]:
        x, scale, zero, bits = (self.array(n).astype(np.float64) for n in node.input)
        low, high = quant_range(node, int(bits))
        codes: NDArray[Any] = np.clip(np.rint(x / scale + zero), low, high) - zero
        return codes

    def codes(self, name: str) -> NDArray[Any] | None:
        """A constant's integers, in no certain order of axes; None where it is of real numbers."""
        node = self.made_by.get(name)
        if node is not None:
            if node.op_type == "Quant":
                return self.codes_of_quant(node)
            if node.op_type == "DequantizeLinear" and self.constant(node.input[0]):
                return self.array(node.input[0])
            if node.op_type in ("Transpose", "Reshape", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze"):
                return self.codes(node.input[0])
        numbers = self.of(name)
        return np.rint(self.array(name) / numbers.step) if numbers.step and numbers.bits < FLOAT_BITS else None

    def of(self, name: str) -> Numbers:
        """The numbers of a tensor that was walked, or of a constant; an input's are any."""
        if name not in self.numbers:
            self.numbers[name] = of_array(self.array(name)) if name in self.initializers else REAL
        return self.numbers[name]

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        return next((self.onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def quant_range(node: Any, bits: int) -> tuple[float, float]:
    """The least and the greatest code of a node Quant. Source: QONNX, arXiv 2206.07527, equations 1 to 3."""
    flags = {a.name: a.i for a in node.attribute if a.name in ("signed", "narrow")}
    signed, narrow = flags.get("signed", 1), flags.get("narrow", 0)
    if signed:
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow
