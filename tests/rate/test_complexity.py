"""Multiplications of a torch network."""

import pytest

import rate


def test_fused_attention_counts_on_the_cpu_as_on_meta() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.zeros(3, 10, 16)
    found = rate.macs(layer, x, x, x)
    assert found == rate.macs(layer.to("meta"), *3 * [x.to("meta")])
    assert found == 3 * 10 * 16 * 16 * 4 + 2 * 3 * 10 * 10 * 16
