"""Ways to run one graph: ONNX Runtime and torch, on the CPU and on a GPU; what is not there says how to get it.

A way is opened to a call without arguments that computes once; bench.devices times several in turn. Its memory is that
of a fresh process, which is this file:

    python -m rate.devices WAY.pickle THREADS
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]
STATUS = Path("/proc/self/status")


class Absent(Exception):
    """A device or a tool that is not here: what is missing, and how to get it."""


def needed(module: str, how: str) -> Any:
    """A module, or Absent with the way to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{module} is not installed: {how}") from error


class Way(Protocol):
    """modules: what it imports, before anything of the graph is there. Pickled, it can be opened in another process."""

    @property
    def modules(self) -> tuple[str, ...]: ...

    def open(self, threads: int) -> Call: ...


@dataclass(frozen=True)
class OnnxRuntime:
    """Graphs in files, that run one after the other; feeds: of each, its inputs by name.

    provider: CPUExecutionProvider or CUDAExecutionProvider; on a GPU inputs and outputs are copied in each call.
    Optimized as ONNX Runtime does by itself; threads do not spin between calls, which would disturb other ways.
    """

    files: Sequence[Path]
    feeds: Sequence[Mapping[str, NDArray[Any]]]
    provider: str = "CPUExecutionProvider"
    modules: tuple[str, ...] = ("onnxruntime",)

    def open(self, threads: int) -> Call:
        """Raises Absent without ONNX Runtime or the provider, ValueError for a graph that it cannot run."""
        ort = needed("onnxruntime", "pip install onnxruntime")
        if self.provider not in ort.get_available_providers():
            raise Absent(f"ONNX Runtime is built without {self.provider}: pip install onnxruntime-gpu")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            sessions = [ort.InferenceSession(str(f), options, providers=[self.provider]) for f in self.files]
            work = list(zip(sessions, map(dict, self.feeds), strict=True))
            for session, feed in work:
                session.run(None, feed)
        except Exception as error:  # its exceptions have no class of their own to name
            raise ValueError(f"ONNX Runtime cannot run the graph: {str(error).splitlines()[0]}") from error
        if self.provider not in sessions[0].get_providers():  # it falls back to the CPU with a warning
            raise Absent(f"ONNX Runtime has {self.provider} but no device for it: a GPU and its driver are needed")
        return lambda: [session.run(None, feed) for session, feed in work]


@dataclass(frozen=True)
class Torch:
    """f(*inputs) -> tensors, without gradients; f and inputs are on the device where they run."""

    f: Callable[..., Any]
    inputs: Sequence[Any]
    modules: tuple[str, ...] = ("torch",)

    def open(self, threads: int) -> Call:
        """Raises Absent without torch."""
        torch = needed("torch", "pip install torch")

        def call() -> Any:
            kept = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                with torch.inference_mode():
                    return self.f(*self.inputs)
            finally:
                torch.set_num_threads(kept)

        return call


def cuda() -> Any:
    """torch, ready to measure on a GPU: float32 products are of float32, convolutions by the fastest algorithm.

    Raises Absent where there is none.
    """
    torch = needed("torch", "pip install torch")
    if torch.version.cuda is None:
        raise Absent(f"torch {torch.__version__} is built without CUDA: install a build with it, where there is a GPU")
    if not torch.cuda.is_available():
        raise Absent("torch finds no CUDA device: run this on a machine with an NVIDIA GPU and its driver")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return torch


def cuda_seconds(call: Call, runs: int, warm: int = 5) -> list[float]:
    """Of each of so many runs, between two events of the GPU; those before them warm it up. Raises Absent."""
    torch = cuda()
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return seconds


# -- memory ---------------------------------------------------------------------------------------------------------
def peak_bytes(way: Way, threads: int) -> int:
    """What opening a way and two calls need at most, over what a fresh process had when its modules were imported: the
    graph, its inputs and outputs, and all between.

    Raises Absent where the system does not tell (it is Linux that does), ValueError where the process fails.
    """
    if not STATUS.is_file():
        raise Absent(f"this system has no {STATUS}: run this on Linux")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "way.pickle"
        file.write_bytes(pickle.dumps((way.modules, pickle.dumps(way))))
        line = [sys.executable, "-m", "rate.devices", str(file), str(threads)]
        where = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        done = subprocess.run(line, capture_output=True, text=True, env=where)
    if done.returncode:
        raise ValueError(f"measuring memory failed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    return int(done.stdout.split()[-1])


def _status(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"^{name}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if not found:
        raise Absent(f"{STATUS} has no {name}")
    return 1024 * int(found[1])


def main(arguments: Sequence[str]) -> int:
    """Print the bytes. The file is one that peak_bytes wrote: a pickle of anything else may run anything."""
    modules, way = pickle.loads(Path(arguments[0]).read_bytes())
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    # The peak starts anew after the imports'; where that is not allowed, theirs may hide what a small graph takes.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call = pickle.loads(way).open(int(arguments[1]))
    for _ in range(2):
        call()
    print(max(_status("VmHWM") - before, 0))
    return 0


def arrays(outputs: Any) -> list[NDArray[Any]]:
    """All numbers that a call gave, whatever it put them into."""
    if isinstance(outputs, list | tuple):
        return [a for o in outputs for a in arrays(o)]
    return [outputs.detach().cpu().numpy() if hasattr(outputs, "detach") else np.asarray(outputs)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
