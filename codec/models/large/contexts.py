"""References of the entropy model: channel, local, three kinds of global context; reweighting, rotary positions.

Tensors are (batch, channels, height, width) on the whole latent grid. Anchors are where row + column is odd.
Sources: MLIC++ (arXiv 2307.15421) for channel, local, intra- and inter-slice contexts; MLICv2 (arXiv 2504.19119) for
the hyperprior-guided context of slice 0 (section 3.4.1), reweighting (3.4.2) and rotary positions (3.4.3). Where the
paper is silent, what stands here is our default, and `Options` names the choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.models.large.layers import ChannelNorm, Gate, conv, depthwise

WINDOW = 5
BAND = 8  # rows whose windows are looked at together: few enough to stay near
HEADS = 2  # of local, intra-slice and hyperprior-guided attention
BASE = 10000.0  # of rotary positions, at first


def anchor_mask(like: Tensor) -> Tensor:
    """True where row + column is odd, (height, width). Made anew for each picture: a kept one would go stale."""
    rows, columns = (torch.arange(n, device=like.device) for n in like.shape[-2:])
    return (rows[:, None] + columns) % 2 == 1


def pack(x: Tensor, anchors: bool) -> Tensor:
    """Half a checkerboard, (batch, channels, height, width / 2): of each row the columns that belong to it."""
    b, c, h, w = x.shape
    pairs = x.reshape(b, c, h // 2, 2, w // 2, 2)
    even, odd = (1, 0) if anchors else (0, 1)
    return torch.stack((pairs[:, :, :, 0, :, even], pairs[:, :, :, 1, :, odd]), 3).reshape(b, c, h, w // 2)


def unpack(x: Tensor, anchors: bool) -> Tensor:
    """Inverse of pack, zero elsewhere."""
    b, c, h, w = x.shape
    rows, zero = x.reshape(b, c, h // 2, 2, w), x.new_zeros(b, c, h // 2, w)
    top, bottom = rows[:, :, :, 0], rows[:, :, :, 1]
    top = torch.stack((zero, top) if anchors else (top, zero), -1)
    bottom = torch.stack((bottom, zero) if anchors else (zero, bottom), -1)
    return torch.stack((top, bottom), 3).reshape(b, c, h, 2 * w)


class Rotary(nn.Module):
    """Two-dimensional rotary positions with learned bases (equations 9 and 10; pairs and signs are our choice)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.full((2,), BASE))  # of columns, of rows

    def forward(self, x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        """x (..., channels, positions), rotated in pairs of channels by the positions' (positions,) coordinates."""
        pairs = x.shape[-2] // 2
        exponent = -torch.arange(pairs, device=x.device) / pairs
        bases = self.base.clamp(min=1)
        angle = torch.outer(bases[0] ** exponent, columns.float()) + torch.outer(bases[1] ** exponent, rows.float())
        even, odd = x[..., 0::2, :], x[..., 1::2, :]
        cos, sin = angle.cos(), angle.sin()
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -2).flatten(-3, -2)


def grid(h: int, w: int) -> Tensor:
    """Columns and rows of every position, (2, height, width)."""
    return torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"))


def channel_context(c_in: int, c_slice: int) -> nn.Sequential:
    """Slices before -> four times a slice's channels."""
    return nn.Sequential(
        conv(c_in, 6 * c_slice), nn.GELU(), conv(6 * c_slice, 4 * c_slice), nn.GELU(), conv(4 * c_slice, 4 * c_slice)
    )


def windows(x: Tensor, packed: bool) -> Tensor:
    """x with WINDOW // 2 more on every side -> the window around every position, or packed around the non-anchors,
    (batch, channels, places, positions)."""
    if packed:
        even, odd = (F.unfold(t, WINDOW, stride=2) for t in (x, x[:, :, 1:, 1:]))
        rows = (x.shape[2] - WINDOW + 1) // 2
        found = torch.stack([t.unflatten(2, (rows, -1)) for t in (even, odd)], 3)
    else:
        found = F.unfold(x, WINDOW)
    return found.reshape(*x.shape[:2], WINDOW * WINDOW, -1)


