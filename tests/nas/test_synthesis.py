"""The codec's synthesis as a space: with the trained blocks it is the codec's synthesis, and it can be searched."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from codec import network  # noqa: E402
from codec.config import CONFIGS  # noqa: E402
from codec.models.mlicv2 import MLICv2, qp_weights  # noqa: E402
from nas import CostModel, Penalty, Searcher, positions  # noqa: E402
from nas.baselines import uniform  # noqa: E402
from nas.searcher import Plan  # noqa: E402
from nas.spaces.synthesis import Synthesis, load, synthesis_space  # noqa: E402
from rate.cost import BITOPS, MACS  # noqa: E402

TINY = CONFIGS["tiny"]


@pytest.fixture
def trained() -> MLICv2:
    torch.manual_seed(0)
    model = MLICv2(TINY)
    with torch.no_grad():
        for name, p in model.arrays.items():
            if name.startswith(("g_s", "y/")):
                p.copy_(torch.randn_like(p) * 0.2 if "deviation" not in name else torch.rand_like(p) + 0.5)
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    qp = qp_weights(torch.tensor([7.0, 50.0]))
    return torch.randn(2, 4, 6, TINY.latents).round() * 2, torch.randn(2, 4, 6, TINY.features), qp


def test_with_its_own_blocks_it_is_the_codecs(trained: MLICv2) -> None:
    space = synthesis_space((8,), ("mixing5",))
    model = Synthesis(space, TINY)
    load(model, trained)
    space.state.mode = "float"
    with torch.no_grad():
        expected = network.g_s(trained.transforms, TINY, *inputs()[:2], inputs()[2])
        assert torch.allclose(model(*inputs()), expected, atol=1e-5)
        space.state.mode = "fake"
        rounded = model.eval()(*inputs())
    assert 0 < (rounded - expected).norm() < 0.3 * expected.norm()


def test_it_costs_what_the_shipped_synthesis_costs() -> None:
    """29.0 thousand multiplications per pixel are to decode mlicv2-s; g_s alone is most of them."""
    cfg = CONFIGS["mlicv2-s"]
    model = Synthesis(synthesis_space((8,), ("mixing5",)), cfg)
    example = (torch.zeros(1, 4, 4, cfg.latents), torch.zeros(1, 4, 4, cfg.features), torch.zeros(1, 9))
    per_pixel = CostModel(MACS, model, example).decided() / 64**2
    assert 10e3 < per_pixel < 29e3
    assert CostModel(BITOPS, model, example).decided() == 64 * CostModel(MACS, model, example).decided()


def test_it_is_searched_and_found(trained: MLICv2) -> None:
    space = synthesis_space()
    model = Synthesis(space, TINY)
    load(model, trained)
    cost = CostModel(BITOPS, model, inputs())
    target = network.g_s(trained.transforms, TINY, *inputs()[:2], inputs()[2]).detach()
    searcher = Searcher(model, space, cost, Penalty(1.0), Plan(4, 0, 1e-4, 0.3), 2)
    found = searcher.fit(lambda _: [(inputs(), target)] * 2, lambda _: [(inputs(), target)] * 2)
    assert list(found.choices) == list(positions(model)) == ["sixteenth0", "last"]
    with space.using(found):
        alone = Synthesis(space, TINY)
    load(alone, trained)
    assert CostModel(BITOPS, alone, inputs()).decided() == cost.of(found)
    everything = uniform(model, space, "mixing5", 8)
    assert cost.of(found) <= cost.of(everything)
