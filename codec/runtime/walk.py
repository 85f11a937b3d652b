"""What a runtime has to do that executes codec.network itself: convert arrays at the border, and walk its functions."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec import modes, network
from codec.bundle import Bundle
from codec.modes import UNIT
from codec.network import NARROW

Floats = NDArray[np.float32]
PSI = 1 << NARROW[0]  # units of narrow values


class Walk:
    """entropy, transforms: executors of the bundle's integer and float part, on arrays that `enter` makes and `leave`
    takes: (1, channels, height, width) in units outside, the executor's layout of real numbers inside."""

    entropy: Any
    transforms: Any

    def __init__(self, bundle: Bundle, threads: int | None = None):
        self.bundle, self.cfg, self.threads = bundle, bundle.config, threads
        self.slices = len(self.cfg.slices)

    def enter(self, x: Floats, unit: int) -> Any:
        raise NotImplementedError

    def leave(self, x: Any, unit: int) -> Floats:
        raise NotImplementedError

    def prepare(self, transform: str) -> None:
        """Nothing to open."""

    def analyse(self, x: Floats, qp: int) -> tuple[Floats, Floats]:
        """Picture -> y, z."""
        signal = network.g_a(self.transforms, self.cfg, self.enter(x, 1), qp)
        y = signal * self.transforms.vector("y/gain", qp)
        return self.leave(y, 1), self.leave(network.h_a(self.transforms, self.cfg, signal, qp), 1)

    @cached_property
    def drawer(self) -> Any:
        """Of a bundle whose synthesis is another network than codec.network's: what runs its graph."""
        from codec.runtime.onnx import OnnxRuntime

        return OnnxRuntime(self.bundle, self.threads)

    def synthesise(self, y_hat: Floats, psi: Floats, qp: int) -> Floats:
        if self.bundle.synthesis_is_a_graph:
            drawn: Floats = self.drawer.synthesise(y_hat, psi, qp)
            return drawn
        x = network.g_s(self.transforms, self.cfg, self.enter(y_hat, UNIT), self.enter(psi, PSI), qp)
        return self.leave(x, 1)

    # -- codec.coding.Network ---------------------------------------------------------------------------------------
    def z_parameters(self, qp: int) -> tuple[Floats, Floats]:
        mean, index = (self.bundle.arrays[f"integer/z/{n}"][qp] for n in ("mean", "index"))
        return mean.astype(np.float32)[None, :, None, None], index.astype(np.float32)[None, :, None, None]

    def hyper(self, z_hat: Floats, qp: int) -> Floats:
        return self.leave(network.h_s(self.entropy, self.cfg, self.enter(z_hat, UNIT), qp), PSI)

    def anchors(self, i: int, psi: Floats, before: Floats | None, qp: int) -> tuple[Floats, Floats, Floats, Floats]:
        seen = None if before is None else self.enter(before, UNIT)
        t, inter, mean, index = network.anchors(self.entropy, self.cfg, i, self.enter(psi, PSI), seen, qp)
        return self.leave(t, PSI), self.leave(inter, PSI), self.leave(mean, UNIT), self.leave(index, 1)

    def others(self, i: int, t: Floats, inter: Floats, anchor: Floats, qp: int) -> tuple[Floats, Floats]:
        trunk, context = self.enter(t, PSI), self.enter(inter, PSI)
        mean, index = network.others(self.entropy, self.cfg, i, trunk, context, self.enter(anchor, UNIT), qp)
        return self.leave(mean, UNIT), self.leave(index, 1)

    def place(self, coded: Floats, known: Floats | None, *_: Any) -> Floats:
        return modes.place(coded, known)

    def join(self, slices: list[Floats]) -> Floats | None:
        return np.concatenate(slices, 1) if slices else None
