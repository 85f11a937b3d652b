"""What a graph of ONNX costs: plain, QCDQ (QuantizeLinear, Clip, DequantizeLinear) or QONNX (Quant).

    counted = count(fixed(load("net.onnx"), {"x": (1, 3, 32, 32)}))
    counted.macs, counted.bitops, counted.weight_bits

Convolutions and matrix products count, and nothing else, as in rate.complexity and rate.cost; each with the bits that
the graph proves of its operands (rate.numbers). Every operator has a rule in RULES; one that has none is an error, so
that nothing is left out in silence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rate.entropy import entropy_bits
from rate.numbers import REAL, Numbers, added, clipped, either, multiplied, negated, of_array, of_type, rounded
from rate.onnxfile import Graph, fixed, inputs, load, quant_range

__all__ = ["RULES", "Counted", "Product", "Uncounted", "count", "fixed", "inputs", "load", "summed"]
QUANT_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


class Uncounted(ValueError):
    """A graph has an operator that no rule counts."""


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product in one call of the graph.

    weights: numbers of its constant operand, 0 of a product of two activations, whose second operand w_bits then tells
    of. entropy: bits of its integer weights under their own distribution, None where they are real numbers. stored:
    the name of its weights, which several products may share.
    """

    name: str
    operator: str
    macs: int
    weights: int
    w_bits: int
    a_bits: int
    activation_bits: int
    entropy: float | None
    stored: str


@dataclass(frozen=True)
class Counted:
    """The cost of one call; of what several products share, stored once."""

    products: tuple[Product, ...]
    operators: Mapping[str, int] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(p.macs for p in self.products)

    @property
    def bitops(self) -> int:
        """Multiply-accumulates times the bits of both operands: arXiv 2208.14839."""
        return sum(p.macs * p.w_bits * p.a_bits for p in self.products)

    @property
    def stored(self) -> list[Product]:
        """One product of each that hold the same weights."""
        return list({p.stored: p for p in self.products if p.weights}.values())

    @property
    def weights(self) -> int:
        """Numbers, without biases."""
        return sum(p.weights for p in self.stored)

    @property
    def weight_bits(self) -> int:
        """Bits of all of them, not coded."""
        return sum(p.weights * p.w_bits for p in self.stored)

    @property
    def entropy_bits(self) -> float | None:
        """Of all integer weights, an order-0 code for each layer; None where there are none."""
        found = [p.entropy for p in self.stored if p.entropy is not None]
        return sum(found) if found else None

    @property
    def activation_bits(self) -> int:
        """Of the inputs and outputs of the layer that has the most."""
        return max((p.activation_bits for p in self.products), default=0)


# -- rules: the numbers of an operator's first output --------------------------------------------------------------
Rule = Callable[[Graph, Any], Numbers]


def _real(g: Graph, node: Any) -> Numbers:
    return REAL


def _kept(g: Graph, node: Any) -> Numbers:
    return g.of(node.input[0])


def _each(of: Callable[[Numbers, Numbers], Numbers], which: slice = slice(None)) -> Rule:
    """All inputs, one after the other."""

    def rule(g: Graph, node: Any) -> Numbers:
        first, *others = (g.of(n) for n in node.input[which])
        for other in others:
            first = of(first, other)
        return first

    return rule


def _one(of: Callable[[Numbers], Numbers]) -> Rule:
    return lambda g, node: of(g.of(node.input[0]))


def _ends(g: Graph, node: Any) -> Numbers:
    """Clip."""
    names = [*node.input[1:], "", ""][:2]
    given = [g.attribute(node, "min"), g.attribute(node, "max")]  # as attributes before opset 11
    for i, name in enumerate(names):
        if name and g.constant(name):
            given[i] = float(g.array(name).reshape(()))
    low, high = -math.inf if given[0] is None else given[0], math.inf if given[1] is None else given[1]
    return clipped(g.of(node.input[0]), low, high)


def _absolute(a: Numbers) -> Numbers:
    return clipped(either(a, negated(a)), 0.0, math.inf)


def _coded(g: Graph, node: Any) -> Numbers:
    """QuantizeLinear: all of its type, which the zero-point has, or output_dtype, or it is uint8; of 16 bits, which
    runtimes do not clip, what lies between the ends of its input."""
    kind, zero = "uint8", np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        zero = g.array(node.input[2])
        kind = str(zero.dtype)
    elif said := g.attribute(node, "output_dtype", 0):
        kind = g.onnx.TensorProto.DataType.Name(said).lower()
    made = of_type(int(kind.lstrip("uint")), not kind.startswith("u"))
    scale = g.array(node.input[1]) if g.constant(node.input[1]) else np.zeros(2)
    if made.bits < 16 or scale.size > 1 or zero.any():
        return made
    given = rounded(multiplied(g.of(node.input[0]), of_array(1 / scale.reshape(1).astype(np.float64))), round)
    return clipped(made, given.low, given.high)


def _decoded(g: Graph, node: Any) -> Numbers:
    """DequantizeLinear: codes times a scale, less a zero-point."""
    codes = g.of(node.input[0])
    zero = g.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    scale = g.array(node.input[1]) if g.constant(node.input[1]) else np.zeros(2)
    if scale.size > 1 or zero.any():
        return Numbers(codes=codes.bits)
    return multiplied(codes, of_array(scale.reshape(1).astype(np.float64)))


