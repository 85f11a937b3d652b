"""Muon's steps."""

import pytest

torch = pytest.importorskip("torch")

from codec.training.optim import Muon, orthogonalize  # noqa: E402


def test_muon_steps_are_orthogonal() -> None:
    m = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalize(m))
    assert (singular > 0.8).all() and (singular < 1.2).all()
    for size, moved in (
        (1.0, 0.2),
        (0.3, 0.06),
        (0.0, 0.02),
    ):  # at most as far as AdamW's; less where weights are small
        p = torch.nn.Parameter(torch.full((20, 50), size * 50**-0.5))
        before = p.detach().clone()
        p.grad = m[0].clone()
        Muon([p], lr=1.0).step()
        assert (p.detach() - before).square().mean().sqrt() == pytest.approx(moved, rel=0.1)


def test_a_kernel_is_a_matrix_with_a_row_for_an_output() -> None:
    m = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    gradient = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    flat, kernel = torch.nn.Parameter(m.clone()), torch.nn.Parameter(m.clone().view(20, 2, 5, 5))
    flat.grad, kernel.grad = gradient.clone(), gradient.clone().view(20, 2, 5, 5)
    Muon([flat, kernel], lr=0.1).step()
    assert not torch.equal(flat, m)
    assert torch.allclose(kernel.flatten(1), flat, atol=1e-6)
