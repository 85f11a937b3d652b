"""The torch runtime: the training operations on a bundle's numbers, exact on the entropy path, on CPU or GPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec import modes, network
from codec.bundle import Bundle
from codec.models.ops import Arithmetic, TorchOps
from codec.modes import UNIT
from codec.network import NARROW

Floats = NDArray[np.float32]


class BundleOps(TorchOps):
    """TorchOps whose per-QP vectors come from a bundle's tables instead of learned levels. qp: 0..63."""

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


def _values(arrays: dict[str, NDArray]) -> dict[str, Tensor]:
    """Arrays of the integer part as real numbers: integers times their power of two, exact in float32."""
    found = {}
    for name, a in arrays.items():
        if name.startswith("tables/") or name.endswith("/exponent"):
            continue
        layer, _, kind = name.rpartition("/")
        value = torch.from_numpy(a.astype(np.float64))
        if kind in ("weight", "bias"):
            scale = torch.exp2(torch.from_numpy(arrays[f"{layer}/exponent"].astype(np.float64)))
            value = value / (scale[:, None] if kind == "weight" else scale * 2 ** NARROW[0])
        elif f"{name}/exponent" in arrays:
            value = value * np.exp2(-arrays[f"{name}/exponent"].astype(np.float64))
        elif name in ("y/index", "h_s/offset"):
            value = value / 16
        found[name] = value if name == "exp" else value.float()
    return found


def _in(x: Floats, unit: float, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).to(device) / unit


def _out(x: Tensor, unit: float) -> Floats:
    result: Floats = (x * unit).permute(0, 3, 1, 2).float().cpu().numpy()
    return result


class TorchRuntime:
    """device: "cpu", "cuda" or None for a GPU where there is one."""

    def __init__(self, bundle: Bundle, threads: int | None = None, device: str | None = None):
        if threads:
            torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 must be float32
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.bundle, self.cfg = bundle, bundle.config
        self.slices = len(self.cfg.slices)
        integers = {n: t.to(self.device) for n, t in _values(bundle.part("integer")).items()}
        floats = {n: torch.from_numpy(a).float().to(self.device) for n, a in bundle.part("float").items()}
        self.entropy = BundleOps(integers.__getitem__, Arithmetic.EXACT)
        self.transforms = BundleOps(floats.__getitem__, Arithmetic.FLOAT)

    def prepare(self, transform: str) -> None:
        """Nothing to open."""

    @torch.no_grad()
    def analyse(self, x: Floats, qp: int) -> tuple[Floats, Floats]:
        signal = network.g_a(self.transforms, self.cfg, _in(x, 1, self.device), qp)
        y = signal * self.transforms.vector("y/gain", qp)
        return _out(y, 1), _out(network.h_a(self.transforms, self.cfg, signal, qp), 1)

    @torch.no_grad()
    def synthesise(self, y_hat: Floats, psi: Floats, qp: int) -> Floats:
        latents = _in(y_hat, UNIT, self.device), _in(psi, 1 << NARROW[0], self.device)
        return _out(network.g_s(self.transforms, self.cfg, *latents, qp), 1)

    def z_parameters(self, qp: int) -> tuple[Floats, Floats]:
        mean, index = (self.bundle.arrays[f"integer/z/{n}"][qp] for n in ("mean", "index"))
        return mean.astype(np.float32)[None, :, None, None], index.astype(np.float32)[None, :, None, None]

    @torch.no_grad()
    def hyper(self, z_hat: Floats, qp: int) -> Floats:
        return _out(network.h_s(self.entropy, self.cfg, _in(z_hat, UNIT, self.device), qp), 1 << NARROW[0])

    @torch.no_grad()
    def anchors(self, i: int, psi: Floats, before: Floats | None, qp: int) -> tuple[Floats, ...]:
        seen = None if before is None else _in(before, UNIT, self.device)
        t, inter, mean, index = network.anchors(
            self.entropy, self.cfg, i, _in(psi, 1 << NARROW[0], self.device), seen, qp
        )
        return _out(t, 1 << NARROW[0]), _out(inter, 1 << NARROW[0]), _out(mean, UNIT), _out(index, 1)

    @torch.no_grad()
    def others(self, i: int, t: Floats, inter: Floats, anchor: Floats, qp: int) -> tuple[Floats, ...]:
        trunk, context = (_in(x, 1 << NARROW[0], self.device) for x in (t, inter))
        mean, index = network.others(self.entropy, self.cfg, i, trunk, context, _in(anchor, UNIT, self.device), qp)
        return _out(mean, UNIT), _out(index, 1)

    def place(self, anchors: Floats, others: Floats | None) -> Floats:
        return modes.place(anchors, others)

    def join(self, slices: list[Floats]) -> Floats | None:
        return np.concatenate(slices, 1) if slices else None
