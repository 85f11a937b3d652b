"""The default runtime: numpy and the compiled loops of cpp_ext. Nothing to open, nothing to optimize: a process that
codes one picture spends its time on the picture."""

from __future__ import annotations

import numpy as np

from codec.bundle import Bundle
from codec.errors import BadInput
from codec.ops.native import NativeOps, real
from codec.runtime import cores
from codec.runtime.walk import Floats, Walk
from cpp_ext import _layers


class NativeRuntime(Walk):
    def __init__(self, bundle: Bundle, threads: int | None = None):
        """Raises BadInput if the variable MLIC_CPU names an instruction set that is not there."""
        super().__init__(bundle, threads)
        try:
            _layers.isa()
        except ValueError as error:
            raise BadInput(f"{error}: unset it or name another") from error
        threads = threads or cores()
        self.entropy = NativeOps(real(bundle.part("integer")), True, threads)
        self.transforms = NativeOps(bundle.part("float"), False, threads)

    def enter(self, x: Floats, unit: int) -> Floats:
        inner = np.ascontiguousarray(x[0].transpose(1, 2, 0))
        return inner if unit == 1 else inner / np.float32(unit)

    def leave(self, x: Floats, unit: int) -> Floats:
        return np.ascontiguousarray((x if unit == 1 else x * np.float32(unit)).transpose(2, 0, 1))[None]
