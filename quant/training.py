"""Training one network on data that fit in memory: the loop, what a run folder holds, and its picture.

A run is a function of its options and its seed: every epoch begins with random numbers of its own, so that a run that
was stopped and goes on is the run that was not.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quant import data
from quant.config import ShiftQuantConfig
from quant.convert import quantize_
from quant.networks import CONTEXT, NETWORKS, ends
from quant.quantizers import NonFinite

VERSION = 1
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Options:
    """config: None for floating point. real: of numbers between layers, "float32" or "bfloat16". subset: so many of the
    training examples, 0 for all. rate: of learning, 0 for the model's own."""

    model: str
    data: str
    config: ShiftQuantConfig | None
    real: str
    epochs: int
    batch: int
    rate: float
    subset: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """With the version of its form."""
        return {"version": VERSION, **asdict(self), "config": self.config and self.config.to_dict()}


def build(options: Options, classes: int) -> nn.Module:
    """The network with its first weights, a function of the seed, converted but for its ends."""
    torch.manual_seed(options.seed)
    model = NETWORKS[options.model](classes)
    if options.config:
        fields = asdict(options.config) | {"skip": ends(model)}
        quantize_(model, ShiftQuantConfig(**fields))
    return model.to(memory_format=torch.channels_last)


def optimizer_of(options: Options, model: nn.Module) -> tuple[torch.optim.Optimizer, float]:
    """As is usual for the kind of network: SGD for ResNets, AdamW for Transformers; and the rate at the top."""
    if options.model.startswith("resnet"):
        rate = options.rate or 0.1
        return torch.optim.SGD(model.parameters(), rate, 0.9, weight_decay=5e-4), rate
    rate = options.rate or 1e-3
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05), rate


@contextmanager
def numbers(options: Options) -> Iterator[None]:
    """The type of numbers between layers."""
    with torch.autocast("cpu", torch.bfloat16, enabled=options.real == "bfloat16"):
        yield


