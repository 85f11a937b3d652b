"""Functions as operators of torch, which torch.compile goes around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the operator narrowbit::NAME, for any device; torch.library.register_fake gives it a fake.

    It has no gradient of its own: an autograd.Function is around it. Without them a call costs 16 us, one of
    torch.library.custom_op, which looks for gradients, 69.
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"narrowbit::{name}"
        torch.library.define(qualified, torch.library.infer_schema(function, mutates_args=()), tags=TAGS)
        torch.library.impl(qualified, "default", function)
        return getattr(torch.ops.narrowbit, name).default

    return register
