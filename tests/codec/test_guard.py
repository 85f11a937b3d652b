"""A run that leaves its course goes back and on more slowly; one bad step, or a new kind of batch, is no reason to."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from codec.config import CONFIGS  # noqa: E402
from codec.models.mlicv2 import MLICv2  # noqa: E402
from codec.training import guard  # noqa: E402
from codec.training.run import CHECKPOINT, Run  # noqa: E402
from codec.training.schedule import Step  # noqa: E402

SMALL, LARGE = Step(1.0, 2, 64, False), Step(1.0, 1, 128, False)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, guard.Guard]:
    monkeypatch.setattr(guard, "EVERY", 50)
    run = Run(tmp_path, MLICv2(CONFIGS["tiny"]), 0)
    return run, guard.Guard(run)


def steps(run: Run, watch: guard.Guard, now: Step, losses: list[float]) -> None:
    """Steps that make every number 1 larger."""
    for loss in losses:
        with torch.no_grad():
            for p in (*run.parameters.values(), *run.average.values()):
                p += 1.0
        watch(now, loss)


def value(run: Run) -> float:
    return float(run.parameters["g_s/head/bias"][0].detach())


@pytest.mark.parametrize("bad", (2.5, 1e16, float("inf"), float("nan")))
def test_it_goes_back_to_the_older_copy_at_half_the_rate(
    watched: tuple, bad: float, capsys: pytest.CaptureFixture
) -> None:
    run, watch = watched
    before = value(run)
    steps(run, watch, SMALL, [1.0] * 160)  # copies after steps 1, 50, 100 and 150: the last two are there
    steps(run, watch, SMALL, [bad] * 28)
    assert run.counts["halvings"] == 1 and 0 < run.peak < run.rate / 4
    steps(run, watch, SMALL, [1.0] * guard.WARM_UP)
    assert run.counts["halvings"] == 1 and run.peak == run.rate / 2
    assert before + 100 <= value(run) - guard.WARM_UP < before + 130  # of step 100, and the steps since
    name = "g_s/head/bias"
    assert torch.equal(run.average[name], run.parameters[name])
    assert "back to earlier weights" in capsys.readouterr().err


def test_it_goes_back_to_what_was_before_the_first_step(watched: tuple) -> None:
    run, watch = watched
    steps(run, watch, SMALL, [1.0] * 30)
    for o in run.optimizers:
        for p in o.param_groups[0]["params"]:
            o.state[p]["step"] = torch.zeros(())
    steps(run, watch, SMALL, [9.0] * 40)
    assert run.counts["halvings"] == 1


def test_one_bad_step_or_larger_crops_are_no_reason(watched: tuple) -> None:
    run, watch = watched
    steps(run, watch, SMALL, [1.0] * 60 + [float("nan")] + [1.1] * 60 + [1e9] + [1.0] * 60)
    steps(run, watch, LARGE, [float("nan")] + [3.0] * 100)
    assert run.counts["halvings"] == 0
    steps(run, watch, LARGE, [9.0] * 40)
    assert run.counts["halvings"] == 1


def test_how_often_is_kept_with_the_checkpoint(watched: tuple) -> None:
    run, watch = watched
    steps(run, watch, SMALL, [1.0] * 60 + [5.0] * 30)
    run.save()
    resumed = Run(run.folder, MLICv2(CONFIGS["tiny"]), 0)
    resumed.load(run.folder / CHECKPOINT)
    assert resumed.counts["halvings"] == 1 and resumed.peak == resumed.rate / 2
