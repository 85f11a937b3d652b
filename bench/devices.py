"""Suite `devices`: what a network costs, and where.

    python -m bench devices mlicv2-s --json FILE
    python -m bench devices net.onnx --shape 1,3,32,32 --json FILE
    python -m bench devices QUANT_RUN/seed-0 NAS_NET/seed-0 --json FILE

One graph of each, exported by us or not, is counted (MACs, bit operations, bits of weights and activations), held
against QONNX's own report, and run by ONNX Runtime and torch on the CPU and on a GPU. What is not here is a row without
a value, whose note says how to get it. docs/devices.md says what each row means.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rate.devices import Absent, OnnxRuntime, Way, arrays, cuda, cuda_seconds, peak_bytes
from rate.graph import Counted, count, summed
from rate.inference_cost import differences
from rate.inference_cost import report as report_of_qonnx

from .report import Row, report, row
from .subjects import Subject, find
from .timing import in_turn

MIB = 1 << 20
LIBRARIES = ("onnxruntime", "torch", "qonnx")


class Noted(Row, total=False):
    """A row with a word on its value, or on why there is none."""

    note: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument(
        "what", nargs="+", metavar="GRAPH.onnx|MODEL|FOLDER", help="a file, a codec's model, a trained network's folder"
    )
    parser.add_argument("--size", default="768x512", metavar="WxH", help="of the picture of a codec or of SR [768x512]")
    parser.add_argument(
        "--shape", action="append", default=[], metavar="[NAME=]N,C,H,W", help="of an input that GRAPH.onnx leaves free"
    )
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="counted runs of each, in turn [15]")
    parser.add_argument("--threads", default="1,2", metavar="N,N", help="of the CPU [1,2]")


def numbers(text: str, separator: str, what: str) -> tuple[int, ...]:
    """Positive ones. Raises ValueError."""
    parts = text.split(separator)
    if not all(re.fullmatch("[1-9][0-9]{0,8}", p) for p in parts):
        raise ValueError(f"{what} takes positive numbers with {separator} between them, not {text}")
    return tuple(map(int, parts))


def shapes_of(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Of --shape; the name is "" where none is given."""
    pairs = [text.rpartition("=") for text in given]
    return {name: numbers(sizes, ",", "--shape") for name, _, sizes in pairs}


def figures(name: str, counted: Counted) -> list[Row]:
    """What is counted from the graph alone."""
    rows = [
        row(f"{name}/macs", counted.macs, "MACs", 0),
        row(f"{name}/bitops", counted.bitops, "bit operations", 0),
        row(f"{name}/weights", counted.weights, "numbers", 0),
        row(f"{name}/weight-bits", counted.weight_bits, "bits", 0),
        row(f"{name}/activation-bits", counted.activation_bits, "bits", 0),
    ]
    if counted.entropy_bits is not None:
        rows.append(row(f"{name}/weight-entropy-bits", counted.entropy_bits, "bits", 0))
    return rows


def beside_qonnx(name: str, subject: Subject, parts: Sequence[Counted]) -> list[Row]:
    """QONNX's report, and the number of layers where it says something else."""
    quantized = any(node.op_type == "Quant" for model in subject.counted for node in model.graph.node)
    try:
        found = [report_of_qonnx(model) for model in subject.counted]
    except ImportError:
        return [absent(f"{name}/qonnx/macs", "MACs", "qonnx is not installed: pip install qonnx")]
    except ValueError as error:
        hint = "" if quantized else "; its own form has nodes Quant, and --qonnx of an export writes it"
        return [absent(f"{name}/qonnx/macs", "MACs", f"{error}{hint}")]
    lines = [line for part, r in zip(parts, found, strict=True) for line in differences(part, r)]
    differ: Noted = {**row(f"{name}/qonnx/differ", len(lines), "layers", 0)}
    if lines:
        why = [] if quantized else ["no node is a Quant, which QONNX has its widths from"]
        differ["note"] = "; ".join([*why, *lines[:2], *([f"and {len(lines) - 2} more"] if len(lines) > 2 else [])])
    return [
        row(f"{name}/qonnx/macs", sum(r.macs for r in found), "MACs", 0),
        row(f"{name}/qonnx/bitops", sum(r.bitops for r in found), "bit operations", 0),
        row(f"{name}/qonnx/weight-bits", sum(r.weight_bits for r in found), "bits", 0),
        differ,
    ]


def absent(name: str, unit: str, why: str) -> Noted:
    """A row without a value."""
    return {"name": name, "value": None, "unit": unit, "note": why}


def latency(name: str, seconds: Sequence[float], pixels: int) -> list[Row]:
    """Median and least; pictures also their speed by the median."""
    middle = statistics.median(seconds)
    rows = [row(f"{name}/median", 1e3 * middle, "ms", 3), row(f"{name}/least", 1e3 * min(seconds), "ms", 3)]
    return [*rows, row(f"{name}/speed", pixels / middle / 1e6, "MP/s", 3)] if pixels else rows


