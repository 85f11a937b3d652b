"""The cost of a graph is what rate.cost and rate.complexity say of the network that it was exported from."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rate import MEASURES, Layer, entropy_bits, macs  # noqa: E402
from rate.graph import RULES, Counted, Uncounted, count, fixed, inputs, load, summed  # noqa: E402
from rate.inference_cost import differences, report  # noqa: E402
from rate.numbers import Numbers, added, clipped, either, multiplied, negated, of_array, rounded  # noqa: E402

Model = onnx.ModelProto


def graph(nodes: list, sizes: dict[str, list], constants: dict[str, np.ndarray], *, opset: int = 21) -> Model:
    """Inputs by name with their sizes; the last node's output is the graph's."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    out = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    tensors = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    made = helper.make_graph(nodes, "g", info, [out], tensors)
    domains = {n.domain for n in nodes if n.domain}
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    )


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# -- against the networks they come from ------------------------------------------------------------------------------
def resnet(bits: int) -> tuple:
    torch = pytest.importorskip("torch")
    from quant import training
    from quant.config import ShiftQuantConfig
    from quant.freeze import freeze

    groups = {3: 3, 4: 4, 6: 3, 8: 1}[bits]
    options = training.Options("resnet20", "", ShiftQuantConfig(bits, bits, bits, groups), "float32", 1, 8, 0, 0, bits)
    torch.manual_seed(bits)
    made, x = training.build(options, 10), torch.randn(4, 3, 32, 32)
    made(x)
    return freeze(made, [x]), x[:1]


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_a_shiftquant_network_counts_as_its_layers_do(bits: int) -> None:
    frozen, x = resnet(bits)
    from quant import export
    from quant.freeze import Frozen

    layers: list[Layer] = []

    def see(m: Frozen, args: tuple, y: object) -> None:
        outputs, inputs_, *kernel = m.codes.shape
        groups = m.geometry[3] if m.geometry else 1
        sizes = [tuple(t.shape[2:]) or (1, 1) for t in (args[0], y)]
        kind = "conv" if m.geometry else "linear"
        layers.append(Layer(kind, inputs_ * groups, outputs, tuple(kernel), groups, *sizes, m.bits_w, m.bits_a))

    for m in frozen.modules():
        if isinstance(m, Frozen):
            m.register_forward_hook(see)
    frozen(x)
    expected = {name: m.combine(map(m.of, layers)) for name, m in MEASURES.items() if not m.learned}
    found = {
        form.__name__: count(fixed(form(export.traced(frozen, x)), {"x": tuple(x.shape)}))
        for form in (export.qonnx, export.qcdq)
    }
    c = found["qonnx"]
    assert (c.macs, c.bitops, c.weights, c.weight_bits, c.activation_bits) == tuple(
        expected[n] for n in ("macs", "bitops", "params", "param-bits", "activation-bits")
    )
    assert c.macs == macs(frozen, x)
    told = export.cost(frozen)
    assert c.entropy_bits == pytest.approx(told["entropy_bits"] * told["weights"])
    if bits > 3:  # QCDQ has no integers of 3 bits: it stores them in 4
        assert found["qcdq"].products == tuple(
            replace(p, stored=q.stored) for p, q in zip(c.products, found["qcdq"].products, strict=True)
        )
    else:
        assert {p.w_bits for p in found["qcdq"].products} == {4, 8}


@pytest.mark.parametrize("name", ["sr-basic", "sr-rfdn"])
def test_a_searched_network_counts_as_its_cost_model_does(name: str) -> None:
    torch = pytest.importorskip("torch")
    from nas import CostModel
    from nas.baselines import edges8
    from nas.export import FREE, deployed
    from nas.freeze import freeze
    from nas.spaces import build, network, space_of
    from quant.export import qcdq, qonnx, traced

    space = space_of(name, (4, 8), "lsq", scale=2, width=12, cells=1)
    searched = build(space)
    net = network(edges8(searched, space, "conv3 g3" if name == "sr-basic" else "double3", 4))
    x = torch.rand(1, 3, 24, 32)
    net(x)
    net.eval()
    of = {n: CostModel(m, net, tuple(x.shape)).decided() for n, m in MEASURES.items() if not m.learned}
    made = deployed(net)
    for form in (qonnx, qcdq):
        c = count(fixed(form(traced(made, torch.rand(1, 3, 16, 16), FREE)), {"x": tuple(x.shape)}))
        assert (c.macs, c.bitops, c.weights, c.weight_bits, c.activation_bits) == tuple(
            of[n] for n in ("macs", "bitops", "params", "param-bits", "activation-bits")
        )
    assert c.entropy_bits == pytest.approx(sum(f.entropy() for f in freeze(net).values()))