class LocalContext(nn.Module):
    """Anchors of a slice -> twice its channels at the others: attention inside the 5x5 window around each, to anchors.

    Packed it looks at no other window, and at a few rows at a time. Rotation of the whole grid is rotation inside every
    window, being relative.
    """

    def __init__(self, c: int, rotary: bool, packed: bool):
        super().__init__()
        self.packed = packed
        self.norm, self.qkv = nn.LayerNorm(c, 1e-5), nn.Linear(c, 3 * c)
        self.rotary = Rotary() if rotary else None
        self.bias = None if rotary else nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
        self.fuse = nn.Conv2d(c, 2 * c, WINDOW)
        self.proj = nn.Linear(2 * c, 2 * c)
        self.mlp = nn.Sequential(nn.LayerNorm(2 * c, 1e-5), nn.Linear(2 * c, 4 * c), nn.GELU(), nn.Linear(4 * c, 2 * c))

    def forward(self, anchors: Tensor) -> Tensor:
        b, c, h, w = anchors.shape
        tokens = self.qkv(self.norm(anchors.movedim(1, -1))).reshape(b, h * w, 3, HEADS, c // HEADS)
        q, k, v = tokens.permute(2, 0, 3, 4, 1)  # each (batch, head, channel, position)
        if self.rotary:
            at = grid(h, w).to(anchors.device).flatten(1)
            q, k = self.rotary(q, *at), self.rotary(k, *at)
        tokens = torch.cat((q * (c // HEADS) ** -0.5, k, v), 1).reshape(b, 3 * c, h, w)
        allowed = anchor_mask(anchors)[None, None].float()
        tokens, allowed = (F.pad(t, (WINDOW // 2,) * 4) for t in (tokens, allowed))  # nothing outside of the picture
        band = BAND if self.packed else h
        bands = [
            self._attend(*(t[:, :, row : row + band + WINDOW - 1] for t in (tokens, allowed)))
            for row in range(0, h, band)
        ]
        t = self.proj(F.linear(torch.cat(bands, 1), self.fuse.weight.flatten(1), self.fuse.bias))
        t = (t + self.mlp(t)).reshape(b, h, -1, 2 * c).movedim(-1, 1)
        return unpack(t, anchors=False) if self.packed else t * ~anchor_mask(anchors)

    def _attend(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """A band of rows with its surroundings -> (batch, windows, channels and places)."""
        b, c = len(tokens), tokens.shape[1] // 3
        seen = windows(tokens, self.packed).reshape(b, 3, HEADS, c // HEADS, WINDOW * WINDOW, -1)
        q, k, v = seen.permute(1, 0, 5, 2, 3, 4)  # each (batch, window, head, channel, place)
        known = windows(allowed, self.packed)[0, 0].T  # window, place
        both = known[:, :, None] * known[:, None, :]
        logits = q.transpose(-1, -2) @ k + ((both - 1) * 100)[:, None]
        if self.bias is not None:
            columns, rows = grid(WINDOW, WINDOW).flatten(1)
            across, down = (t[:, None] - t + WINDOW - 1 for t in (columns, rows))
            logits = logits + self.bias[down * (2 * WINDOW - 1) + across].movedim(-1, 0)
        return (v @ logits.softmax(-1).transpose(-1, -2)).flatten(2)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, rotate: tuple[Rotary, Tensor, Tensor] | None) -> Tensor:
    """q (batch, heads, channels, queries), k and v (batch, heads, channels, keys) -> as q.

    Softmax over the channels of each query and over the positions of each key channel: linear in positions. Rotation,
    where there is one, follows the softmaxes, so that it stays relative (our choice); rotate: it, and the coordinates
    (2, queries) and (2, keys), columns first.
    """
    q, k = q.softmax(-2), k.softmax(-1)
    if rotate:
        rotary, at_queries, at_keys = rotate
        q, k = rotary(q, *at_queries), rotary(k, *at_keys)
    return (v @ k.transpose(-1, -2)) @ q


def _projection(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, 1), depthwise(c_out, 3))


class _Mixer(nn.Module):
    """What follows attention: t + MLP(t) with a depthwise convolution inside, twice the slice's channels."""

    def __init__(self, c: int, c_out: int):
        super().__init__()
        self.mlp = nn.Sequential(
            conv(c, 2 * c_out, 1), nn.GELU(), depthwise(2 * c_out, 3), nn.GELU(), conv(2 * c_out, c_out, 1)
        )
        self.skip = conv(c, c_out, 1) if c != c_out else nn.Identity()

    def forward(self, t: Tensor) -> Tensor:
        return self.skip(t) + self.mlp(t)


class IntraContext(nn.Module):
    """Global context from a slice's anchors to its other positions, twice its channels.

    Where to look is taken from a guide that is known whole: the slice before, or for slice 0 the hyperprior.
    """

    def __init__(self, c_guide: int, c: int, rotary: bool):
        super().__init__()
        self.q, self.k, self.v = _projection(c_guide, c), _projection(c_guide, c), _projection(c, c)
        self.rotary = Rotary() if rotary else None
        self.fuse, self.mixer = conv(c, 2 * c, WINDOW), _Mixer(2 * c, 2 * c)

    def forward(self, guide: Tensor, anchors: Tensor) -> Tensor:
        mask = anchor_mask(guide)
        b, c, h, w = anchors.shape
        q = pack(self.q(guide * ~mask), anchors=False)
        k, v = pack(self.k(guide * mask), anchors=True), pack(self.v(anchors), anchors=True)
        rotate = None
        if self.rotary:
            at = grid(h, w)[None].to(guide.device)
            rotate = (self.rotary, *(pack(at, anchors=a)[0].flatten(1) for a in (False, True)))
        heads = [t.reshape(b, HEADS, c // HEADS, h * w // 2) for t in (q, k, v)]
        mixed = linear_attention(heads[0], heads[1], heads[2], rotate).reshape(b, c, h, w // 2)
        return self.mixer(self.fuse(unpack(mixed, anchors=False)))


class InterContext(nn.Module):
    """Global context from all slices before, a head for each of them; twice a slice's channels."""

    def __init__(self, slices: int, c: int, rotary: bool):
        super().__init__()
        d = slices * c
        self.heads = slices
        self.q, self.k, self.v = (_projection(d, d) for _ in range(3))
        self.rotary = Rotary() if rotary else None
        self.fuse, self.mixer = conv(d, 3 * c, WINDOW), _Mixer(3 * c, 2 * c)

    def forward(self, before: Tensor) -> Tensor:
        b, d, h, w = before.shape
        q, k, v = (p(before).reshape(b, self.heads, d // self.heads, h * w) for p in (self.q, self.k, self.v))
        rotate = None
        if self.rotary:
            at = grid(h, w).to(before.device).flatten(1)
            rotate = (self.rotary, at, at)
        return self.mixer(self.fuse(linear_attention(q, k, v, rotate).reshape(b, d, h, w)))


class Reweighting(nn.Module):
    """Attention among the channels of a captured context, and a gate (figure 5, equation 8; norms placed by us)."""

    def __init__(self, c: int):
        super().__init__()
        self.norm, self.qkv = ChannelNorm(c), conv(c, 3 * c, 1)
        self.out, self.out_norm, self.gate = conv(c, c, 1), ChannelNorm(c), Gate(c)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, 1)
        attention = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
        r = self.out_norm(self.out((attention @ v).reshape(x.shape)))
        return x + r + self.gate(r)


class HyperContext(nn.Module):
    """Slice 0's anchors, from the scale half of the hyperprior alone: attention between its two halves of the grid.

    A reading of section 3.4.1 that is an option here; off by default.
    """

    def __init__(self, m: int, c: int):
        super().__init__()
        self.m = m
        self.q, self.k, self.v = (_projection(m, c) for _ in range(3))
        self.fuse = nn.Sequential(conv(c, 2 * c), Gate(2 * c))

    def forward(self, psi: Tensor) -> Tensor:
        b, _, h, w = psi.shape
        q, k, v = (p(psi[:, : self.m]) for p in (self.q, self.k, self.v))
        c = q.shape[1]
        halves = []
        for anchors in (True, False):  # each half asks the other
            parts = pack(q, anchors), pack(k, not anchors), pack(v, not anchors)
            heads = [t.reshape(b, HEADS, c // HEADS, h * w // 2) for t in parts]
            mixed = linear_attention(heads[0], heads[1], heads[2], None)
            halves.append(unpack(mixed.reshape(b, c, h, w // 2), anchors))
        return self.fuse(halves[0] + halves[1])


class Selection(nn.Module):
    """Which symbols of a slice are worth coding: logits, from the hyperprior, means and deviations (section 3.4.4).

    Evidence for the shape of this net is thin; widths, the bias per pass and the start are ours: at first it is nearly
    the rule "deviation of at least 0.3", which the paper gives as its constant.
    """

    THRESHOLD, SLOPE = 0.3, 8.0

    def __init__(self, c_hyper: int, c: int):
        super().__init__()
        self.hyper = conv(c_hyper, c, 1)
        self.main = nn.Sequential(conv(4 * c, c), nn.GELU(), conv(c, c), nn.GELU(), conv(c, c, 1))
        self.slope, self.bias = nn.Parameter(torch.tensor(self.SLOPE)), nn.Parameter(torch.zeros(2))
        nn.init.zeros_(self.main[-1].weight)
        nn.init.zeros_(self.main[-1].bias)

    def forward(self, psi: Tensor, mean: Tensor, scale: Tensor, anchors: bool) -> Tensor:
        """mean and scale packed -> logits, packed."""
        guide = (scale >= self.THRESHOLD).to(scale)
        grid = unpack(torch.cat((scale, mean, guide), 1), anchors)
        logits = pack(self.main(torch.cat((self.hyper(psi), grid), 1)), anchors)
        return logits + self.slope * (scale - self.THRESHOLD) + self.bias[int(anchors)]
