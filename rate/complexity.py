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
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() // 2
