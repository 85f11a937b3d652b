"""The full-size networks: their size, what may depend on what, and files that decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import rate  # noqa: E402
from codec.coding import code_latents  # noqa: E402
from codec.models.large import contexts  # noqa: E402
from codec.models.large.bottleneck import Bottleneck  # noqa: E402
from codec.models.large.model import MLIC, OPTIONS, Likelihoods  # noqa: E402
from cpp_ext import CorruptStream  # noqa: E402

TINY = OPTIONS["mlicv2-l-tiny"]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(1)


@pytest.fixture
def model() -> Iterator[MLIC]:
    """Untrained, with deviations as large as trained ones have and with every context at work."""
    made = MLIC(TINY).eval()
    with torch.no_grad():
        for heads in (made.head_anchor, made.head_other):
            for head in heads.values():
                head[-1].bias[: TINY.slice] += 0.8
        y = made.g_a(torch.rand(1, 3, 128, 128))
        made.g_a[-1].weight.mul_(0.8 / y.std())
        made.g_a[-1].bias.copy_(-made.g_a(torch.rand(1, 3, 128, 128)).mean((0, 2, 3)) + made.g_a[-1].bias)
    yield made


@pytest.mark.parametrize(
    ("name", "least", "most", "least_macs", "most_macs"),
    [("mlicpp", 83_501_408, 83_501_408, 1_141.5, 1_164.5), ("mlicv2-l", 82e6, 85e6, 960, 1000)],
)
def test_size_at_full_width(name: str, least: float, most: float, least_macs: float, most_macs: float) -> None:
    """MLIC++'s count is that of its released weights; its MACs are those its authors' way of counting gives."""
    with torch.device("meta"):
        made = MLIC(OPTIONS[name])
        made.selecting = made.options.selective
        x = torch.zeros(1, 3, 512, 768)
    assert least <= rate.parameters(made) <= most
    assert least_macs <= rate.macs(made, x) / (512 * 768) / 1e3 <= most_macs


def test_the_command_prints_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    from codec.cli import cli

    cli.main(["models", "--networks"], standalone_mode=False)
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["mlicpp"] == ["83,501,408", "1153.0", "777.7"]
    assert lines["mlicv2-s"] == ["7,034,368", "43.2", "29.0"] and "mlicv2-l" in lines and "tiny" not in lines


def test_a_channel_of_the_bottleneck_has_61_numbers() -> None:
    assert rate.parameters(Bottleneck(7)) == 7 * 61


def test_anchors_are_where_row_and_column_are_odd_together() -> None:
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    odd = (rows + columns) % 2 == 1
    assert torch.equal(contexts.anchor_mask(x), odd)
    assert torch.equal(contexts.unpack(contexts.pack(x, True), True), x * odd)
    assert torch.equal(contexts.unpack(contexts.pack(x, False), False), x * ~odd)


def test_rotation_depends_on_differences_alone() -> None:
    rotary, at = contexts.Rotary(), torch.arange(9.0)
    q, k = torch.randn(1, 16, 9), torch.randn(1, 16, 9)
    columns, rows = at % 3, at // 3
    logits = rotary(q, columns, rows).transpose(1, 2) @ rotary(k, columns, rows)
    moved = rotary(q, columns + 40, rows - 7).transpose(1, 2) @ rotary(k, columns + 40, rows - 7)
    assert torch.allclose(logits, moved, atol=1e-4)
    assert not torch.allclose(logits, q.transpose(1, 2) @ k, atol=1e-2)


def parameters_of(model: MLIC, y: Tensor, z: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(mean, deviation) of every pass of y in the order of coding."""
    mode, seen = Likelihoods(model, y, z), []
    code = mode.code

    def record(i: int, half: int, mean: Tensor, scale: Tensor) -> Tensor:
        seen.append((mean, scale))
        return code(i, half, mean, scale)

    mode.code = record  # type: ignore[method-assign]
    with torch.no_grad():
        code_latents(model, mode, None)
    return seen[1:]


@pytest.mark.parametrize("selecting", [False, True])
@pytest.mark.parametrize("i", range(TINY.slices))
@pytest.mark.parametrize("half", [0, 1])
def test_no_parameter_sees_what_is_coded_later(model: MLIC, i: int, half: int, selecting: bool) -> None:
    """A symbol moved by three steps leaves all passes before and its own bit-identical, and reaches those behind."""
    model.selecting = selecting
    c, y, z = TINY.slice, 4 * torch.randn(1, TINY.latents, 8, 12), torch.randn(1, TINY.hidden, 2, 3)
    before = parameters_of(model, y, z)
    moved = y.clone()
    moved[0, i * c, 2, 3 if half == 0 else 4] += 3
    after = parameters_of(model, moved, z)
    position = 2 * i + half
    for (a, b), (c_, d) in zip(before[: position + 1], after[: position + 1], strict=True):
        assert torch.equal(a, c_) and torch.equal(b, d)
    for a, b in zip(before[position + 1 :], after[position + 1 :], strict=True):
        assert not torch.equal(a[0], b[0])


