"""Searching: schedules, gradients, seeds, going on; and the data of super-resolution."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from nas import CostModel, Noise, Penalty, Searcher, Target, positions  # noqa: E402
from nas.data import Crops, judge, judged_pictures, reduced, reduction  # noqa: E402
from nas.layers import QConv2d  # noqa: E402
from nas.optim import rate_at  # noqa: E402
from nas.searcher import Plan, entropy_share, likeliest  # noqa: E402
from nas.spaces import build, space_of  # noqa: E402
from rate import psnr_luma  # noqa: E402
from rate.cost import BITOPS  # noqa: E402


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"),
    [
        (20, 0, [0] * 5 + [.066, .125, .184, .244, .306, .369, .434, .501, .568, .637, .708, .779, .852, .925, 1.0]),
        (20, 9, [0] * 11 + [.060, .143, .241, .349, .467, .592, .722, .859, 1.0]),
    ],
)  # fmt: skip
def test_the_entropy_counts_more_and_more(epochs: int, warmup: int, expected: list[float]) -> None:
    assert [entropy_share(t, epochs, warmup) for t in range(epochs)] == pytest.approx(expected, abs=5e-4)


def searcher(photo: NDArray, plan: Plan, pressure: Penalty | Target, seed: int = 0, **options: object) -> tuple:
    torch.manual_seed(5)  # of the first weights
    space = space_of("sr-basic", scale=2, width=6, cells=1, bicubic=True)
    model = build(space)
    pictures = [photo[:200], photo[200:400]]
    made = Searcher(model, space, CostModel(BITOPS, model, (1, 3, 16, 16)), pressure, plan, 4, seed=seed, **options)
    return made, *(Crops(pictures, 2, 12, 2, 4, seed, part, 2) for part in range(2))


@pytest.mark.parametrize("search", ["noise", "fake", "float"])
@pytest.mark.parametrize(("bilevel", "real"), [(True, "float32"), (False, "float32"), (True, "bfloat16")])
def test_the_same_seed_finds_the_same_and_goes_on_as_if_nothing_were(
    search: str, bilevel: bool, real: str, photo: NDArray, tmp_path: Path
) -> None:
    plan = Plan(epochs=3, warmup=1, search=search, bilevel=bilevel, logit_rate=0.1, real=real)
    straight, *batches = searcher(photo, plan, Penalty(0.1))
    first = [p.clone() for p in straight.logits]
    found = straight.fit(*batches)
    assert any(not torch.equal(a, b) for a, b in zip(first, straight.logits, strict=True))
    assert len(straight.history) == 3 and all(np.isfinite(h["loss"]) for h in straight.history)

    class Stop(Exception):
        pass

    def save(s: Searcher) -> None:
        if s.epoch == 2:
            torch.save(s.state_dict(), tmp_path / "state.pt")
            raise Stop

    broken, *batches = searcher(photo, plan, Penalty(0.1))
    with pytest.raises(Stop):
        broken.fit(*batches, on_epoch=save)
    resumed, *batches = searcher(photo, plan, Penalty(0.1), seed=7)
    batches = searcher(photo, plan, Penalty(0.1))[1:]
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.fit(*batches) == found and resumed.history == straight.history
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_numbers_between_layers_are_as_asked_and_change_little(photo: NDArray) -> None:
    losses = {}
    for real in ("float32", "bfloat16"):
        made, *batches = searcher(photo, Plan(epochs=2, warmup=0, real=real), Penalty(0.1))
        seen = set()
        for m in made.model.modules():
            if isinstance(m, QConv2d):
                m.register_forward_hook(lambda m, x, y, seen=seen: seen.add(str(y.dtype)))
        made.fit(*batches)
        assert seen == {f"torch.{real}"}
        losses[real] = [h["loss"] for h in made.history]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)


def test_kernels_are_muons_and_everything_is_somebodys(photo: NDArray) -> None:
    made, *_ = searcher(photo, Plan(), Penalty(0.1))
    muon, adam = ([p for g in part.param_groups for p in g["params"]] for part in made.of_weights.parts)
    kernels = [m.weight for m in made.model.modules() if isinstance(m, QConv2d)]
    assert {id(p) for p in muon} == {id(p) for p in kernels if p.shape[1] > 1} and len(muon) < len(kernels)
    assert all(p.dim() < 4 or p.shape[1] == 1 for p in adam)
    everything = sorted(map(id, muon + adam + made.logits))
    assert everything == sorted(id(p) for p in made.model.parameters())
    made.of_weights.set_rate(0.3)
    assert [part.param_groups[0]["lr"] for part in made.of_weights.parts] == pytest.approx([0.3, 0.1])
    assert rate_at(1.0, 0.0) < 0.05 < 0.99 < rate_at(1.0, 0.05) and rate_at(1.0, 1.0) == pytest.approx(0.0)


def test_a_warm_up_leaves_the_logits_alone(photo: NDArray) -> None:
    made, *batches = searcher(photo, Plan(epochs=2, warmup=2), Penalty(1.0))
    made.fit(*batches)
    assert all((p == 0).all() for p in made.logits)


def test_a_penalty_makes_it_cheaper_and_a_target_finds_its_weight(photo: NDArray) -> None:
    plan = Plan(epochs=8, warmup=0, logit_rate=0.2)
    costs = {}
    for weight in (0.0, 10.0):
        made, *batches = searcher(photo, plan, Penalty(weight))
        made.fit(*batches)
        costs[weight] = made.cost.decided()
    assert costs[10.0] < 0.3 * costs[0.0]
    target = Target(costs[10.0] * 1.5)
    made, *batches = searcher(photo, plan, target)
    made.fit(*batches)
    assert costs[10.0] < made.cost.decided() <= target.cost
    assert made.cost.of(made.architecture()) == made.cost.decided() == made.history[-1]["cost"]


def test_a_budget_takes_no_more_than_it_needs(photo: NDArray) -> None:
    made, *batches = searcher(photo, Plan(epochs=1, warmup=1), Target(1.0))
    least, most = made.cost.reach()
    options = dict(zip(positions(made.model), made.cost.slopes(), strict=True))
    with torch.no_grad():
        for m, slope in zip(made.logits, options.values(), strict=True):
            m[int(slope.argmax())] = 3.0
    assert made.cost.decided() == most
    made.pressure.cost = 0.9 * most
    made.fit(*batches)
    assert 0.5 * most < made.cost.decided() <= 0.9 * most
    assert sum(m.detach().max().item() == 4.0 for m in made.logits) == 1  # of one position
    made, *batches = searcher(photo, Plan(epochs=1, warmup=1), Target(2 * most))
    made.fit(*batches)
    assert all((p == 0).all() for p in made.logits)
    made, *batches = searcher(photo, Plan(epochs=1, warmup=1), Target(least / 2))
    made.fit(*batches)
    assert made.cost.decided() == least  # out of reach: the nearest


def test_the_entropy_makes_it_decide(photo: NDArray) -> None:
    plan, ends = Plan(epochs=6, warmup=0, logit_rate=0.1), {}
    for weight in (0.0, 1.0):
        made, *batches = searcher(photo, plan, Penalty(1.0), entropy=weight)
        made.fit(*batches)
        ends[weight] = float(made.entropies().detach())
    assert ends[1.0] < ends[0.0]


@pytest.mark.parametrize("rule", ["var", "linear", "independent", "reference"])
def test_logits_learn_from_noise(rule: str, photo: NDArray) -> None:
    made, _, logits = searcher(photo, Plan(epochs=1, warmup=0), Penalty(0.0), noise=Noise(rule))
    x, y = next(iter(logits(0)))
    loss = (made.model(x) - y).abs().mean()
    assert all((g != 0).any() for g in torch.autograd.grad(loss, made.logits))


def test_the_report_says_what_is_decided(photo: NDArray) -> None:
    made, *_ = searcher(photo, Plan(), Penalty(0.0))
    with torch.no_grad():
        made.logits[0][3] = 10.0
    rows = made.report()
    assert [r["position"] for r in rows] == list(positions(made.model))
    assert rows[0]["decided"] and not rows[1]["decided"] and rows[1]["p"] < 0.5
    assert sum(r["share"] for r in rows) == pytest.approx(1.0)


def test_what_runs_away_is_said(photo: NDArray) -> None:
    made, *batches = searcher(photo, Plan(epochs=1, warmup=0), Penalty(0.0))
    with torch.no_grad():
        made.weights[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the rate"):
        made.fit(*batches)


# -- data -------------------------------------------------------------------------------------------------------------


def test_luma_psnr_is_that_of_the_field() -> None:
    a, b = (np.full((12, 12, 3), v, np.uint8) for v in (100, 101))
    assert psnr_luma(a, a) == float("inf")
    assert psnr_luma(a, b) == psnr_luma(a, b, 4) == pytest.approx(48.131, abs=5e-4)
    c = a.copy()
    c[:4] = 0
    assert psnr_luma(a, c, 4) == float("inf")
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr_luma(a, b, 6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduction_is_matlabs(scale: int, photo: NDArray) -> None:
    """The kernel is Pillow's too, but for borders, where MATLAB mirrors."""
    size = 24 * scale
    plane = photo[:size, :size, 1].astype(np.float32) / 255
    found = reduced(torch.from_numpy(plane), scale).numpy() * 255
    pillow = np.asarray(Image.fromarray(plane).resize((24, 24), Image.Resampling.BICUBIC)) * 255
    assert np.abs(found - pillow.clip(0, 255))[4:-4, 4:-4].max() < 0.51
    rows = reduction(size, scale)
    assert torch.allclose(rows.sum(1), torch.ones(24), atol=1e-6) and torch.allclose(rows, rows.flip(0, 1), atol=1e-6)
    with pytest.raises(ValueError, match="does not divide"):
        reduction(25, scale * 2)


