"""The integer kernels against the int64 reference, for every instruction set of this machine."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import quant  # noqa: E402
from cpp_ext import _gemm  # noqa: E402
from quant import gemm, reference  # noqa: E402

ISAS = ("scalar", "avx2", "avx512")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 150), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**31))
def test_products_are_exact(m: int, n: int, k: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-7, 8, (m, k)), rng.integers(-127, 128, (n, k), dtype=np.int8)
    shifts = rng.integers(0, groups, k)
    codes = torch.from_numpy((a << shifts).astype(np.int8))
    found = gemm.multiply(codes, gemm.pack(torch.from_numpy(b)))
    assert found.dtype == torch.int32 and np.array_equal(found.numpy(), reference.shifted_products(a, b.T, shifts))


def test_a_long_inner_dimension_and_extreme_codes() -> None:
    for k in (1024, 1028, 4608):
        a, b = torch.full((7, k), -128, dtype=torch.int8), torch.full((65, k), -128, dtype=torch.int8)
        assert bool((gemm.multiply(a, gemm.pack(b)) == 16384 * k).all())
        a = torch.full((7, k), 127, dtype=torch.int8)
        assert bool((gemm.multiply(a, gemm.pack(b)) == -128 * 127 * k).all())


def test_every_instruction_set_gives_the_same_integers(everywhere: Callable[[str], list[str]]) -> None:
    program = (
        "import numpy as np, torch; from quant import gemm; from cpp_ext import _gemm; r = np.random.default_rng(3);"
        "a, b = (torch.from_numpy(r.integers(-128, 128, s).astype(np.int8)) for s in ((61, 1500), (131, 1500)));"
        "c = gemm.multiply(a, gemm.pack(b)); import hashlib;"
        "assert np.array_equal(c.numpy(), a.numpy().astype(np.int64) @ b.numpy().astype(np.int64).T);"
        "print(_gemm.isa())"
    )
    found = everywhere(program)
    assert "scalar" in found and set(found) <= set(ISAS)


def test_threads_do_not_change_anything() -> None:
    kept = torch.get_num_threads()
    a, b = (torch.randint(-128, 128, s, dtype=torch.int8) for s in ((1000, 300), (70, 300)))
    made = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        made.append(gemm.multiply(a, gemm.pack(b)))
    torch.set_num_threads(kept)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 30), st.integers(1, 90), st.integers(2, 6), st.integers(1, 5), st.none() | st.integers(0, 2**32 - 1)
)
def test_the_quantizing_kernel_gives_the_defined_codes(
    n: int, c: int, bits: int, groups: int, seed: int | None
) -> None:
    x = torch.randn(n, c, generator=torch.Generator().manual_seed(n)) * torch.logspace(-3, 0, c)
    if quant.largest_code(bits) << (groups - 1) > 127:
        with pytest.raises(ValueError, match="do not fit a byte"):
            gemm.shift_quantize(x, bits, groups, seed)
        return
    made, defined = gemm.shift_quantize(x, bits, groups, seed), quant.channel(x, bits, groups, seed)
    assert torch.equal(made.bytes, gemm.to_bytes(defined.shifted()))
    assert torch.equal(made.exponents, defined.exponents.flatten())
    assert float(made.scale) == float(defined.scale) * 2.0 ** -(groups - 1)


def test_every_instruction_set_quantizes_alike(everywhere: Callable[[str], list[str]]) -> None:
    program = (
        "import torch; from quant import gemm; torch.manual_seed(0); import hashlib;"
        "x = torch.randn(700, 67) * torch.logspace(-3, 0, 67);"
        "made = [gemm.shift_quantize(x, 4, 4, seed).bytes.numpy().tobytes() for seed in (None, 77)];"
        "print(hashlib.sha256(b''.join(made)).hexdigest())"
    )
    assert len(set(everywhere(program))) == 1


def test_what_is_not_finite_is_named_by_the_kernel_too() -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        x = torch.ones(5, 9)
        x[3, 4] = bad
        with pytest.raises(quant.NonFinite):
            gemm.shift_quantize(x, 4, 4)
    assert bool((gemm.shift_quantize(torch.zeros(3, 5), 4, 4, seed=1).bytes == 128).all())


def test_wrong_sizes_are_refused() -> None:
    b = gemm.pack(torch.ones(3, 8, dtype=torch.int8))
    with pytest.raises(ValueError, match="16 columns, b was packed with 8"):
        gemm.multiply(torch.ones(2, 16, dtype=torch.int8), b)
    with pytest.raises(ValueError, match="131072"):
        _gemm.multiply(1, torch.zeros(1, 131076, dtype=torch.uint8), b.panels, b.corrections, torch.zeros(1, 3).int())
    with pytest.raises(ValueError, match="multiple of 4"):
        _gemm.pack(torch.ones(3, 7, dtype=torch.int8), b.panels, b.corrections)


def test_torch_compile_goes_around_it() -> None:
    b = gemm.pack(torch.randint(-7, 8, (9, 12), dtype=torch.int8))
    x = torch.randint(-7, 8, (5, 12), dtype=torch.int8)

    def f(x: torch.Tensor) -> torch.Tensor:
        return gemm.multiply(x, b).float() * 0.5

    torch.library.opcheck(gemm._multiply, (gemm.to_bytes(x), b.panels, b.corrections, b.n))
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert f(fake.from_tensor(x)).shape == (5, 9)


def test_shifted_codes_multiply_as_their_values() -> None:
    x = torch.randn(30, 20, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 0, 20)
    g = quant.channel(x, 4, 5, seed=1)
    w = quant.per_tensor(torch.randn(6, 20, generator=torch.Generator().manual_seed(1)), 4)
    scale = g.scale.double() * w.scale.double()
    found = gemm.multiply(g.shifted(), gemm.pack(w.codes)).double() * scale * 2.0**-4
    expected = (g.codes.double() * torch.exp2(-g.exponents.double())) @ w.codes.double().T * scale
    assert torch.equal(found, expected)
    assert torch.allclose(found, g.values().double() @ w.values().double().T, rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 80), st.integers(1, 300), st.integers(0, 2**31))
def test_up_to_nine_groups_of_four_bits_where_both_sides_carry_the_shifts(
    groups: int, m: int, n: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b, shifts = rng.integers(-7, 8, (m, k)), rng.integers(-7, 8, (n, k)), rng.integers(0, groups, k)
    left = np.minimum(shifts, 4)
    found = gemm.multiply(
        torch.from_numpy((a << left).astype(np.int8)),
        gemm.pack(torch.from_numpy((b << (shifts - left)).astype(np.int8))),
    )
    assert np.array_equal(found.numpy(), reference.shifted_products(a, b.T, shifts))
