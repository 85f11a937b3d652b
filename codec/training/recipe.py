"""Recipes: how a full-size network is trained, as JSON files that carry a version. Some come with the package.

{"version": 0, "network": "mlicv2-l", "lambda": 0.025, "warm_up": 6000, "clip": 1.0, "quantile_rate": 0.001,
 "average": 0.9999, "stages": [{"steps": 150000, "crop": 256, "batch": 16, "rate": 0.0001, "learn": "codec"}]}

The loss is bits per pixel + lambda * squared error (of 0..255). learn: "codec" all but the selection of symbols;
"selection" it alone, by which symbols were other than zero; "joint" both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

VERSION = 0
POINTS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)  # lambdas of the published models, lowest rate first
LEARN = ("codec", "selection", "joint")


@dataclass(frozen=True)
class Stage:
    """crop: side in pixels; batch: crops of all processes together; rate: of Adam."""

    steps: int
    crop: int
    batch: int
    rate: float
    learn: str = "codec"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.crop < 64 or self.crop % 64 or self.rate <= 0:
            raise ValueError(f"a stage needs steps, a batch, a rate and a crop in multiples of 64: {self}")
        if self.learn not in LEARN:
            raise ValueError(f"learn is {self.learn!r}, not one of {', '.join(LEARN)}")


@dataclass(frozen=True)
class Recipe:
    """warm_up: steps at a rising rate; clip: norm of the gradient; quantile_rate: of the Adam that fits the quantiles
    of z; average: decay per step of the averaged weights."""

    network: str
    weight: float  # "lambda" in the file
    stages: tuple[Stage, ...]
    warm_up: int = 6000
    clip: float = 1.0
    quantile_rate: float = 1e-3
    average: float = 0.9999

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, float]:
        """The stage of a step, and its learning rate."""
        rising = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        for stage in self.stages:
            if step < stage.steps:
                break
            step -= stage.steps
        return stage, stage.rate * rising

    def to_dict(self) -> dict[str, Any]:
        """The form of the file."""
        fields = {k: v for k, v in vars(self).items() if k not in ("weight", "stages")}
        return {"version": VERSION, "lambda": self.weight, **fields, "stages": [vars(s) for s in self.stages]}

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> Recipe:
        """Raises ValueError, in one line, for what is no recipe of this version."""
        fields = dict(made)
        if fields.pop("version", None) != VERSION:
            raise ValueError(f"a recipe has version {VERSION}, this one {made.get('version')}")
        try:
            stages = tuple(Stage(**stage) for stage in fields.pop("stages"))
            made_of = cls(weight=float(fields.pop("lambda")), stages=stages, **fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a recipe: {error}") from error
        if not stages:
            raise ValueError("not a recipe: it has no stages")
        return made_of


def shipped() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("codec.training") / "recipes"
    return sorted(p.name.removesuffix(".json") for p in folder.iterdir() if p.name.endswith(".json"))


def load(name: str, weight: float | None = None) -> Recipe:
    """A shipped recipe by name, or that of a file, with this lambda if one is given. Raises ValueError."""
    if name in shipped():
        text = (resources.files("codec.training") / "recipes" / f"{name}.json").read_text()
    elif Path(name).is_file():
        text = Path(name).read_text()
    else:
        raise ValueError(f"{name} is neither a file nor one of {', '.join(shipped())}")
    try:
        recipe = Recipe.from_dict(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{name}: {error}") from error
    return recipe if weight is None else replace(recipe, weight=weight)
