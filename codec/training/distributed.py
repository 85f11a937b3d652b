"""Several processes that train one network: torchrun's, on GPUs or on the cores of a machine.

Every process draws the same joint batch and takes its crops of it; one sum over all gradients a step keeps the weights
the same everywhere. What only one process can know, the clock and a request to stop, travels with them.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: str) -> str:
    """Join the other processes if torchrun started this one; returns the device of this process."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return device
    gpu = torch.device(device).type == "cuda"
    dist.init_process_group("nccl" if gpu else "gloo")
    if gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return device


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def total(tensors: list[Tensor]) -> list[Tensor]:
    """The sums of these tensors over all processes."""
    if not dist.is_initialized():
        return tensors
    flat = torch.cat([t.reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    return [part.view(t.shape) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)]


def agree(seconds: float, stop: bool) -> tuple[float, bool]:
    """The first process's seconds, and whether any process wants to stop."""
    if not dist.is_initialized():
        return seconds, stop
    values = torch.tensor([seconds if rank() == 0 else 0.0, float(stop)], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        values = values.cuda()
    dist.all_reduce(values)
    return float(values[0]), bool(values[1])