def _quant(g: Graph, node: Any) -> Numbers:
    bits = int(g.array(node.input[3]))
    low, high = quant_range(node, bits)
    scale, zero = (g.array(n) for n in node.input[1:3])
    if scale.size > 1 or zero.any():
        return Numbers(codes=bits)
    step = float(scale.reshape(()))
    return Numbers(low * step, high * step, step, bits)


def _masked(g: Graph, node: Any) -> Numbers:
    """BitwiseAnd: with a constant that is not negative, no more than it."""
    masks = [float(g.array(n).max()) for n in node.input if g.constant(n) and (g.array(n) >= 0).all()]
    return Numbers(0.0, min(masks), 1.0) if masks else REAL


def _shifted(g: Graph, node: Any) -> Numbers:
    """BitShift of unsigned integers; to the right they only shrink."""
    right = g.attribute(node, "direction") == b"RIGHT"
    return Numbers(0.0, g.of(node.input[0]).high, 1.0) if right else REAL


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
KEEP = (
    "Cast", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "GlobalMaxPool", "Pad", "ReduceMax",
    "ReduceMin", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze",
)  # fmt: skip
ARITHMETIC = (
    "And", "AveragePool", "BatchNormalization", "Constant", "ConstantOfShape", "Cos", "Div", "Elu", "Equal", "Erf",
    "Exp", "Gelu", "GlobalAveragePool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "Mod", "Not", "Or",
    "PRelu", "Pow", "Range", "Reciprocal", "ReduceMean", "ReduceProd", "ReduceSum", "Resize", "Shape", "Sigmoid",
    "Sign", "Sin", "Size", "Softmax", "Softplus", "Sqrt", "Sum", "Tanh", "Where", "Xor",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys((*PRODUCTS, *ARITHMETIC), _real),
    **dict.fromkeys(KEEP, _kept),
    "Add": _each(added), "Sub": _each(lambda a, b: added(a, negated(b))), "Mul": _each(multiplied),
    "Concat": _each(either), "Max": _each(either), "Min": _each(either),
    "Neg": _one(negated), "Abs": _one(_absolute), "Relu": _one(lambda a: clipped(a, 0.0, math.inf)),
    "Floor": _one(lambda a: rounded(a, math.floor)), "Ceil": _one(lambda a: rounded(a, math.ceil)),
    "Round": _one(lambda a: rounded(a, round)), "Clip": _ends,
    "QuantizeLinear": _coded, "DequantizeLinear": _decoded, "Quant": _quant,
    "BitwiseAnd": _masked, "BitShift": _shifted,
}  # fmt: skip


def _product(g: Graph, node: Any) -> Product:
    a, w = node.input[:2]
    if node.op_type == "MatMul" and g.constant(a) and not g.constant(w):
        a, w = w, a
    shape_a, shape_w, shape_y = g.shape(a), g.shape(w), g.shape(node.output[0])
    if node.op_type == "Conv":
        macs = math.prod(shape_y) * math.prod(shape_w[1:])
    elif node.op_type == "ConvTranspose":
        macs = math.prod(shape_a) * math.prod(shape_w[1:])
    else:
        inner = shape_a[-2] if node.op_type == "Gemm" and g.attribute(node, "transA", 0) else shape_a[-1]
        macs = math.prod(shape_y) * (g.shape(node.input[0])[-1] if node.op_type == "MatMul" else inner)
    constant, bits_a, bits_w = g.constant(w), g.of(a).bits, g.of(w).bits
    codes = g.codes(w) if constant else None
    kept = bits_a * (math.prod(shape_a) + math.prod(shape_y)) + (0 if constant else bits_w * math.prod(shape_w))
    return Product(
        node.name or node.output[0], node.op_type, macs, math.prod(shape_w) if constant else 0, bits_w, bits_a, kept,
        None if codes is None else entropy_bits(np.unique(codes, return_counts=True)[1]), g.root(w),
    )  # fmt: skip


def count(model: Any, numbers: Mapping[str, Numbers] | None = None) -> Counted:
    """The cost of one call of a model whose inputs have fixed sizes; numbers: of inputs, where they are not any.

    Raises Uncounted for an operator without a rule, before anything else; ValueError for shapes that do not fit.
    """
    g, found = Graph(model), list[Product]()
    g.numbers.update(numbers or {})
    for node in model.graph.node:
        known = QUANT_DOMAINS if node.op_type == "Quant" else ("", "ai.onnx")
        if node.op_type not in RULES or node.domain not in known:
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            where = node.name or (node.output[0] if node.output else "?")
            raise Uncounted(f"no rule counts the operator {operator} (node {where}): rate.graph.RULES has none of it")
    for node in model.graph.node:
        g.numbers.update(dict.fromkeys(node.output, RULES[node.op_type](g, node)))
        if node.op_type in PRODUCTS:
            found.append(_product(g, node))
    return Counted(tuple(found), Counter(node.op_type for node in model.graph.node))


def summed(parts: Sequence[Counted]) -> Counted:
    """Of graphs that run one after the other and share nothing."""
    products = tuple(
        Product(**{**vars(p), "stored": f"{i}/{p.stored}"}) for i, part in enumerate(parts) for p in part.products
    )
    return Counted(products, sum((Counter(part.operators) for part in parts), Counter()))
