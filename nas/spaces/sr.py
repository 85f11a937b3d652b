"""Super-resolution: the two spaces of QuantNAS (arXiv 2208.14839), as its public code has them, for x2, x3 and x4.

Networks map RGB in 0..1, (batch, 3, h, w), to (batch, 3, scale * h, scale * w). Departures, ours: what enters the first
layer and the tail is shifted by a half and quantized with its sign instead of rectified (signed_ends=False undoes
that); a global bicubic skip where asked for, without which short trainings stay below bicubic interpolation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.layers import ADQ
from nas.space import SearchSpace

HEAD = ("conv3", "conv5", "conv3 g3", "conv5 g3")
BODY = ("factor5", "factor3", "conv3", "conv5")
SKIP = ("conv1", "conv3", "conv5")
TAIL = ("conv1", "conv3", "conv5", "conv5 g3", "conv3 g3")
RFDN_BODY = ("conv1", "conv3", "conv5", "double1", "double3", "double5", "conv1 g2", "conv3 g2", "conv5 g2")
RFDN_TAIL = ("conv1", "conv3", "conv5", "double1", "double3", "double5")


def _check(scale: int, width: int, cells: int, multiple: int) -> None:
    if scale not in (2, 3, 4):
        raise ValueError(f"the scale is 2, 3 or 4, not {scale!r}")
    if type(width) is not int or not multiple <= width <= 3072 or width % multiple:
        raise ValueError(f"the width is a multiple of {multiple} up to 3072, not {width!r}")
    if type(cells) is not int or not 1 <= cells <= 256:
        raise ValueError(f"cells are 1 to 256, not {cells!r}")


class _Ends(nn.Module):
    """What both networks do at their ends."""

    def __init__(self, scale: int, bicubic: bool, signed: bool):
        super().__init__()
        self.scale, self.bicubic, self.signed = scale, bicubic, signed

    def shifted(self, x: Tensor) -> Tensor:
        return x - 0.5 if self.signed else x

    def finished(self, x: Tensor, y: Tensor) -> Tensor:
        if self.bicubic:
            return y + F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        return y + 0.5 if self.signed else y


class Cell(nn.Module):
    """Two operations in series beside one, behind and before ADQ."""

    def __init__(self, space: SearchSpace, width: int, adq: bool, number: int):
        super().__init__()
        self.adq = ADQ(width, adq)
        self.body = nn.Sequential(
            *(space.choice(f"cell{number}/body{i}", width, width, BODY, tie=f"body{i}") for i in range(2))
        )
        self.skip = space.choice(f"cell{number}/skip", width, width, SKIP, tie="skip")

    def forward(self, x: Tensor) -> Tensor:
        inside = self.adq.inside(x)
        return self.adq.outside(x, self.body(inside) + self.skip(inside))


class Basic(_Ends):
    def __init__(
        self, space: SearchSpace, scale: int, width: int, cells: int, adq: bool, bicubic: bool, signed_ends: bool
    ):
        super().__init__(scale, bicubic, signed_ends)
        out = 3 * scale**2
        self.head = nn.Sequential(
            space.choice("head0", 3, width, HEAD, signed=signed_ends), space.choice("head1", width, width, HEAD)
        )
        self.outer = ADQ(width, adq)
        self.cells = nn.Sequential(*(Cell(space, width, adq, i) for i in range(cells)))
        self.upsample = space.choice("upsample", width, out, BODY)
        self.last = ADQ(3, adq)
        self.tail = nn.Sequential(
            space.choice("tail0", 3, width, TAIL, signed=signed_ends), space.choice("tail1", width, 3, TAIL)
        )

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(self.shifted(x))
        body = self.outer.outside(head, self.cells(self.outer.inside(head)))
        y = F.pixel_shuffle(self.upsample(body), self.scale)
        return self.finished(x, self.last.outside(y, self.tail(self.last.inside(y))))


def basic(
    space: SearchSpace, scale: int = 4, width: int = 36, cells: int = 3, adq: bool = True, bicubic: bool = False,
    signed_ends: bool = True,
) -> nn.Module:  # fmt: skip
    """The basic space: head, cells that decide alike, upsampling, tail at full size. width: a multiple of 3."""
    _check(scale, width, cells, 3)
    return Basic(space, scale, width, cells, adq, bicubic, signed_ends)


class Attention(nn.Module):
    """Enhanced spatial attention of RFDN, at 8 bits, not searched. Sides are at least 16."""

    def __init__(self, space: SearchSpace, width: int):
        super().__init__()
        f = width // 4
        self.enter, self.reduce = space.fixed(width, f, 1), space.fixed(f, f, 3, stride=2, padded=False)
        self.deep = nn.Sequential(*(space.fixed(f, f, 3) for _ in range(3)))
        self.beside, self.leave = space.fixed(f, f, 1), space.fixed(f, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = self.enter(x)
        v = F.max_pool2d(self.reduce(u), 7, 3)
        v = F.interpolate(self.deep(v), x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.leave(v + self.beside(u)))


class DistillationCell(nn.Module):
    """Three pairs of a distilled and a refined branch, fused, with attention."""

    def __init__(self, space: SearchSpace, width: int, adq: bool, number: int):
        super().__init__()
        name, half = f"cell{number}", width // 2
        self.adq = ADQ(width, adq)
        self.skips = nn.ModuleList(space.choice(f"{name}/skip{j}", width, half, RFDN_BODY) for j in range(3))
        self.bodies = nn.ModuleList(space.choice(f"{name}/body{j}", width, width, RFDN_BODY) for j in range(3))
        self.deepest = space.choice(f"{name}/body3", width, half, RFDN_BODY)
        self.fuse, self.attention = space.fixed(4 * half, width, 1), Attention(space, width)

    def forward(self, x: Tensor) -> Tensor:
        z, distilled = self.adq.inside(x), []
        for skip, body in zip(self.skips, self.bodies, strict=True):
            distilled.append(skip(z))
            z = z + body(z)
        distilled.append(self.deepest(z))
        return self.adq.outside(x, self.attention(self.fuse(torch.cat(distilled, 1))))


class Rfdn(_Ends):
    def __init__(
        self, space: SearchSpace, scale: int, width: int, cells: int, adq: bool, bicubic: bool, signed_ends: bool
    ):
        super().__init__(scale, bicubic, signed_ends)
        self.repeats = width // 3
        self.cells = nn.ModuleList(DistillationCell(space, width, adq, i) for i in range(cells))
        self.join = nn.Sequential(space.fixed(cells * width, width, 1), space.fixed(width, width, 3))
        self.upsample = space.choice("upsample", width, 3 * scale**2, RFDN_BODY)
        self.tail = space.choice("tail", 3, 3, RFDN_TAIL, signed=signed_ends)

    def forward(self, x: Tensor) -> Tensor:
        first = z = self.shifted(x).repeat_interleave(self.repeats, 1)
        outputs = []
        for cell in self.cells:
            z = cell(z)
            outputs.append(z)
        y = F.pixel_shuffle(self.upsample(self.join(torch.cat(outputs, 1)) + first), self.scale)
        return self.finished(x, y + self.tail(y))


def rfdn(
    space: SearchSpace, scale: int = 4, width: int = 48, cells: int = 4, adq: bool = True, bicubic: bool = False,
    signed_ends: bool = True,
) -> nn.Module:  # fmt: skip
    """The RFDN-like space: cells that decide for themselves, distillation, attention. width: a multiple of 12."""
    _check(scale, width, cells, 12)
    return Rfdn(space, scale, width, cells, adq, bicubic, signed_ends)
