"""The torch runtime: the training operations on a bundle's numbers, exact on the entropy path, on CPU or GPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec import network
from codec.bundle import Bundle
from codec.models.ops import Arithmetic, TorchOps
from codec.ops.native import real
from codec.runtime.walk import Floats, Walk


class BundleOps(TorchOps):
    """TorchOps whose per-QP vectors come from a bundle's tables instead of learned levels. qp: 0..63."""

    def by_loops(self, x: Tensor) -> bool:
        return False

    def vector(self, name: str, qp: int, lo: int = 0, hi: int | None = None) -> Tensor:
        return self.p(name)[qp, lo:hi]

    def weights(self, name: str, bias: bool) -> tuple[Tensor, Tensor | None]:
        return self.p(f"{name}/weight"), self.p(f"{name}/bias") if bias else None

    def scale(self, x: Tensor, name: str, qp: int) -> Tensor:
        return x * self.vector(name, qp)

    def from_steps(self, y_hat: Tensor, name: str, qp: int) -> Tensor:
        return self.scale(y_hat, name, qp)

    def offset(self, x: Tensor, name: str, qp: int) -> Tensor:
        return x + self.vector(name, qp)

    def to_steps(self, mean: Tensor, name: str, qp: int, lo: int, hi: int) -> Tensor:
        return self.fix(mean * self.vector(name, qp, lo, hi), network.STEP)

    def to_signal(self, y_hat: Tensor, name: str, qp: int, lo: int, hi: int) -> Tensor:
        return self.narrow(y_hat * self.vector(name, qp, lo, hi))

    def index_offset(self, name: str, qp: int, lo: int, hi: int) -> Tensor:
        return self.vector(name, qp, lo, hi)


class TorchRuntime(Walk):
    """device: "cpu", "cuda" or None for a GPU where there is one."""

    def __init__(self, bundle: Bundle, threads: int | None = None, device: str | None = None):
        super().__init__(bundle, threads)
        if threads:
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 must be float32
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        floats = {n: a.astype(np.float32) for n, a in bundle.part("float").items()}
        self.entropy = BundleOps(self.load(real(bundle.part("integer"))).__getitem__, Arithmetic.EXACT)
        self.transforms = BundleOps(self.load(floats).__getitem__, Arithmetic.FLOAT)

    def load(self, arrays: dict[str, NDArray]) -> dict[str, Tensor]:
        return {n: torch.from_numpy(a).to(self.device) for n, a in arrays.items()}

    def enter(self, x: Floats, unit: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).to(self.device) / unit

    def leave(self, x: Tensor, unit: int) -> Floats:
        result: Floats = (x * unit).permute(0, 3, 1, 2).float().cpu().numpy()
        return result
