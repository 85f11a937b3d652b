"""The step that a GPU takes as one graph is the step that a CPU takes; the graph itself where there is a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from codec.config import CONFIGS  # noqa: E402
from codec.models.mlicv2 import MLICv2  # noqa: E402
from codec.training import data, train  # noqa: E402
from codec.training.captured import Captured, Graph  # noqa: E402
from codec.training.run import Run  # noqa: E402
from codec.training.schedule import Step  # noqa: E402
from codec.training.step import shares_of  # noqa: E402

NOW = Step(1.0, 4, 64, False)


def new_run(folder: Path, device: str) -> Run:
    torch.manual_seed(1)
    model = MLICv2(CONFIGS["tiny"])
    with torch.no_grad():
        for name, p in model.arrays.items():
            if name.endswith("/out/weight"):
                p.normal_(std=0.1)
    run = Run(folder, model.to(device), 0)
    run.captured = Captured(model, run.optimizers, run.update_average)
    return run


class Uncaptured(Captured):
    """Each step as the graph would take it, one operator after the other."""

    learns = 1.0

    def __call__(
        self, x: Tensor, qp: Tensor, lambdas: Tensor, rate: float, newest: float, rng: np.random.Generator
    ) -> Any:
        numbers = torch.cat((qp, lambdas, shares_of(lambdas), torch.tensor([rate, newest, self.learns])))
        step = Graph(self, x, numbers.to(x.device))
        torch.manual_seed(int(rng.integers(1 << 62, size=1)[0]))
        return self.told(step.take(), len(x))


def state(run: Run) -> dict[str, Tensor]:
    found = {n: p.detach().clone() for n, p in run.parameters.items()}
    found |= {f"average {n}": a.clone() for n, a in run.average.items()}
    for i, o in enumerate(run.optimizers):
        for j, (_, s) in enumerate(o.state.items()):
            found |= {f"{i} {j} {k}": v.clone() for k, v in s.items()}
    return found


def test_it_is_the_step_that_a_cpu_takes(tmp_path: Path, photo: NDArray) -> None:
    photos, runs = data.Photos([photo], 128), [new_run(tmp_path, "cpu") for _ in range(2)]
    runs[0].captured = None
    runs[1].captured = Uncaptured(runs[1].model, runs[1].optimizers, runs[1].update_average)
    before = state(runs[0])
    for run in runs:
        found = train.update(run, photos, NOW)
        assert len(found[2]) == NOW.crops
    a, b = (state(run) for run in runs)
    assert a.keys() == b.keys()
    for name, value in a.items():
        moved = value - before.get(name, 0.0)
        assert (moved - (b[name] - before.get(name, 0.0))).norm() <= 1e-3 * moved.norm() + 1e-9, name


def test_a_step_that_does_not_count_changes_nothing(tmp_path: Path, photo: NDArray) -> None:
    """As before a graph is taken, or where something is not finite."""
    photos, run = data.Photos([photo], 128), new_run(tmp_path, "cpu")
    run.captured = captured = Uncaptured(run.model, run.optimizers, run.update_average)
    train.update(run, photos, NOW)
    before = state(run)
    captured.learns = 0.0
    train.update(run, photos, NOW)
    assert run.counts["skipped"] == 0 and all(torch.equal(v, before[n]) for n, v in state(run).items())
    captured.learns = 1.0
    with torch.no_grad():
        run.model.arrays["g_s/head/bias"][0] = float("nan")
    train.update(run, photos, NOW)
    after = state(run)
    assert run.counts["skipped"] == 1
    assert all(torch.equal(v, after[n]) for n, v in before.items() if "g_s/head/bias" not in n)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_graph_learns_and_gives_the_same_again(tmp_path: Path, photo: NDArray) -> None:
    photos, found = data.Photos([photo], 128, "cuda"), []
    for _ in range(2):
        run = new_run(tmp_path, "cuda")
        run.captured = Captured(run.model, run.optimizers, run.update_average)
        run.model.fit_to(data.to_signal(photos.crops(64, 128, run.rng)))
        losses = [train.update(run, photos, NOW)[0] for _ in range(60)]
        assert np.mean(losses[-10:]) < np.mean(losses[:10])
        found.append((losses, run.model.arrays["g_s/head/weight"].detach().clone()))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
