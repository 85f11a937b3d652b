"""Suite `coder`: symbols per second and bytes of entropy coders, all in one process.

    python -m bench coder --json FILE

Two sources: `codec-like`, log-normal deviations of median 0.35, about one bit a symbol; `uniform` over the 64 scales.
Timed by pytest-benchmark: CPU time of the one thread, best of five. Rows coder/WHO/SOURCE/encode and .../decode are
million symbols per second; coder/WHO/overhead/SOURCE percent over the ideal length under the true Gaussians;
coder/ours/ISA/pass/DIRECTION nanoseconds a call for the eleven passes of a 512x512 picture; coder/share/DIRECTION what
part of the time of encoding or decoding a 768x512 photograph goes to the coder. A library that is not installed is a
row without a value: pip install constriction torchac; pip install --no-deps compressai.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cpp_ext
from codec import tables
from rate import gaussian_bits

from .coders import CODERS, Coder, Indexes, Symbols
from .process import photograph
from .report import Row, report, row

SYMBOLS = 1 << 22
ROUNDS = 5


class Source(NamedTuple):
    symbols: Symbols
    indexes: Indexes


@functools.cache
def source(name: str) -> Source:
    rng = np.random.default_rng(5)
    scales = np.array([tables.scale(index) for index in range(tables.SCALES)])
    if name == "uniform":
        indexes = rng.integers(0, tables.SCALES, SYMBOLS)
    else:
        position = (np.log(0.35 / tables.SCALE_MIN) + rng.standard_normal(SYMBOLS)) / tables.INDEX_STEP
        indexes = np.clip(np.rint(position), 0, tables.SCALES - 1)
    indexes = indexes.astype(np.uint8)
    return Source(np.rint(rng.standard_normal(SYMBOLS) * scales[indexes]).astype(np.int16), indexes)


SOURCES = ("codec-like", "uniform")


@functools.cache
def part(name: str, size: int) -> Source:
    """The first symbols of a source, or all: the same arrays every time."""
    symbols, indexes = source(name)
    return Source(symbols[:size].copy(), indexes[:size].copy())


@functools.cache
def coder(name: str) -> Coder:
    """Raises ImportError where its library is missing."""
    return CODERS[name]()


def overhead(who: str, name: str) -> float:
    """Percent over the ideal length. Raises ValueError if the symbols do not come back."""
    made = coder(who)
    symbols, indexes = part(name, made.limit)
    payload = made.encode(symbols, indexes)
    decoded = np.concatenate([np.atleast_1d(a) for a in made.decode(payload, indexes)], axis=None)
    inside = np.abs(symbols) <= 256  # all that torchac was given room for
    if not np.array_equal(decoded[inside], symbols[inside]):
        raise ValueError(f"{who} does not give back what it was given")
    scales = np.array([tables.scale(index) for index in range(tables.SCALES)])
    return 100 * (made.size(payload) * 8 / gaussian_bits(symbols, 0.0, scales[indexes]).sum() - 1)


def small_passes() -> list[Source]:
    """What the coder gets for a 512x512 picture of mlicv2-s: z, then two passes for each of five slices of y."""
    from codec.config import CONFIGS

    config = CONFIGS["mlicv2-s"]
    sizes = [config.hyper * 8 * 8, *(c * 32 * 16 for c in config.slices for _ in range(2))]
    ends = np.cumsum(sizes)
    symbols, indexes = source("codec-like")
    return [Source(symbols[e - n : e], indexes[e - n : e]) for e, n in zip(ends, sizes, strict=True)]


def code_passes(isa: str, bank: cpp_ext.TableBank, passes: list[Source]) -> tuple[bytes, int]:
    lanes = cpp_ext.choose_lanes(sum(len(p.symbols) for p in passes))
    encoder = cpp_ext.Encoder(bank, lanes, isa)
    for p in passes:
        encoder.put(*p)
    return encoder.finish(), lanes


def read_passes(isa: str, bank: cpp_ext.TableBank, payload: tuple[bytes, int], passes: list[Source]) -> None:
    decoder = cpp_ext.Decoder(bank, *payload, isa)
    for p in passes:
        decoder.get(p.indexes)
    decoder.finish()


def shares() -> list[Row]:
    """Of whole calls in this process, pictures decoded and encoded in memory; medians of seven."""
    import codec
    from codec import pipeline
    from codec.bundle import find
    from codec.runtime.native import NativeRuntime

    picture, runtime, isa = photograph(), NativeRuntime(find(None)), ""
    mode = pipeline.quantize(np.asarray(picture), 32, runtime)
    passes, tables_ = [Source(*p) for p in mode.passes], pipeline.bank(runtime)
    data, payload = codec.encode(picture, qp=32), code_passes(isa, tables_, passes)

    def seconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    whole = {"encode": lambda: codec.encode(picture, qp=32), "decode": lambda: codec.decode(data)}
    coding = {
        "encode": lambda: code_passes(isa, tables_, passes),
        "decode": lambda: read_passes(isa, tables_, payload, passes),
    }
    return [row(f"coder/share/{way}", 100 * seconds(coding[way]) / seconds(whole[way]), "%", 2) for way in whole]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--only", metavar="TEXT", default="", help="coders whose name contains this")
    parser.add_argument("--symbols", metavar="N", type=int, default=SYMBOLS, help=f"of a source [{SYMBOLS}]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time everything through pytest-benchmark and give the report."""
    import pytest

    global SYMBOLS
    SYMBOLS = args.symbols
    names = [name for name in CODERS if args.only in name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "benchmark.json"
        options = ["-q", "-p", "no:cacheprovider", "-k", args.only, "--benchmark-columns=min"]
        options += ["--benchmark-json", str(file), "--benchmark-timer=time.thread_time"]
        if pytest.main([str(Path(__file__).parent / "coder_timings.py"), *options]):
            raise ValueError("the timings failed: see above")
        timed = json.loads(file.read_text())["benchmarks"]
    rows = []
    for t in timed:
        info = t["extra_info"]
        if "symbols" in info:
            rows.append(row(info["row"], info["symbols"] / t["stats"]["min"] / 1e6, "Msym/s", 1))
        else:
            rows.append(row(info["row"], t["stats"]["min"] / info["calls"] * 1e9, "ns", 0))
    for who in names:
        for name in SOURCES:
            try:
                rows.append(row(f"coder/{who.split('/')[0]}/overhead/{name}", overhead(who, name), "%"))
            except ImportError as error:
                print(f"{who}: absent ({error})", file=sys.stderr)
                rows += [row(f"coder/{who}/{name}/{way}", None, "Msym/s") for way in ("encode", "decode")]
    rows += shares()
    seen: dict[str, Any] = {r["name"]: r for r in rows}  # all instruction sets, and both ways of a library, write alike
    versions = {}
    for library in ("compressai", "constriction", "torchac"):
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    for r in seen.values():
        print(f"{r['name']:48} {'absent' if r['value'] is None else r['value']:>10} {r['unit']}")
    return report("coder", list(seen.values()), libraries=versions)