def on_cpu(name: str, ways: dict[str, Callable[[], Way]], pixels: int, threads: Sequence[int], runs: int) -> list[Row]:
    """All ways with all numbers of threads, in turn, then the memory of each."""
    rows: list[Row] = []
    made: dict[str, tuple[Way, int]] = {}
    calls: dict[str, Callable[[], Any]] = {}
    answers: list[list[NDArray[Any]]] = []
    for label, make in ways.items():
        try:
            way = make()
            opened = {f"{name}/cpu/{label}/{n}": way.open(n) for n in threads}
        except (Absent, ValueError) as why:
            rows.append(absent(f"{name}/cpu/{label}", "ms", str(why)))
            continue
        calls |= opened
        made |= {at: (way, n) for at, n in zip(opened, threads, strict=True)}
        answers.append(arrays(next(iter(opened.values()))()))
    for at, seconds in in_turn(calls, runs).items():
        rows += latency(at, seconds, pixels)
    if len(answers) == 2 and [a.shape for a in answers[0]] == [a.shape for a in answers[1]]:  # the codec's are not
        off = max(float(abs(a - b).max() / (b.std() or 1)) for a, b in zip(*answers, strict=True))
        rows.append(row(f"{name}/cpu/onnxruntime/vs-torch", off, "deviations", 6))
    for at, (way, n) in made.items():
        try:
            rows.append(row(f"{at}/peak", peak_bytes(way, n) / MIB, "MiB", 1))
        except (Absent, ValueError) as why:
            rows.append(absent(f"{at}/peak", "MiB", str(why)))
    return rows


def on_gpu(name: str, subject: Subject, on_cuda: Callable[[], Way], runs: int) -> list[Row]:
    """torch between events and what it allocates, ONNX Runtime with its copies."""
    rows: list[Row] = []
    try:
        torch = cuda()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call = subject.torch("cuda").open(torch.get_num_threads())
        rows += latency(f"{name}/cuda/torch", cuda_seconds(call, runs), subject.pixels)
        most = (torch.cuda.max_memory_allocated() - before) / MIB
        rows.append(row(f"{name}/cuda/torch/peak", most, "MiB", 1))
    except Absent as why:
        rows.append(absent(f"{name}/cuda/torch", "ms", str(why)))
    try:
        seconds = in_turn({"": on_cuda().open(1)}, runs, warm=5)[""]
        rows += latency(f"{name}/cuda/onnxruntime", seconds, subject.pixels)
    except (Absent, ValueError) as why:
        rows.append(absent(f"{name}/cuda/onnxruntime", "ms", str(why)))
    return rows


def measure(subject: Subject, parts: Sequence[Counted], threads: Sequence[int], runs: int) -> list[Row]:
    """All rows of one graph that was counted."""
    import onnx

    name = f"devices/{subject.name}"
    rows = [*figures(name, summed(parts)), *beside_qonnx(name, subject, parts)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.onnx" for i in range(len(subject.graphs))]
        for model, file in zip(subject.graphs, files, strict=True):
            onnx.save(model, file)

        def by_onnxruntime(provider: str = "CPUExecutionProvider") -> Way:
            if any(node.op_type == "Quant" for model in subject.graphs for node in model.graph.node):
                raise Absent("ONNX Runtime has no operator Quant: give the network's QCDQ form, --out of its export")
            return OnnxRuntime(files, subject.feeds, provider)

        ways: dict[str, Callable[[], Way]] = {"onnxruntime": by_onnxruntime, "torch": lambda: subject.torch("cpu")}
        rows += on_cpu(name, ways, subject.pixels, threads, runs)
        rows += on_gpu(name, subject, lambda: by_onnxruntime("CUDAExecutionProvider"), runs)
    return rows


def show(rows: Sequence[Row]) -> None:
    """On the terminal."""
    for r in rows:
        value, note = r["value"], r.get("note", "")
        shown = "-" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"
        print(f"{r['name'].removeprefix('devices/'):54} {shown:>19} {r['unit']:16}{note}".rstrip(), flush=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Count, time, and give the report. Raises rate.graph.Uncounted, ValueError, OSError, CodecError."""
    size, threads = numbers(args.size, "x", "--size"), numbers(args.threads, ",", "--threads")
    if len(size) != 2 or args.runs < 1:
        raise ValueError("--size is a width and a height, and --runs at least 1")
    # OpenMP reads this when torch is first imported. Its threads would spin at every barrier, and where others work
    # on the machine a call with two took ten times as long as with one; ONNX Runtime's do not spin either.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    shapes, found = shapes_of(args.shape), list[Subject]()
    for what in args.what:
        for subject in find(what, (size[0], size[1]), shapes):
            twins = sum(s.name.partition("#")[0] == subject.name for s in found)
            found.append(replace(subject, name=f"{subject.name}#{twins + 1}") if twins else subject)
    counted = [[count(model, s.numbers) for model in s.counted] for s in found]  # errors come before minutes of timing
    rows: list[Row] = []
    for subject, parts in zip(found, counted, strict=True):
        made = measure(subject, parts, threads, args.runs)
        show(made)
        rows += made
    return report("devices", rows, size=args.size, runs=args.runs, libraries={n: version(n) for n in LIBRARIES})


def version(library: str) -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