def test_reduction_of_a_ramp_by_two() -> None:
    """By hand: imresize of 0, 1, .. 7 by 1/2 is (imresize(0:7, 0.5)) 0.4297, 2.5, 4.5, 6.5703 inside mirrored ends."""
    found = reduction(8, 2) @ torch.arange(8.0)
    assert found[1:3].tolist() == pytest.approx([2.5, 4.5], abs=0.04)
    assert found[0] + found[3] == pytest.approx(7.0, abs=1e-5)


def test_crops_are_the_same_for_the_same_epoch(photo: NDArray) -> None:
    crops = Crops([photo], 4, 8, 3, 2, seed=1)
    first, again, next_epoch = (list(crops(e)) for e in (0, 0, 1))
    assert all(torch.equal(a, b) for p, q in zip(first, again, strict=True) for a, b in zip(p, q, strict=True))
    assert not torch.equal(first[0][1], next_epoch[0][1])
    low, high = first[0]
    assert low.shape == (3, 3, 8, 8) and high.shape == (3, 3, 32, 32) and torch.allclose(low, reduced(high, 4))


def test_pictures_are_judged_whole(tmp_path: Path, photo: NDArray) -> None:
    Image.fromarray(photo[:70, :50]).save(tmp_path / "a.png")
    Image.fromarray(photo[:40, :40, 0]).save(tmp_path / "grey.png")
    pictures = judged_pictures(tmp_path)
    assert {n: p.shape for n, p in pictures.items()} == {"a.png": (60, 48, 3), "grey.png": (36, 36, 3)}
    nearest = torch.nn.Upsample(scale_factor=4, mode="nearest")
    bicubic = torch.nn.Upsample(scale_factor=4, mode="bicubic")
    found = {n: judge(m, pictures, 4) for n, m in (("nearest", nearest), ("bicubic", bicubic))}
    assert found["bicubic"]["a.png"] > found["nearest"]["a.png"] + 0.3
    with pytest.raises(ValueError, match="no folder with pictures"):
        judged_pictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no finite picture"):
        judge(Broken(), pictures, 4)
    Image.fromarray(photo[:11, :11]).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="is smaller than 12"):
        judged_pictures(tmp_path)


class Broken(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=4) * float("nan")


@pytest.mark.parametrize("seed", range(20))
def test_the_likeliest_within_a_budget(seed: int) -> None:
    """Against all combinations."""
    rng = np.random.default_rng(seed)
    chances = [np.log(rng.dirichlet(np.ones(n))) for n in (3, 4, 2, 5)]
    costs = [rng.uniform(0, 10, len(c)) for c in chances]
    every = list(itertools.product(*(range(len(c)) for c in chances)))
    whole = [sum(c[i] for c, i in zip(costs, one, strict=True)) for one in every]
    budget = float(rng.uniform(min(whole), max(whole)))
    worth = [sum(c[i] for c, i in zip(chances, one, strict=True)) for one in every]
    best = max((w, one) for w, one, cost in zip(worth, every, whole, strict=True) if cost <= budget)
    assert tuple(likeliest(chances, costs, budget)) == best[1]
    cheapest = [int(c.argmin()) for c in costs]
    assert likeliest(chances, costs, 0.9 * min(whole)) == cheapest == likeliest(chances, costs, -1.0)
