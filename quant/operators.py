"""Functions as operators of torch, which torch.compile goes around."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the operator narrowbit::NAME, for any device; torch.library.register_fake gives it a fake.

    It has no gradient of its own: an autograd.Function is around it. What is returned calls the function itself, and
    the operator where torch traces: its dispatcher takes 7 us, torch.library.custom_op, which looks for gradients, 60.
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"narrowbit::{name}"
        torch.library.define(qualified, torch.library.infer_schema(function, mutates_args=()), tags=TAGS)
        torch.library.impl(qualified, "default", function)
        traced = getattr(torch.ops.narrowbit, name).default

        @wraps(function)
        def call(*arguments: Any) -> Any:
            tracing = torch.compiler.is_compiling() or is_in_torch_dispatch_mode()
            return traced(*arguments) if tracing else function(*arguments)

        return call

    return register
