"""The executor that computes nothing: it records the layers of a network and counts its multiplications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from codec import network
from codec.config import QP_ANCHORS, Config


class Shape(NamedTuple):
    channels: int
    area: float  # positions per picture pixel


@dataclass
class Counts:
    """layers: name -> shape of its array; macs: multiplications per picture pixel."""

    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    macs: float = 0.0


class ShapeOps:
    def __init__(self, counts: Counts):
        self.counts = counts

    def array(self, name: str, *shape: int) -> None:
        self.counts.layers[name] = shape

    def block(self, f: Callable[..., Shape], x: Shape, name: str) -> Shape:
        return f(self, x, name)

    def channels(self, x: Shape) -> int:
        return x.channels

    def conv(self, x: Shape, name: str, out: int, form: object = None, bias: bool = True) -> Shape:
        self.array(f"{name}/weight", out, x.channels)
        if bias:
            self.array(f"{name}/bias", out)
        self.counts.macs += x.area * x.channels * out
        return Shape(out, x.area)

    def depthwise(self, x: Shape, name: str) -> Shape:
        self.array(f"{name}/weight", x.channels, 25)
        self.array(f"{name}/bias", x.channels)
        self.counts.macs += x.area * x.channels * 25
        return x

    def same(self, x: Shape, *_: object) -> Shape:
        return x

    narrow = act = gated = add = to_steps = scale_index = halve_steps = residual = same

    def concat(self, *xs: Shape) -> Shape:
        return Shape(sum(x.channels for x in xs), xs[0].area)

    def split(self, x: Shape, at: int) -> tuple[Shape, Shape]:
        return Shape(at, x.area), Shape(x.channels - at, x.area)

    def halves(self, x: Shape) -> tuple[Shape, Shape]:
        return self.split(x, x.channels // 2)

    def unshuffle(self, x: Shape, r: int) -> Shape:
        return Shape(x.channels * r * r, x.area / r / r)

    def shuffle(self, x: Shape, r: int) -> Shape:
        return Shape(x.channels // r // r, x.area * r * r)

    def pack(self, x: Shape, half: int) -> Shape:
        return Shape(x.channels, x.area / 2)

    def linear_attention(self, q: Shape, k: Shape, v: Shape, heads: int) -> Shape:
        self.counts.macs += (q.area + k.area) * q.channels * v.channels / heads
        return Shape(v.channels, q.area)

    def mean_positions(self, x: Shape) -> Shape:
        return Shape(x.channels, 0)

    def scale(self, x: Shape, name: str, qp: object) -> Shape:
        self.array(name, QP_ANCHORS, x.channels)
        return x

    offset = scale

    def to_signal(self, x: Shape, name: str, qp: object, lo: int, hi: int) -> Shape:
        return x

    def energy(self, y: Shape, name: str) -> Shape:
        return Shape(2 * y.channels, y.area)

    def standardize(self, y: Shape, name: str) -> Shape:
        return y

    bounded = standardize

    def from_steps(self, y: Shape, name: str, qp: object) -> Shape:
        self.array(name, QP_ANCHORS, y.channels)
        return y


def count(cfg: Config) -> dict[str, Counts]:
    """Layers and multiplications per pixel of g_a, h_a, h_s, the slices and g_s."""
    parts = {name: Counts() for name in ("g_a", "h_a", "h_s", "slices", "g_s")}
    o = {name: ShapeOps(c) for name, c in parts.items()}
    y, psi = Shape(cfg.latents, 1 / 256), Shape(cfg.features, 1 / 256)
    network.g_a(o["g_a"], cfg, Shape(3, 1.0), None)
    network.h_a(o["h_a"], cfg, y, None)
    network.h_s(o["h_s"], cfg, Shape(cfg.hyper, 1 / 4096), None)
    for i, c in enumerate(cfg.slices):
        before = Shape(sum(cfg.slices[:i]), 1 / 256) if i else None
        t, inter, _, _ = network.anchors(o["slices"], cfg, i, psi, before, None)
        network.others(o["slices"], cfg, i, t, inter, Shape(c, 1 / 256), None)
    network.g_s(o["g_s"], cfg, y, psi, None)
    return parts


def vectors(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Arrays that belong to no layer: gains and deviations of y, the parameters of z."""
    return {
        "y/gain": (QP_ANCHORS, cfg.latents),
        "y/deviation": (cfg.latents,),
        "z/mean": (QP_ANCHORS, cfg.hyper),
        "z/log_scale": (QP_ANCHORS, cfg.hyper),
    }