def test_attention_counts_its_own_products() -> None:
    """And sizes that the graph computes from others are followed."""
    torch = pytest.importorskip("torch")
    from quant import export, training
    from quant.config import ShiftQuantConfig
    from quant.freeze import freeze

    options = training.Options("char", "", ShiftQuantConfig(6, 6, 6, 3), "float32", 1, 8, 0, 0, 6)
    made, x = training.build(options, 128), torch.randint(128, (4, 20))
    made(x)
    frozen = freeze(made, [x])
    c = count(fixed(export.qonnx(export.traced(frozen, x[:1])), {"x": (1, 20)}))
    assert c.macs == macs(frozen.to("meta"), x[:1].to("meta"))
    between = [p for p in c.products if not p.weights]
    assert len(between) == 8 and {p.a_bits for p in between} == {32}  # of 4 layers; they stay floating point


def test_qonnx_reports_the_same_and_is_told_where_not() -> None:
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    frozen, x = resnet(6)
    from quant import export

    model = fixed(export.qonnx(export.traced(frozen, x)), {"x": tuple(x.shape)})
    c, found = count(model), report(model)
    assert (c.macs, c.bitops, c.weight_bits) == (found.macs, found.bitops, found.weight_bits)
    assert differences(c, found) == []
    wrong = Counted((replace(c.products[0], w_bits=7), *c.products[1:]))
    lines = differences(wrong, found)
    assert len(lines) == 1 and lines[0].startswith(c.products[0].name) and "bit operations here" in lines[0]
    assert (
        "counts no such ConvTranspose"
        in differences(Counted((replace(c.products[0], operator="ConvTranspose"),)), found)[0]
    )
    assert len(differences(Counted(c.products[1:]), found)) == 1  # a layer that only QONNX counts


# -- operators ---------------------------------------------------------------------------------------------------------
def node(kind: str, ins: list[str], **attributes: object) -> object:
    return helper.make_node(kind, ins, ["y"], **attributes)


@pytest.mark.parametrize(("made", "expected"), [
    (graph([node("Conv", ["x", "w"], group=2, strides=[2, 2], pads=[1, 1, 1, 1])], {"x": [1, 4, 9, 9]},
           {"w": floats(6, 2, 3, 3)}), 6 * 5 * 5 * 2 * 9),
    (graph([node("ConvTranspose", ["x", "w"], strides=[2, 2])], {"x": [1, 4, 5, 6]}, {"w": floats(4, 3, 2, 2)}),
     4 * 5 * 6 * 3 * 4),
    (graph([node("Gemm", ["x", "w"], transA=1, transB=1)], {"x": [7, 2]}, {"w": floats(5, 7)}), 2 * 5 * 7),
    (graph([node("MatMul", ["x", "w"])], {"x": [2, 3, 7]}, {"w": floats(7, 5)}), 2 * 3 * 7 * 5),
    (graph([node("MatMul", ["w", "x"])], {"x": [2, 7, 3]}, {"w": floats(5, 7)}), 2 * 3 * 7 * 5),
    (graph([node("MatMul", ["x", "z"])], {"x": [2, 3, 7], "z": [2, 7, 5]}, {}), 2 * 3 * 7 * 5),
])  # fmt: skip
def test_products_by_hand(made: Model, expected: int) -> None:
    c = count(made)
    weights = math.prod(numpy_helper.to_array(made.graph.initializer[0]).shape) if made.graph.initializer else 0
    assert c.macs == expected and c.weights == weights and c.bitops == 1024 * expected
    assert c.entropy_bits is None and c.weight_bits == 32 * weights


def test_a_graph_may_be_thousands_of_operators_deep() -> None:
    chain = [helper.make_node("Add", [f"t{i}", f"t{i}"], [f"t{i + 1}"]) for i in range(3000)]
    ends = [helper.make_node("Identity", ["x"], ["t0"]), *chain, node("MatMul", ["t3000", "w"])]
    assert count(graph(ends, {"x": [2, 3]}, {"w": floats(3, 5)})).macs == 30