@pytest.mark.parametrize("packed", [True, False])
def test_half_the_grid_gives_the_same_parameters(packed: bool) -> None:
    from dataclasses import replace

    made = MLIC(TINY).eval()
    other = MLIC(replace(TINY, packed=packed)).eval()
    other.load_state_dict(made.state_dict())
    x = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        assert torch.allclose(made(x)["likelihoods"]["y"], other(x)["likelihoods"]["y"], rtol=1e-3, atol=1e-7)


def padded(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, -x.shape[-1] % 64, 0, -x.shape[-2] % 64), mode="replicate")


@pytest.mark.parametrize("selecting", [False, True])
def test_files_decode_and_have_the_size_that_was_counted(model: MLIC, selecting: bool) -> None:
    """Several sizes in turn: nothing may be left over from the one before."""
    model.selecting = selecting
    model.update()
    for height, width in ((64, 64), (65, 130), (448, 640), (64, 64)):
        x = padded(torch.rand(1, 3, height, width))
        with torch.no_grad():
            out = model(x)
        made = model.compress(x)
        bits = -sum(float(p.double().log2().sum()) for p in out["likelihoods"].values())
        size = 8 * sum(len(s) for (s,) in made["strings"])
        if height == 448:
            assert size == pytest.approx(bits, rel=0.005)
        decoded = model.decompress(**made)["x_hat"]
        assert torch.equal(decoded, out["x_hat"].clamp(0, 1))


def test_skipping_saves_symbols_and_comes_back(model: MLIC) -> None:
    model.update()
    x, sizes = torch.rand(1, 3, 128, 128), []
    for bias in (100.0, -4.0, -100.0):
        model.selecting = True
        for net in model.selection.values():
            nn.init.constant_(net.bias, bias)
        made = model.compress(x)
        sizes.append(len(made["strings"][0][0]))
        assert torch.equal(model.decompress(**made)["x_hat"], model(x)["x_hat"].clamp(0, 1))
    assert sizes[0] > sizes[1] >= sizes[2] == 1  # nothing but the lane count
    model.selecting = False
    assert len(model.compress(x)["strings"][0][0]) == sizes[0]


def test_damage_is_an_error(model: MLIC) -> None:
    model.update()
    made = model.compress(torch.rand(1, 3, 64, 64))
    y, z = (s for (s,) in made["strings"])
    for strings in ([[y[:-2]], [z]], [[y], [z[:-2]]], [[b""], [z]], [[b"\x07" + y[1:]], [z]], [[y + b"\0"], [z]]):
        with pytest.raises(CorruptStream):
            model.decompress(strings, made["shape"])


def test_state_dict_survives(model: MLIC) -> None:
    again = MLIC.from_state_dict(model.state_dict(), TINY).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x)["x_hat"], model(x)["x_hat"])
    with pytest.raises(RuntimeError, match="Missing key"):
        MLIC.from_state_dict({}, TINY)


def test_bad_calls_say_so(model: MLIC) -> None:
    with pytest.raises(ValueError, match="multiples of 64, this is 65x64"):
        model(torch.rand(1, 3, 64, 65))
    with pytest.raises(ValueError, match="after update"):
        model.compress(torch.rand(1, 3, 64, 64))
    model.update()
    with pytest.raises(ValueError, match="one picture"):
        model.compress(torch.rand(2, 3, 64, 64))


def step(model: MLIC, x: Tensor, loss: Callable[[dict[str, Any]], Tensor]) -> float:
    optimizer = torch.optim.Adam((p for n, p in model.named_parameters() if not n.endswith("quantiles")), 1e-3)
    out = model(x)
    value = loss(out)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def bits(out: dict[str, Any]) -> Tensor:
    return -sum(p.log2().sum() for p in out["likelihoods"].values())  # type: ignore[return-value]


def test_a_step_reaches_every_parameter_and_helps() -> None:
    """Rate and distortion, the quantiles by their own loss, and the selection in both of its phases."""
    model, x = MLIC(TINY).train(), torch.rand(2, 3, 64, 128)

    def loss(out: dict[str, Any]) -> Tensor:
        return 0.01 * 255**2 * (out["x_hat"] - x).square().mean() + bits(out) / x[:, 0].numel()

    values = [step(model, x, loss) for _ in range(8)]
    assert values[-1] < values[0]
    model.aux_loss().backward()
    missing = {n for n, p in model.named_parameters() if p.grad is None}
    assert all(n.startswith("selection") for n in missing) and missing

    model.selecting = True

    def guided(out: dict[str, Any]) -> Tensor:
        logits, targets = (torch.cat([t.flatten() for t in ts]) for ts in out["selection"])
        weight = torch.where(targets, 4.0, 1.0)
        return loss(out) + 0.01 * nn.functional.binary_cross_entropy_with_logits(logits, targets.float(), weight)

    step(model, x, guided)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_full_size_codes_a_small_picture_and_learns_from_it() -> None:
    model, x = MLIC(OPTIONS["mlicv2-l"]), torch.rand(1, 3, 64, 64)
    model.eval().update()
    with torch.no_grad():
        expected = model(x)["x_hat"].clamp(0, 1)
    assert torch.equal(model.decompress(**model.compress(x))["x_hat"], expected)
    assert step(model.train(), x, lambda out: bits(out) + 650 * (out["x_hat"] - x).square().mean()) > 0