def steps_of(options: Options, examples: data.Examples) -> int:
    """Of one epoch."""
    n = len(examples.train[: options.subset or None])
    return max(n // (options.batch * (1 if examples.test_labels.size else CONTEXT)), 1)


def batches(options: Options, examples: data.Examples, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of one epoch: pictures and labels, or stretches of text and the same one character on."""
    rng = np.random.default_rng([options.seed, epoch])
    train = examples.train[: options.subset or None]
    if examples.test_labels.size:
        for at in np.array_split(rng.permutation(len(train)), steps_of(options, examples)):
            yield data.to_signal(data.augmented(train[at], rng)), torch.from_numpy(examples.train_labels[at])
        return
    for _ in range(steps_of(options, examples)):
        at = rng.integers(0, len(train) - CONTEXT - 1, options.batch)
        rows = torch.from_numpy(train[at[:, None] + np.arange(CONTEXT + 1)])
        yield rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def judge(options: Options, model: nn.Module, examples: data.Examples) -> float:
    """Per cent of the test pictures that are told right, or bits per character of the test text."""
    model.eval()
    if examples.test_labels.size:
        right = 0
        for at in range(0, len(examples.test), 500):
            with numbers(options):
                said = model(data.to_signal(examples.test[at : at + 500])).argmax(1)
            right += int((said.numpy() == examples.test_labels[at : at + 500]).sum())
        return 100 * right / len(examples.test)
    nats, n = 0.0, len(examples.test) // (CONTEXT + 1) * (CONTEXT + 1)
    rows = torch.from_numpy(examples.test[:n]).view(-1, CONTEXT + 1)[:: max(n // (CONTEXT + 1) // 2000, 1)]
    for part in rows.split(50):
        with numbers(options):
            said = model(part[:, :-1])
        nats += float(nn.functional.cross_entropy(said.float().flatten(0, 1), part[:, 1:].flatten(), reduction="sum"))
    return nats / math.log(2) / rows[:, 1:].numel()


def saved_bytes(options: Options, model: nn.Module, x: Tensor) -> int:
    """What a forward pass keeps for the way back, but for parameters; tensors that share memory count once."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(t: Tensor) -> Tensor:
        if (at := t.untyped_storage().data_ptr()) not in own:
            kept[at] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), numbers(options):
        held = model(x)  # until all is counted, so that no address is used twice
    del held
    return sum(kept.values())


class Run:
    """One seed in one folder: checkpoint.pt after every epoch, log.jsonl and log.csv, progress.png."""

    def __init__(self, folder: Path, options: Options, examples: data.Examples):
        self.folder, self.options, self.examples = folder, options, examples
        folder.mkdir(parents=True, exist_ok=True)
        self.model = build(options, examples.classes)
        self.optimizer, self.rate = optimizer_of(options, self.model)
        self.log: list[dict[str, float]] = []
        self._check_options()
        if (folder / CHECKPOINT).exists():
            self._resume()

    def _check_options(self) -> None:
        path, own = self.folder / "config.json", self.options.to_dict()
        if path.exists():
            try:
                found = json.loads(path.read_text())
                other = [name for name in own if json.dumps(found.get(name)) != json.dumps(own[name])]
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{path} is damaged: name another folder") from error
            if other:
                raise ValueError(
                    f"{self.folder} was trained with other options ({', '.join(other)}): name another folder"
                )
        replace(path, json.dumps(own, indent=1) + "\n")

    def _resume(self) -> None:
        state = checkpoint(self.folder)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.log = state["log"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.folder / CHECKPOINT} is of another network: name another folder") from error

    def train(self, progress: Callable[[int, int, float], None] = lambda epoch, step, loss: None) -> dict[str, float]:
        """All epochs that are left. progress hears of every step. The last line of the log.

        Raises ValueError where the loss is not finite.
        """
        total = self.options.epochs
        with _alone(self.folder):
            for epoch in range(len(self.log), total):
                self.log.append(self._epoch(epoch, total, progress))
                self._save()
            self._write_log()
        return self.log[-1]

    def _epoch(self, epoch: int, total: int, progress: Callable[[int, int, float], None]) -> dict[str, float]:
        torch.manual_seed(self.options.seed * 100_003 + epoch)
        self.model.train()
        losses, seconds = [], []
        steps = steps_of(self.options, self.examples)
        for step, (x, y) in enumerate(batches(self.options, self.examples, epoch)):
            done = (epoch * steps + step) / (total * steps)
            warm = min(1.0, (epoch * steps + step + 1) / max(0.05 * total * steps, 1))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * warm * 0.5 * (1 + math.cos(math.pi * done))
            start = time.perf_counter()
            try:
                with numbers(self.options):
                    said = self.model(x)
                loss = nn.functional.cross_entropy(said.float().flatten(0, -2), y.flatten())
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise NonFinite(f"the loss is {losses[-1]}")
            except NonFinite as error:
                raise ValueError(
                    f"{self.folder}: step {step + 1} of epoch {epoch + 1}: {error}: a lower --lr may help"
                ) from error
            seconds.append(time.perf_counter() - start)
            progress(epoch, step, losses[-1])
        return {
            "epoch": epoch + 1, "loss": statistics.mean(losses),
            "test": judge(self.options, self.model, self.examples), "step_ms": 1e3 * statistics.median(seconds),
        }  # fmt: skip

    def _save(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "log": self.log}
        made = io.BytesIO()
        torch.save(state, made)
        replace(self.folder / CHECKPOINT, made.getvalue())
        self._write_log()

    def _write_log(self) -> None:
        replace(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self.log))
        rows = io.StringIO(newline="")
        writer = csv.DictWriter(rows, self.log[0])
        writer.writeheader()
        writer.writerows(self.log)
        replace(self.folder / "log.csv", rows.getvalue())
        draw(self.folder / "progress.png", self.log, "%" if self.examples.test_labels.size else "bits per character")


def checkpoint(folder: Path) -> dict[str, Any]:
    """What a run left. Raises ValueError for a file that is damaged, OSError."""
    path = folder / CHECKPOINT
    data_of = path.read_bytes()
    try:
        state = torch.load(io.BytesIO(data_of), weights_only=True)
        with zipfile.ZipFile(io.BytesIO(data_of)) as file:
            damaged = file.testzip()
    except Exception as error:  # whatever an unpickler makes of damaged bytes
        raise ValueError(f"{path} is damaged: delete it to train again") from error
    if damaged or not isinstance(state, dict):
        raise ValueError(f"{path} is damaged: delete it to train again")
    return state


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises ValueError where another process trains in this folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another process trains in {folder}") from error
        yield


def replace(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draw(path: Path, log: list[dict[str, float]], unit: str) -> None:
    """Loss and test result over epochs."""
    from matplotlib.figure import Figure

    figure = Figure((7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in log]
    left.plot(epochs, [line["loss"] for line in log], marker=".")
    right.plot(epochs, [line["test"] for line in log], marker=".")
    left.set(xlabel="epoch", ylabel="training loss (nats)")
    right.set(xlabel="epoch", ylabel=f"test ({unit})")
    made = io.BytesIO()
    figure.savefig(made, format="png")
    replace(path, made.getvalue())
