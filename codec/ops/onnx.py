"""Writes the network as ONNX graphs, shape (1, channels, height, width), which an ordinary float runtime executes.

On the entropy path float tensors carry the integers of codec.ops.numpy: products of int8 weights and activations sum
to less than 2^24, so float32 is exact in any order of summation, and so is float64 in the attention. A row's
power-of-two scale is folded into its weights, half a unit into its bias: requantizing is Floor and Clip.

Weights are not in the graphs: they are external initializers, named as in the bundle, which holds each array once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx import TensorProto, helper

from codec.network import BOUND, HEAD, INDEX_PER_HEAD, NARROW, STEP, WIDE
from codec.tables import SCALES

OPSET = 17
Format = tuple[int, int]


class Value:
    """A tensor of a graph: its name and number of channels."""

    def __init__(self, name: str, channels: int):
        self.name, self.channels = name, channels


class OnnxOps:
    """Builds one graph. integers: entropy path (else plain floats). used: names of the arrays the graph wants."""

    def __init__(self, integers: bool):
        self.integers = integers
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], str] = {}
        self.initializers: list[Any] = []
        self.used: dict[str, tuple[str, ...]] = {}

    # -- graph building ---------------------------------------------------------------------------------------------
    def node(self, op: str, *inputs: str, channels: int = 0, **attributes: Any) -> Value:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return Value(name, channels)

    def constant(self, values: Any, kind: int = TensorProto.FLOAT) -> str:
        flat = list(values) if isinstance(values, Sequence) else [values]
        key = (kind, isinstance(values, Sequence), *flat)
        if key not in self.constants:
            self.constants[key] = f"c{len(self.constants)}"
            dims = [len(flat)] if isinstance(values, Sequence) else []
            self.initializers.append(helper.make_tensor(self.constants[key], kind, dims, flat))
        return self.constants[key]

    def ints(self, *values: int) -> str:
        return self.constant(list(values), TensorProto.INT64)

    def array(self, name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> str:
        """An array that the runtime supplies."""
        if name not in self.used:
            self.used[name] = ()
            tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
            tensor.external_data.add(key="location", value="bundle")
            self.initializers.append(tensor)
        return name

    def model(self, name: str, inputs: dict[str, int], outputs: dict[str, Value]) -> bytes:
        """The finished graph. inputs: name -> channels; `qp` (a scalar) is added where it is used."""
        wanted = {i for n in self.nodes for i in n.input}
        for label, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value.name], [label]))
        info = helper.make_tensor_value_info
        ins = [info(n, TensorProto.FLOAT, [1, c, f"{n}_h", f"{n}_w"]) for n, c in inputs.items() if n in wanted]
        if "qp" in wanted:
            ins.append(info("qp", TensorProto.INT64, []))
        outs = [info(n, TensorProto.FLOAT, [1, v.channels, f"{n}_h", f"{n}_w"]) for n, v in outputs.items()]
        graph = helper.make_graph(self.nodes, name, ins, outs, self.initializers)
        built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        return bytes(built.SerializeToString())

    # -- arithmetic -------------------------------------------------------------------------------------------------
    def binary(self, op: str, a: Value, b: Value | str | float) -> Value:
        other = b.name if isinstance(b, Value) else b if isinstance(b, str) else self.constant(float(b))
        return self.node(op, a.name, other, channels=a.channels)

    def clip(self, x: Value, low: float, high: float) -> Value:
        return self.node("Clip", x.name, self.constant(float(low)), self.constant(float(high)), channels=x.channels)

    def floor(self, x: Value) -> Value:
        return self.node("Floor", x.name, channels=x.channels)

    def saturate(self, x: Value, form: Format) -> Value:
        return self.clip(x, -(1 << (form[1] - 1)), (1 << (form[1] - 1)) - 1)

    def round(self, x: Value) -> Value:
        return self.floor(self.binary("Add", x, 0.5))

    # -- layers -----------------------------------------------------------------------------------------------------
    def block(self, f: Callable[..., Value], x: Value, name: str) -> Value:
        return f(self, x, name)

    def channels(self, x: Value) -> int:
        return x.channels

    def narrow(self, x: Value) -> Value:
        if not self.integers:
            return x
        return self.saturate(self.round(self.binary("Mul", x, 2.0 ** (NARROW[0] - WIDE[0]))), NARROW)

    def conv(self, x: Value, name: str, out: int, form: Format = NARROW, bias: bool = True) -> Value:
        # Half a unit of rounding is in the bias, so the integer path always has one. The array's name says its unit.
        suffix = f"@{form[0]}" if self.integers else ""
        inputs = [x.name, self.array(f"{name}/weight{suffix}", (out, x.channels, 1, 1))]
        if bias or self.integers:
            inputs.append(self.array(f"{name}/bias{suffix}", (out,)))
        y = self.node("Conv", *inputs, channels=out)
        return self.saturate(self.floor(y), form) if self.integers else y

    def depthwise(self, x: Value, name: str) -> Value:
        suffix, c = (f"@{NARROW[0]}" if self.integers else ""), x.channels
        w, b = self.array(f"{name}/weight{suffix}", (c, 1, 5, 5)), self.array(f"{name}/bias{suffix}", (c,))
        y = self.node("Conv", x.name, w, b, channels=c, group=c, pads=[2, 2, 2, 2])
        return self.saturate(self.floor(y), NARROW) if self.integers else y

    def act(self, x: Value) -> Value:
        return self.gated(x, x)

    def gated(self, u: Value, v: Value) -> Value:
        if not self.integers:
            return self.binary("Mul", u, self.node("HardSigmoid", v.name, channels=v.channels, alpha=0.125, beta=0.5))
        gate = self.binary("Add", self.clip(v, -64, 64), 64.0)
        return self.round(self.binary("Mul", self.binary("Mul", u, gate), 2.0**-7))

    def add(self, a: Value, b: Value) -> Value:
        s = self.binary("Add", a, b)
        return self.saturate(s, WIDE) if self.integers else s

    def concat(self, *xs: Value) -> Value:
        return self.node("Concat", *(x.name for x in xs), channels=sum(x.channels for x in xs), axis=1)

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        channels = stop - start if axis == 1 else x.channels
        return self.node("Slice", x.name, self.ints(start), self.ints(stop), self.ints(axis), self.ints(step),
                         channels=channels)  # fmt: skip

    def split(self, x: Value, at: int) -> tuple[Value, Value]:
        return self.slice(x, 1, 0, at), self.slice(x, 1, at, x.channels)

    def halves(self, x: Value) -> tuple[Value, Value]:
        return self.split(x, x.channels // 2)

    def unshuffle(self, x: Value, r: int) -> Value:
        return self.node("SpaceToDepth", x.name, channels=x.channels * r * r, blocksize=r)

    def shuffle(self, x: Value, r: int) -> Value:
        return self.node("DepthToSpace", x.name, channels=x.channels // r // r, blocksize=r, mode="DCR")

    def pack(self, x: Value, half: int) -> Value:
        end = 1 << 31
        even = self.slice(self.slice(x, 2, 0, end, 2), 3, 1 - half, end, 2)
        odd = self.slice(self.slice(x, 2, 1, end, 2), 3, half, end, 2)
        return self.node("Concat", even.name, odd.name, channels=x.channels, axis=2)

    # -- global context: float64 carries the integers ---------------------------------------------------------------
    def linear_attention(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        def flat(x: Value) -> Value:
            return self.node("Reshape", x.name, self.ints(1, heads, x.channels // heads, -1))

        def weights(x: Value, axis: int) -> tuple[Value, Value]:
            peak = self.node("ReduceMax", x.name, axes=[axis])
            steps = self.node("Cast", self.binary("Sub", peak, x).name, to=TensorProto.INT64)
            e = self.node("Gather", self.array("exp", (256,), TensorProto.DOUBLE), steps.name)
            return e, self.node("ReduceSum", e.name, self.ints(axis))

        def divide(a: Value, factor: float, b: Value) -> Value:
            """floor((2 * factor * a + b) / (2 * b))"""
            top = self.node("Add", self.node("Mul", a.name, double(2 * factor)).name, b.name)
            return self.node("Floor", self.node("Div", top.name, self.node("Mul", b.name, double(2)).name).name)

        def double(x: float) -> str:
            return self.constant(float(x), TensorProto.DOUBLE)

        shape = self.node("Shape", q.name)
        (e, s), values = weights(flat(k), 3), self.node("Cast", flat(v).name, to=TensorProto.DOUBLE)
        e, s = (self.node("Transpose", t.name, perm=[0, 1, 3, 2]) for t in (e, s))
        context = divide(self.node("MatMul", values.name, e.name), 2**8, s)
        p, r = weights(flat(q), 2)
        out = self.node("MatMul", context.name, divide(p, 2**12, r).name)
        out = self.node("Add", self.node("Mul", out.name, double(2.0**-20)).name, double(0.5))
        out = self.node("Cast", self.node("Floor", out.name).name, to=TensorProto.FLOAT)
        return self.saturate(self.node("Reshape", out.name, shape.name, channels=v.channels), NARROW)

    def mean_positions(self, x: Value) -> Value:
        wide = self.node("Cast", x.name, to=TensorProto.DOUBLE)
        total = self.node("ReduceSum", wide.name, self.ints(2, 3))
        sides = self.node("Slice", self.node("Shape", x.name).name, self.ints(2), self.ints(4), self.ints(0))
        n = self.node("Cast", self.node("ReduceProd", sides.name, keepdims=0).name, to=TensorProto.DOUBLE)
        two = self.constant(2.0, TensorProto.DOUBLE)
        top = self.node("Add", self.node("Mul", total.name, two).name, n.name)
        mean = self.node("Floor", self.node("Div", top.name, self.node("Mul", n.name, two).name).name)
        return self.node("Cast", mean.name, channels=x.channels, to=TensorProto.FLOAT)

    # -- per-QP vectors: tables of 64 rows --------------------------------------------------------------------------
    def vector(self, name: str, channels: int, qp: str, lo: int = 0, hi: int | None = None) -> Value:
        table = self.array(name, (64, channels, 1, 1))
        row = self.node("Unsqueeze", self.node("Gather", table, qp, axis=0).name, self.ints(0), channels=channels)
        return row if hi is None else self.slice(row, 1, lo, hi)

    def scale(self, x: Value, name: str, qp: str) -> Value:
        return self.binary("Mul", x, self.vector(name, x.channels, qp))

    def offset(self, x: Value, name: str, qp: str) -> Value:
        v = self.vector(name, x.channels, qp)
        return self.binary("Add", x, self.binary("Mul", v, 2.0 ** (WIDE[0] - NARROW[0])) if self.integers else v)

    def gain(self, x: Value, name: str, qp: str, lo: int, hi: int, shift: int, form: Format) -> Value:
        product = self.binary("Mul", x, self.vector(name, self.latents, qp, lo, hi))  # at most 16 x 8 bits
        return self.saturate(self.round(self.binary("Mul", product, 2.0**shift)), form)

    latents = 0  # channels of y: the gain tables' width

    def to_steps(self, mean: Value, name: str, qp: str, lo: int, hi: int) -> Value:
        return self.gain(mean, name, qp, lo, hi, STEP[0] - HEAD[0], STEP)

    def to_signal(self, y_hat: Value, name: str, qp: str, lo: int, hi: int) -> Value:
        return self.gain(y_hat, name, qp, lo, hi, NARROW[0] - STEP[0], NARROW)

    def scale_index(self, head: Value, name: str, qp: str, lo: int, hi: int) -> Value:
        offset = self.binary("Mul", self.vector(name, self.latents, qp, lo, hi), 2.0 ** (HEAD[0] - 4))
        total = self.binary("Add", self.binary("Mul", head, INDEX_PER_HEAD), offset)
        return self.clip(self.round(self.binary("Mul", total, 2.0 ** -HEAD[0])), 0, SCALES - 1)

    def halve_steps(self, z_hat: Value) -> Value:
        return self.saturate(self.round(self.binary("Mul", z_hat, 2.0 ** (NARROW[0] - STEP[0] - 1))), NARROW)

    # -- transforms only --------------------------------------------------------------------------------------------
    def deviation(self, name: str, channels: int) -> str:
        return self.array(name, (channels, 1, 1))

    def bounded(self, y: Value, name: str) -> Value:
        return self.binary("Mul", self.clip(self.standardize(y, name), -BOUND, BOUND), self.deviation(name, y.channels))

    def standardize(self, y: Value, name: str) -> Value:
        return self.binary("Div", y, self.deviation(name, y.channels))

    def energy(self, y: Value, name: str) -> Value:
        v = self.standardize(y, name)
        magnitude = self.node("Abs", v.name, channels=v.channels)
        return self.concat(self.clip(v, -8, 8), self.node("Log", self.binary("Add", magnitude, 1.0).name,
                                                          channels=v.channels))  # fmt: skip

    def from_steps(self, y_hat: Value, name: str, qp: str) -> Value:
        return self.binary("Mul", y_hat, self.vector(name, y_hat.channels, qp))

    def residual(self, y_hat: Value, r: Value) -> Value:
        return self.binary("Add", y_hat, self.binary("Mul", self.node("Tanh", r.name, channels=r.channels), 0.5))
