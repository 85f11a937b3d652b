"""The definition of the entropy path as a runtime: exact, slow, without transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec import modes, network
from codec.bundle import Bundle
from codec.ops.numpy import NumpyOps

Floats = NDArray[np.float32]


def _in(x: Floats) -> NDArray[np.int64]:
    return x[0].astype(np.int64)


def _out(*values: NDArray[np.int64]) -> tuple[Floats, ...]:
    return tuple(v[None].astype(np.float32) for v in values)


class NumpyRuntime:
    def __init__(self, bundle: Bundle):
        self.bundle, self.cfg = bundle, bundle.config
        self.slices = len(self.cfg.slices)
        self.ops = NumpyOps(bundle.part("integer"))

    def z_parameters(self, qp: int) -> tuple[Floats, ...]:
        return _out(self.ops.column("z/mean", qp), self.ops.column("z/index", qp))

    def hyper(self, z_hat: Floats, qp: int) -> Floats:
        return _out(network.h_s(self.ops, self.cfg, _in(z_hat), qp))[0]

    def anchors(self, i: int, psi: Floats, before: Floats | None, qp: int) -> tuple[Floats, ...]:
        seen = None if before is None else _in(before)
        return _out(*network.anchors(self.ops, self.cfg, i, _in(psi), seen, qp))

    def others(self, i: int, t: Floats, inter: Floats, anchor: Floats, qp: int) -> tuple[Floats, ...]:
        return _out(*network.others(self.ops, self.cfg, i, _in(t), _in(inter), _in(anchor), qp))

    def place(self, coded: Floats, known: Floats | None, *_: Any) -> Floats:
        return modes.place(coded, known)

    def join(self, slices: list[Floats]) -> Floats | None:
        return np.concatenate(slices, 1) if slices else None
