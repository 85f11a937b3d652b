"""ONNX Runtime on the CPU: the graphs that a bundle carries for whoever has no cpp_ext."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from codec import modes
from codec.bundle import Bundle
from codec.errors import CodecError, UnknownModel
from codec.network import NARROW

Floats = NDArray[np.float32]


class OnnxRuntime:
    def __init__(self, bundle: Bundle, threads: int | None = None):
        self.bundle, self.threads = bundle, threads
        self.slices = len(bundle.config.slices)
        self.sessions: dict[str, Future[ort.InferenceSession]] = {}
        self.opener = ThreadPoolExecutor(1)

    def prepare(self, transform: str) -> None:
        """Open the graphs of an encoding ("analysis") or decoding ("synthesis") in the order they are needed, on
        another thread: it takes as long as running them on a small picture."""
        slices = [f"{half}{i}" for i in range(self.slices) for half in ("anchors", "others")]
        latents = ["hyper", *slices]
        for graph in [transform, *latents] if transform == "analysis" else [*latents, transform]:
            if graph not in self.sessions:
                self.sessions[graph] = self.opener.submit(self.open, graph)

    # -- graphs -----------------------------------------------------------------------------------------------------
    def initializer(self, name: str) -> NDArray:
        """An array of a graph, as codec.ops.onnx names and shapes it, from the bundle's."""
        arrays = self.bundle.arrays
        base, _, fraction = name.partition("@")
        if fraction:  # a layer of the entropy path whose result has so many fractional bits
            layer, _, kind = base.rpartition("/")
            scale = np.exp2(int(fraction) - NARROW[0] - arrays[f"integer/{layer}/exponent"].astype(np.float32))
            if kind == "bias":
                b = arrays.get(f"integer/{base}", np.zeros(len(scale), np.int32))
                return b.astype(np.float32) * scale + np.float32(0.5)
            w = arrays[f"integer/{base}"].astype(np.float32) * scale[:, None]
            return w.reshape(len(w), 1, 5, 5) if layer.endswith("/mix") else w[:, :, None, None]
        if name == "exp":
            return arrays["integer/exp"].astype(np.float64)
        if f"integer/{name}" in arrays:
            table = arrays[f"integer/{name}"].astype(np.float32)
            if f"integer/{name}/exponent" in arrays:
                table *= np.exp2(-arrays[f"integer/{name}/exponent"].astype(np.float32))
            return table[:, :, None, None]
        a = arrays[f"float/{name}"].astype(np.float32)
        if name.endswith("/mix/weight"):
            return a.reshape(len(a), 1, 5, 5)
        if name == "y/deviation":
            return a[:, None, None]
        return a if a.ndim == 1 else a[:, :, None, None]

    def open(self, graph: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The graphs run in turn, each with threads of its own: those of the others must not spin meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Optimizing takes longer than it saves on a picture (decode 0.85 against 0.93 s, medians, whole process), and
        # no release of the optimizer can then change a pixel.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.threads:
            options.intra_op_num_threads = self.threads
        try:
            names = self.bundle.metadata[f"arrays/{graph}"].split()
            values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(self.initializer(n))) for n in names]
            if names:
                options.add_external_initializers(names, values)
            model = self.bundle.arrays[f"graph/{graph}"].tobytes()
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except CodecError:
            raise
        except Exception as error:  # no id covers the graphs, nor the names of what they need
            raise UnknownModel(f"{self.bundle.path} is damaged: its graph of {graph} cannot be used") from error

    def session(self, graph: str) -> ort.InferenceSession:
        if graph not in self.sessions:
            self.sessions[graph] = self.opener.submit(self.open, graph)
        return self.sessions[graph].result()

    def run(self, graph: str, **inputs: Any) -> list[Floats]:
        session = self.session(graph)
        wanted = {i.name for i in session.get_inputs()}
        feeds = {n: np.asarray(v, np.int64 if n == "qp" else np.float32) for n, v in inputs.items() if n in wanted}
        result: list[Floats] = session.run(None, feeds)
        return result

    # -- transforms -------------------------------------------------------------------------------------------------
    def analyse(self, x: Floats, qp: int) -> tuple[Floats, Floats]:
        """Picture -> y, z."""
        y, z = self.run("analysis", x=x, qp=qp)
        return y, z

    def synthesise(self, y_hat: Floats, psi: Floats, qp: int) -> Floats:
        return self.run("synthesis", y_hat=y_hat, psi=psi, qp=qp)[0]

    # -- codec.coding.Network ---------------------------------------------------------------------------------------
    def z_parameters(self, qp: int) -> tuple[Floats, Floats]:
        mean, index = (self.bundle.arrays[f"integer/z/{n}"][qp] for n in ("mean", "index"))
        return mean.astype(np.float32)[None, :, None, None], index.astype(np.float32)[None, :, None, None]

    def hyper(self, z_hat: Floats, qp: int) -> Floats:
        return self.run("hyper", z_hat=z_hat, qp=qp)[0]

    def anchors(self, i: int, psi: Floats, before: Floats | None, qp: int) -> tuple[Floats, Floats, Floats, Floats]:
        t, inter, mean, index = self.run(
            f"anchors{i}", psi=psi, qp=qp, **({} if before is None else {"before": before})
        )
        return t, inter, mean, index

    def others(self, i: int, t: Floats, inter: Floats, anchor: Floats, qp: int) -> tuple[Floats, Floats]:
        mean, index = self.run(f"others{i}", t=t, inter=inter, anchor=anchor, qp=qp)
        return mean, index

    def place(self, coded: Floats, known: Floats | None, *_: Any) -> Floats:
        return modes.place(coded, known)

    def join(self, slices: list[Floats]) -> Floats | None:
        return np.concatenate(slices, 1) if slices else None
