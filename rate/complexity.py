"""What a torch network costs to run and to store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameters(model: nn.Module) -> int:
    """Numbers in all its parameters."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one call: of convolutions and matrix products, attention included; nothing else counts.

    On the device "meta" nothing is computed. Source: torch.utils.flop_counter, which counts two operations for each.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def fused(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    # The counter knows attention in one operator by its names on other devices only, and nothing of torch's fast path.
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=known) as counter, torch.no_grad():
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2