def test_weights_that_two_layers_share_are_stored_once() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w1"]),
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w2"]),
        helper.make_node("MatMul", ["h", "w2"], ["y"]),
    ]
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    c = count(graph(nodes, {"x": [3, 4]}, {"codes": codes, "scale": np.float32(0.5)}))
    assert (c.macs, c.weights, c.weight_bits) == (2 * 48, 16, 128) and c.entropy_bits == 64
    assert c.bitops == 2 * 48 * 8 * 32
    twice = summed([c, c])
    assert (twice.macs, twice.weights, twice.operators["MatMul"]) == (4 * 48, 32, 4)


def test_rounding_and_clipping_make_integers_without_any_quantizer() -> None:
    """As the entropy path of the codec has them."""
    nodes = [
        helper.make_node("Floor", ["x"], ["f"]),
        helper.make_node("Clip", ["f", "low", "high"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    ends = {"low": np.float32(-8), "high": np.float32(7)}
    c = count(graph(nodes, {"x": [5, 3]}, {"w": np.array([[-1.0], [0], [1], [1], [0]], np.float32), **ends}))
    assert (c.products[0].a_bits, c.products[0].w_bits) == (4, 2)
    assert c.entropy_bits == pytest.approx(entropy_bits([1, 2, 2]))
    known = count(graph(nodes[2:], {"c": [5, 3]}, {"w": floats(5, 1)}), {"c": Numbers(0, 255, 1)})
    assert (known.products[0].a_bits, known.products[0].w_bits) == (8, 32) and known.activation_bits == 8 * 18


def test_quantizers_say_their_bits() -> None:
    def quant(x: str, scale: str, y: str, narrow: int) -> object:
        return helper.make_node("Quant", [x, scale, "zero", "bits"], [y], domain="qonnx.custom_op.general",
                                signed=1, narrow=narrow, rounding_mode="ROUND")  # fmt: skip

    nodes = [quant("x", "one", "a", 1), quant("w", "each", "b", 0), helper.make_node("MatMul", ["a", "b"], ["y"])]
    w, each = floats(6, 4), np.array([0.5, 0.25, 1, 2], np.float32)
    scalars = {n: np.float32(v) for n, v in (("one", 0.5), ("zero", 0), ("bits", 5))}
    c = count(graph(nodes, {"x": [2, 6]}, {"w": w, "each": each, **scalars}))
    assert (c.products[0].a_bits, c.products[0].w_bits) == (5, 5)
    codes = np.clip(np.rint(w / each), -16, 15)
    assert c.entropy_bits == pytest.approx(entropy_bits(np.unique(codes, return_counts=True)[1]))


@pytest.mark.parametrize(("said", "bits"), [({}, 8), ({"output_dtype": TensorProto.INT4}, 4)])
def test_qcdq_says_its_bits_by_types_and_clips(said: dict, bits: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], **said),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    constants = {"scale": np.float32(0.25), "w": floats(3, 5)}
    assert count(graph(nodes, {"x": [2, 3]}, constants)).products[0].a_bits == bits
    clip = helper.make_node("Clip", ["q", "low", "high"], ["c"])
    nodes[1:2] = [clip, helper.make_node("DequantizeLinear", ["c", "scale"], ["d"])]
    ends = {"low": np.uint8(0), "high": np.uint8(6)}
    assert count(graph(nodes, {"x": [2, 3]}, constants | ends)).products[0].a_bits == 3
    before = helper.make_node("Clip", ["x", "low", "high"], ["r"])  # of real numbers: -512 / 0.25 is the least code
    nodes[:2] = [before, helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["c"])]
    ends = {"low": np.float32(-512), "high": np.float32(511), "zero": np.int16(0)}
    assert count(graph(nodes, {"x": [2, 3]}, constants | ends)).products[0].a_bits == 12


@pytest.mark.parametrize(("made", "bits"), [
    (Numbers(0, 15, 1), 4), (Numbers(0, 16, 1), 5), (Numbers(-8, 7, 1), 4), (Numbers(-7, 8, 1), 5),
    (Numbers(-1, 0, 1), 1), (Numbers(-2, -1, 1), 2), (Numbers(0, 0, 1), 1), (Numbers(-4, 3.5, 0.5), 4),
    (Numbers(), 32), (Numbers(0, 1), 32),
    (Numbers(codes=3), 3), (of_array(np.zeros(3, np.int8)), 8), (of_array(np.array([0.0, 3])), 2),
    (of_array(np.array([0.5, 3])), 32), (of_array(np.array(0.5)), 1), (of_array(np.zeros(2, np.float16)), 16),
    (of_array(np.array([np.nan])), 32),
    (added(Numbers(0, 15, 1), Numbers(0, 15, 1)), 5), (added(Numbers(0, 15, 1), Numbers(0, 1, 0.25)), 7),
    (added(Numbers(0, 15, 1), Numbers(0, 1, 0.7)), 32), (added(Numbers(0, 15, 1), negated(Numbers(0, 15, 1))), 5),
    (multiplied(Numbers(-8, 7, 1), Numbers(0, 15, 1)), 8), (multiplied(Numbers(0, 0, 1), Numbers(step=1)), 1),
    (rounded(Numbers(-1.5, 6.9), math.floor), 4), (rounded(Numbers(-1.5, 7.1), math.ceil), 5),
    (clipped(Numbers(step=1), 0, 15), 4), (clipped(Numbers(-128, 127, 1, 8), -8, 7), 4),
    (clipped(Numbers(codes=6), 0, 1), 6),
    (either(Numbers(0, 15, 1), Numbers(-8, 7, 1)), 5), (either(Numbers(codes=6), Numbers(codes=4)), 6),
    (either(Numbers(codes=6), Numbers()), 32),
])  # fmt: skip
def test_bits_of_numbers(made: Numbers, bits: int) -> None:
    assert made.bits == bits


def test_every_rule_is_of_an_operator_that_onnx_has() -> None:
    assert {name for name in RULES if not onnx.defs.has(name)} == {"Quant"}


# -- what goes wrong ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("made", "named"), [
    (graph([node("Einsum", ["x"], equation="ij->ji")], {"x": [2, 3]}, {}), "the operator Einsum (node y)"),
    (graph([node("Quant", ["x"], domain="my.own")], {"x": [2, 3]}, {}), "my.own::Quant"),
    (graph([node("Conv", ["x"], domain="my.own")], {"x": [2, 3]}, {}), "my.own::Conv"),
])  # fmt: skip
def test_an_operator_without_a_rule_is_named(made: Model, named: str) -> None:
    with pytest.raises(Uncounted, match="no rule counts") as error:
        count(made)
    assert named in str(error.value)


