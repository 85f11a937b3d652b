"""Search a cheaper synthesis for the codec's files, train it, and see what it costs in PSNR.

    python -m nas.synthesis search --data PHOTOS --out RUN --budget 0.5
    python -m nas.synthesis train RUN/arch.json --data PHOTOS --out NET
    python -m nas.synthesis eval NET --pictures KODAK
    python -m nas.synthesis export NET --out searched.safetensors     # a bundle: codec decode FILE --model it
    python -m nas.synthesis uniform --bits 8 --out arch.json          # one bit-width everywhere, to compare with

Everything but g_s stays: files, their sizes and their latents are those of the bundle. Latents come from the codec
itself, so a network sees what a decoder sees. The loss is the squared distance to what the bundle's own synthesis draws
of the same latents, over the squared error of that: 0 is its quality, 0.012 is 0.05 dB below. (Held against the picture
itself, steps learn far less: what the codec gets wrong is noise to them.) Costs are for one pixel of the picture; a
budget is a share of the bit operations of g_s with 8 bits everywhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as safetensors
from torch import Tensor
from tqdm import tqdm

from codec import picture
from codec.bundle import Bundle, find, identity
from codec.coding import code_latents
from codec.config import QPS
from codec.modes import UNIT, Encode
from codec.pipeline import padded
from codec.runtime.native import NativeRuntime
from codec.runtime.walk import PSI
from codec.training.data import Photos
from nas.baselines import uniform
from nas.cost import CostModel
from nas.data import SUFFIXES
from nas.export import deployed
from nas.quantizers import pair, said
from nas.runs import Folder, check_finite, check_outputs, ended, photographs, read, save
from nas.search import bits_of
from nas.searcher import Batch, Plan, Searcher, Target
from nas.space import Architecture, Choice, SearchSpace
from nas.spaces.synthesis import LADDER, Synthesis, load, offered, synthesis_space
from nas.training import Plan as TrainingPlan
from nas.training import Training
from quant.export import export_onnx, qcdq
from quant.training import replace
from rate import psnr
from rate.cost import BITOPS
from rate.memory import with_huge_pages
from rate.options import Parser

SIDE = 128  # of crops
ONE = 1  # thread for the codec: crops leave two little to do, and where another program has the core they wait


class Teacher:
    """The codec: pictures to what its decoder sees and its own synthesis draws. threads: of the codec, None for all."""

    def __init__(self, bundle: Bundle, threads: int | None = None):
        self.bundle, self.runtime = bundle, NativeRuntime(bundle, threads)

    def latents(self, rgb: NDArray[np.uint8], qp: int) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
        """y_hat in steps, Psi, and the codec's picture (1, 3, height, width) in -1..1, of the padded picture."""
        y, z = self.runtime.analyse(padded(rgb), qp)
        mode = Encode(y, z, self.bundle.config.slices, int(self.bundle.arrays["integer/skip"][0]))
        y_hat, psi = code_latents(self.runtime, mode, qp)
        own = self.runtime.synthesise(y_hat, psi, qp)
        return torch.from_numpy(y_hat / np.float32(UNIT)), torch.from_numpy(psi / np.float32(PSI)), own

    def example(self) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros of a picture of 64x64."""
        c = self.bundle.config
        return torch.zeros(1, c.latents, 4, 4), torch.zeros(1, c.features, 4, 4), torch.zeros(1, dtype=torch.int64)

    def cost(self, model: torch.nn.Module) -> CostModel:
        """Bit operations of a picture of 64x64."""
        return CostModel(BITOPS, model, self.example())


FIRST = 64  # crops that the steps start from
PRESSURE = 5.0  # of a budget: a tenth more of 6 bits is 1.21 times the work and 0.43 of the error
UNSEEN = 4 * 10**-4.6  # squared error in -1..1 at 46 dB


class Lessons:
    """Batches of crops at QPs from all over: ((y_hat, Psi, QPs), (the codec's picture, its squared error))."""

    def __init__(
        self, teacher: Teacher, pictures: list[NDArray[np.uint8]], batch: int, steps: int, seed: int, part: int = 0,
        parts: int = 1,
    ):  # fmt: skip
        self.teacher, self.batch, self.steps, self.seed = teacher, batch, steps, [seed, part]
        self.photos = Photos(pictures[part::parts], SIDE)

    def __call__(self, epoch: int) -> Iterable[Batch]:
        """The same for the same epoch."""
        rng = np.random.default_rng([*self.seed, epoch])
        for _ in range(self.steps):
            x = self.photos.crops(self.batch, SIDE, rng)
            qps = ((np.arange(self.batch) + rng.random(self.batch)) * (QPS / self.batch)).astype(int)
            found = [self.teacher.latents(c.numpy(), int(q)) for c, q in zip(x, qps, strict=True)]
            y_hat, psi = (torch.cat([f[i] for f in found]) for i in (0, 1))
            picture = x.permute(0, 3, 1, 2).float() / 127.5 - 1
            own = torch.from_numpy(np.concatenate([f[2] for f in found]))
            yield (y_hat, psi, torch.from_numpy(qps)), (own, (own - picture).square().mean((1, 2, 3)))


def relative_error(x: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    """Squared distance to the codec's picture over that one's squared error, the mean of the crops; with a floor, or
    flat crops that the codec draws all but exactly were all that counts."""
    own, error = given
    return ((x - own).square().mean((1, 2, 3)) / (error + UNSEEN)).mean()


def made(teacher: Teacher, space: SearchSpace, architecture: Architecture | None) -> Synthesis:
    """A network with the bundle's weights in it. Raises ValueError for an architecture of another space."""
    if architecture and architecture.space != space.name:
        raise ValueError(f"this architecture is of {architecture.space or 'another space'}, not of {space.name}")
    if architecture and any(c.op not in offered(n) for n, c in architecture.choices.items()):
        raise ValueError(f"this architecture has operations that {space.name} does not offer where they are")
    if architecture and architecture.options != space.options:
        raise ValueError(f"this architecture is of another version of {space.name}: search it again")
    with space.using(architecture):
        model = Synthesis(space, teacher.bundle.config)
    load(model, teacher.bundle)
    return model


def space_of(architecture: Architecture) -> SearchSpace:
    """That it was searched in, but for its bits."""
    return synthesis_space(whole="sixteenth" not in architecture.options)


def at_8_bits(teacher: Teacher) -> float:
    """Bit operations of the codec's own g_s, of a picture of 64x64, with 8 bits everywhere."""
    space = synthesis_space((8,))
    model = made(teacher, space, None)
    return teacher.cost(model).of(uniform(model, space, "depthwise5", 8))


def write_uniform(args: argparse.Namespace) -> None:
    """Leaves an architecture."""
    check_outputs(args.out)
    both = bits_of(args.bits), bits_of(args.ends or args.bits)
    if any(len(b) > 1 for b in both):
        raise ValueError("--bits and --ends are one width each: 8, or 4x7")
    (inner,), (ends,) = both
    teacher, space = Teacher(find(args.model)), synthesis_space((inner, ends) if ends != inner else (inner,))
    model = made(teacher, space, None)
    arch = uniform(model, space, "depthwise5", inner)
    choices = {**arch.choices, **{name: Choice("point", *pair(ends)) for name in ("up", "head")}}
    arch = Architecture(choices, arch.space, arch.options)
    replace(args.out, arch.to_json())
    print(f"{args.out}: {100 * teacher.cost(model).of(arch) / at_8_bits(teacher):.1f} % of 8 bits everywhere")


def search(args: argparse.Namespace) -> None:
    """Leaves arch.json."""
    teacher = Teacher(find(args.model), ONE)
    space = synthesis_space(bits_of(args.bits) if args.bits else LADDER, args.whole)
    torch.manual_seed(args.seed)
    model = made(teacher, space, None)
    cost = teacher.cost(model)
    plan = Plan(args.epochs, args.warmup, args.rate, args.logit_rate, args.search, muon=False)
    budget = Target(args.budget * at_8_bits(teacher), PRESSURE)
    if (least := cost.reach()[0]) > budget.cost:
        raise ValueError(f"the cheapest network takes {least / budget.cost * args.budget:.3f} of 8 bits everywhere")
    searcher = Searcher(model, space, cost, budget, plan, args.steps, seed=args.seed, loss=relative_error)
    config = {"plan": vars(plan), "budget": args.budget, "bits": space.bits, "options": space.options,
              "steps": args.steps, "batch": args.batch,
              "seed": args.seed, "data": str(args.data), "synthesis": teacher.bundle.synthesis_id.hex()}  # fmt: skip
    pictures, folder = photographs(args.data, SIDE), Folder(args.out, config)
    folder.load(searcher)
    halves = [Lessons(teacher, pictures, args.batch, args.steps, args.seed, i, 2) for i in range(2)]
    with tqdm(total=plan.epochs, initial=searcher.epoch, unit="epoch", disable=not sys.stderr.isatty()) as bar:

        def on_epoch(s: Searcher) -> None:
            folder.save(s)
            folder.log(s.history)
            bar.set_postfix_str(f"error {s.history[-1]['loss']:.4f}, {s.history[-1]['cost'] / 4096e3:.0f} k a pixel")
            bar.update()

        found = searcher.fit(halves[0], halves[1], on_epoch)
    replace(folder.path / "arch.json", found.to_json())
    print(f"{folder.path / 'arch.json'}: {cost.of(found) / 4096e3:.0f} k bit operations a pixel, "
          f"{100 * cost.of(found) / at_8_bits(teacher):.1f} % of 8 bits everywhere")  # fmt: skip
    for r in searcher.report():
        op, bits = r["choice"].op, said(r["choice"].bits)
        print(f"  {r['position']:12} {op:8} {bits:>3} bit  p {r['p']:.2f}{'' if r['decided'] else '  undecided'}")


def train(args: argparse.Namespace) -> None:
    """Leaves network.pt."""
    teacher, arch = Teacher(find(args.model), ONE), Architecture.load(args.architecture)
    model = made(teacher, space_of(arch), arch)
    run = Training(model, TrainingPlan(args.epochs, args.steps, args.rate, 0.0, muon=False), relative_error)
    config = {"architecture": json.loads(arch.to_json()), "plan": vars(run.plan), "batch": args.batch,
              "seed": args.seed, "data": str(args.data), "synthesis": teacher.bundle.synthesis_id.hex()}  # fmt: skip
    pictures, folder = photographs(args.data, SIDE), Folder(args.out, config)
    # Steps start where they suit what they see first: eight crops leave out what others have.
    with torch.no_grad():
        model(*next(iter(Lessons(teacher, pictures, FIRST, 1, args.seed)(args.epochs)))[0])
    folder.load(run)
    with tqdm(total=run.plan.epochs, initial=run.epoch, unit="epoch", disable=not sys.stderr.isatty()) as bar:

        def on_epoch(r: Training) -> None:
            folder.save(r)
            folder.log(r.history)
            bar.set_postfix_str(f"error {r.history[-1]['loss']:.4f}")
            bar.update()

        run.fit(Lessons(teacher, pictures, args.batch, args.steps, args.seed), on_epoch)
    replace(folder.path / "arch.json", arch.to_json())
    save(folder.path / "network.pt", model.state_dict())
    print(f"{folder.path}: error {run.history[-1]['loss']:.4f} of the codec's, "
          f"{teacher.cost(model).decided() / 4096e3:.0f} k bit operations a pixel")  # fmt: skip


@torch.no_grad()
def evaluate(args: argparse.Namespace) -> None:
    """Prints PSNR beside that of the codec's own synthesis."""
    teacher, model = _trained(args)
    check_outputs(args.json)
    paths = sorted(p for p in args.pictures.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{args.pictures} is no folder with pictures ({', '.join(s[1:] for s in SUFFIXES)})")
    found: dict[str, Any] = {"kbitops": teacher.cost(model).decided() / 4096e3, "qps": {}}
    for qp in args.qps:
        pairs = [_pair(teacher, model, path, qp) for path in paths]
        own, ours = (statistics.mean(p[i] for p in pairs) for i in (0, 1))
        found["qps"][qp] = {"codec": own, "network": ours}
        print(f"QP {qp}: {own:.2f} dB by the codec, {ours:.2f} by the network ({ours - own:+.2f})", flush=True)
    if args.json:
        replace(args.json, json.dumps(found, indent=1) + "\n")


class Drawer(torch.nn.Module):
    """A decoder's integers to a picture, as a bundle's graph has it."""

    def __init__(self, model: Synthesis):
        super().__init__()
        self.model = deployed(model)

    def forward(self, y_hat: Tensor, psi: Tensor, qp: Tensor) -> Tensor:
        """y_hat and Psi in their units, qp a number."""
        x: Tensor = self.model(y_hat / UNIT, psi / PSI, qp[None])
        return x


def export(args: argparse.Namespace) -> None:
    """Leaves a bundle: all of the codec's, and this network to draw."""
    check_outputs(args.out)
    teacher, model = _trained(args)
    sizes = {n: {2: "h", 3: "w"} for n in ("y_hat", "psi")} | {"x": {2: "height", 3: "width"}}
    y_hat, psi, qp = teacher.example()
    graph = qcdq(export_onnx(Drawer(model), (y_hat, psi, qp[0]), ["y_hat", "psi", "qp"], ["x"], sizes))
    data = np.frombuffer(graph.SerializeToString(), np.uint8)
    metadata = dict(teacher.bundle.metadata) | {
        "synthesis": "graph", "arrays/synthesis": "", "synthesis_id": identity({"graph": data}, 2).hex(),
    }  # fmt: skip
    replace(args.out, safetensors({**teacher.bundle.arrays, "graph/synthesis": data}, metadata))
    print(f"{args.out}: model {metadata['model_id']} as before, synthesis {metadata['synthesis_id']}, "
          f"{len(data):,} bytes to draw")  # fmt: skip


def _trained(args: argparse.Namespace) -> tuple[Teacher, Synthesis]:
    teacher, arch = Teacher(find(args.model)), Architecture.load(args.network / "arch.json")
    model = made(teacher, space_of(arch), arch).eval()
    file = args.network / "network.pt"
    if not file.is_file():
        raise ValueError(f"{args.network} has no trained network.pt: run python -m nas.synthesis train")
    try:
        model.load_state_dict(read(file))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not of its arch.json, or of another bundle: train it again") from error
    return teacher, model


def _pair(teacher: Teacher, model: Synthesis, path: Path, qp: int) -> tuple[float, float]:
    rgb = picture.load(path).rgb
    y_hat, psi, own = teacher.latents(rgb, qp)
    scores = []
    for x in (torch.from_numpy(own), model(y_hat, psi, torch.tensor([qp]))):
        inside = x[0, :, : rgb.shape[0], : rgb.shape[1]].permute(1, 2, 0)
        scores.append(psnr(rgb, (inside * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).numpy()))
    return scores[0], scores[1]


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    p = Parser(prog="python -m nas.synthesis", description=__doc__)
    does = p.add_subparsers(dest="do", required=True)
    s, t, e, x, u = (does.add_parser(n) for n in ("search", "train", "eval", "export", "uniform"))
    for q in (s, t):
        q.add_argument("--data", type=Path, required=True, metavar="PHOTOS")
        q.add_argument("--out", type=Path, required=True, metavar="FOLDER")
        q.add_argument("--epochs", type=int, default=10, metavar="N", help="[10]")
        q.add_argument("--steps", type=int, default=50, metavar="N", help="of an epoch [50]")
        q.add_argument("--batch", type=int, default=8, metavar="N", help="[8]")
        q.add_argument("--rate", type=float, default=3e-4, metavar="R", help="three times that of weights [0.0003]")
        q.add_argument("--seed", type=int, default=0, metavar="N", help="[0]")
    s.add_argument("--budget", type=float, default=0.5, metavar="B", help="share of 8 bits everywhere [0.5]")
    s.add_argument("--bits", metavar="B,B", help="candidates, as of nas.search [fifteen pairs of 2x4 to 11x10]")
    s.add_argument("--whole", action="store_true", help="with the blocks at a sixteenth of the size, which do little")
    s.add_argument("--warmup", type=int, default=1, metavar="N", help="epochs of weights alone [1]")
    s.add_argument("--logit-rate", type=float, default=2e-2, metavar="R", help="of choices [0.02]")
    s.add_argument("--search", choices=("noise", "fake", "float"), default="noise", help="[noise]")
    t.add_argument("architecture", type=Path, metavar="ARCH.json")
    e.add_argument("network", type=Path, metavar="NET")
    e.add_argument("--pictures", type=Path, required=True, metavar="FOLDER")
    e.add_argument("--qps", type=int, nargs="+", default=[8, 28, 48], metavar="QP", help="[8 28 48]")
    e.add_argument("--json", type=Path, metavar="FILE")
    x.add_argument("network", type=Path, metavar="NET")
    x.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bundle, NAME.safetensors")
    u.add_argument("--bits", default="8", metavar="B", help="[8]")
    u.add_argument("--ends", metavar="B", help="of upsampling and head [as all others]")
    u.add_argument("--out", type=Path, required=True, metavar="ARCH.json")
    for q in (s, t, e, x, u):
        q.add_argument("--model", metavar="BUNDLE", help="[the installed one]")
    return p


def run(args: argparse.Namespace) -> None:
    """Check the numbers, and do it."""
    if args.do in ("search", "train"):
        check_finite(args, epochs=1, steps=1, batch=1, rate=1e-12, seed=0)
    if args.do == "search":
        check_finite(args, budget=1e-6, logit_rate=1e-12, warmup=0)
        if args.warmup >= args.epochs:
            raise ValueError(f"--warmup {args.warmup} leaves none of {args.epochs} epochs to search in")
    if args.do == "eval" and not all(0 <= q < QPS for q in args.qps):
        raise ValueError(f"QPs are 0 to {QPS - 1}")
    {"search": search, "train": train, "eval": evaluate, "export": export, "uniform": write_uniform}[args.do](args)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked, 130 where it was stopped."""
    args = parser().parse_args(argv)
    return ended("nas.synthesis", lambda: run(args))


if __name__ == "__main__":
    with_huge_pages()
    sys.exit(main())
