"""Suite `large`: mlicv2-l at full size on this machine.

    python -m bench large --json FILE

Rows large/WxH/entropy/... are of everything in compress and decompress but the transforms, in turn: `ours`; `float32`,
the same without products of bfloat16; and `listed`, which works as MLIC++'s released code does: in float32, local
context and parameter nets on the whole grid at once, a table's index by one comparison with each deviation, and
symbols, indexes and tables as Python lists into CompressAI's coder. Rows large/WxH/compress and decompress are ours as
a whole; large/step/... is one training step on a crop of 256x256. Weights are random and no symbol is skipped.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .report import Row, report, row

if TYPE_CHECKING:
    from torch import Tensor

SIZES = ((768, 512), (2048, 1344))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", default="mlicv2-l", metavar="NAME", help="network [mlicv2-l]")
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("W", "H"), help="multiples of 64")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="counted runs of each kind [5]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="[all cores]")


class Listed:
    """The mode of codec.coding that writes, and then reads, y by lists; z is only rounded, being a hundredth of it."""

    def __init__(self, model: Any, y: Tensor, z: Tensor, coder: Any):
        self.model, self.y, self.z, self.coder = model, y, z, coder
        self.symbols: list[int] = []
        self.lists: list[int] = []
        self.reader: Any = None

    def encoded(self) -> bytes:
        writer = self.coder.ans.BufferedRansEncoder()
        writer.encode_with_indexes(self.symbols, self.lists, self.coder.cdfs, self.coder.sizes, self.coder.offsets)
        return bytes(writer.flush())

    def read(self, payload: bytes) -> Listed:
        self.reader = self.coder.ans.RansDecoder()
        self.reader.set_stream(payload)
        return self

    def indexes(self, scale: Tensor) -> list[int]:
        import torch

        from codec import tables

        found = torch.full_like(scale, tables.SCALES - 1, dtype=torch.int32)
        for i in range(tables.SCALES - 1):
            found -= (scale <= tables.scale(i)).int()
        return found.reshape(-1).tolist()

    def code(self, i: int, half: int, mean: Tensor, scale: Tensor) -> Tensor:
        import torch

        from codec.coding import HYPER
        from codec.models.large.contexts import pack

        if i == HYPER:
            return (self.z - mean).round() + mean
        indexes = self.indexes(scale)
        if self.reader is not None:
            found = self.reader.decode_stream(indexes, self.coder.cdfs, self.coder.sizes, self.coder.offsets)
            return torch.tensor(found).reshape(mean.shape).to(mean) + mean
        c = self.model.options.slice
        symbols = (pack(self.y[:, i * c : (i + 1) * c], anchors=half == 0) - mean).round()
        self.symbols.extend(symbols.int().reshape(-1).tolist())
        self.lists.extend(indexes)
        return symbols + mean


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time files and a step, and give the report. Raises ImportError without compressai."""
    import torch

    from codec.coding import code_latents
    from codec.models.large import coding
    from codec.models.large.model import MLIC, OPTIONS

    from .coders import CompressAI

    coder = CompressAI(prepared=False)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    options = OPTIONS[args.model]
    model, full = MLIC(options).eval(), MLIC(replace(options, packed=False)).eval()
    full.load_state_dict(model.state_dict())
    model.update()
    rows: list[Row] = []

    def clock(work: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Medians, taken in turn after one round that does not count."""
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(args.runs + 1):
            for name, f in work.items():
                start = time.perf_counter()
                f()
                times[name].append(time.perf_counter() - start)
        return {name: statistics.median(t[1:]) for name, t in times.items()}

    @torch.inference_mode()
    def files(width: int, height: int) -> None:
        x = torch.nn.functional.interpolate(
            torch.rand(1, 3, height // 16, width // 16), scale_factor=16, mode="bicubic"
        )
        y = model.g_a(x)
        z = model.h_a(y)
        y, z = 0.5 * y / y.std(), z / z.std()  # as a trained network has them, roughly

        def ours(rounded: bool = True) -> list[bytes]:
            model.rounded = rounded
            mode = coding.Encode(model, y, z)
            model.code(mode)
            return mode.strings()

        def read_ours(rounded: bool = True) -> None:
            model.rounded = rounded
            mode = coding.Decode(model, strings[rounded], shape)
            model.code(mode)
            mode.finish()

        def listed() -> bytes:
            mode = Listed(full, y.contiguous(), z.contiguous(), coder)
            code_latents(full, mode, None)
            return mode.encoded()

        def read_listed() -> None:
            code_latents(full, Listed(full, y, z, coder).read(payload), None)

        strings, payload = {rounded: ours(rounded) for rounded in (False, True)}, listed()
        whole = model.compress(x)
        shape = (z.shape[2], z.shape[3])
        found = clock({
            "entropy/compress/listed": listed, "entropy/decompress/listed": read_listed,
            "entropy/compress/float32": partial(ours, False), "entropy/decompress/float32": partial(read_ours, False),
            "entropy/compress/ours": ours, "entropy/decompress/ours": read_ours,
            "compress": lambda: model.compress(x),
            "decompress": lambda: model.decompress(whole["strings"], whole["shape"]),
        })  # fmt: skip
        name = f"large/{width}x{height}"
        rows.extend(row(f"{name}/{kind}", seconds, "s", 3) for kind, seconds in found.items())
        for kind in (f"entropy/{way}" for way in ("compress", "decompress")):
            for which in ("ours", "float32"):
                times = found[f"{kind}/listed"] / found[f"{kind}/{which}"]
                rows.append(row(f"{name}/{kind}/listed-to-{which}", times, "times", 2))

    for width, height in args.size or SIZES:
        files(width, height)
    learning = MLIC(options)
    optimizer = torch.optim.Adam(learning.parameters(), 1e-4)

    def step() -> None:
        out = learning(x)
        bits = sum(-p.log2().sum() for p in out["likelihoods"].values()) / x[0, 0].numel()
        optimizer.zero_grad()
        (bits + 0.013 * 255**2 * (out["x_hat"] - x).square().mean() + learning.aux_loss()).backward()
        optimizer.step()

    x = torch.rand(1, 3, 256, 256)
    rows.append(row("large/step/256x256", clock({"step": step})["step"], "s", 2))
    rows.append(row("large/peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB", 0))
    for r in rows:
        print(f"{r['name']:52} {r['value']:>9} {r['unit']}")
    return report("large", rows, torch=torch.__version__)