def test_sizes_that_are_free_have_to_be_given() -> None:
    made = graph([node("Relu", ["x"])], {"x": ["n", 3, "h", None]}, {})
    assert inputs(made) == {"x": ("n", 3, "h", "?")}
    assert inputs(fixed(made, {"x": (1, 3, 4, 5)})) == {"x": (1, 3, 4, 5)}
    wrong: list[tuple[dict, str]] = [
        ({}, "free sizes .n, 3, h, .*: give its shape"), ({"z": (1,)}, "no input z: it has x"),
        ({"x": (1, 4, 4, 5)}, "not .1, 4, 4, 5."), ({"x": (1, 3)}, "not .1, 3."), ({"x": (1, 3, 0, 5)}, "not .1, 3, 0"),
    ]  # fmt: skip
    for shapes, message in wrong:
        with pytest.raises(ValueError, match=message):
            fixed(made, shapes)


def test_what_is_no_graph_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for data in (b"", b"not a graph", Model().SerializeToString()):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not a graph of ONNX"):
            load(path)
    made = graph([node("MatMul", ["x", "w"])], {"x": [2, 3]}, {"w": floats(4, 5)})
    with pytest.raises(ValueError, match="shapes do not fit"):
        count(made)


def test_a_layer_whose_shape_depends_on_numbers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """NonZero gives as many rows as there are numbers; its rule is added here, which anyone may do."""
    monkeypatch.setitem(RULES, "NonZero", lambda g, n: Numbers())
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"]), helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the shape of t does not follow"):
        count(graph(nodes, {"x": [2, 3]}, {"w": floats(2, 5)}))
