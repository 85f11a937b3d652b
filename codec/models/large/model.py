"""MLICv2 (arXiv 2504.19119) and MLIC++ (arXiv 2307.15421) at full size: the second is a setting of the first.

What the papers leave open are the fields of `Options`, each with our default. The coding loop is codec.coding's.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cpp_ext
from codec.coding import HYPER, code_latents
from codec.models.large import coding, contexts
from codec.models.large.bottleneck import LEAST_SCALE, Bottleneck, gaussian_likelihood
from codec.models.large.contexts import anchor_mask
from codec.models.large.layers import Down, Residual, TokenMixing, Up, conv, lower_bound, subpixel
from codec.models.ops import multiplies_bfloat16

__all__ = ["MLIC", "Options"]


@dataclass(frozen=True)
class Options:
    """Widths, and every question that the papers leave open, with our default."""

    name: str = "mlicv2-l"
    version: int = 0
    hidden: int = 192  # N
    latents: int = 320  # M
    slices: int = 10
    mixing: int = 2  # token-mixing blocks per stage; 0: one residual block, as MLIC++ has
    guided: bool = True  # hyperprior-guided global context for slice 0
    guided_anchors: bool = (
        False  # also to the anchors of slice 0, from the hyperprior alone (a reading of section 3.4.1)
    )
    reweighted: tuple[str, ...] = ("intra", "inter", "local", "channel")  # "within each context"
    rotary: tuple[str, ...] = ("local", "intra", "inter")  # attentions with rotary positions
    heads: tuple[int, ...] = field(default=(320, 256, 128))  # hidden widths of the parameter nets
    packed: bool = True  # local context and parameter nets only where they count (ours); MLIC++ takes the whole grid
    selective: bool = True  # a net that says which symbols are worth coding, used once `selecting` is set

    @property
    def slice(self) -> int:
        """Channels of a slice."""
        return self.latents // self.slices


OPTIONS = {
    o.name: o
    for o in (
        Options(),
        Options("mlicpp", mixing=0, guided=False, reweighted=(), rotary=(), packed=False, selective=False),
        # For tests: every mechanism, hardly any weights.
        Options("mlicv2-l-tiny", hidden=16, latents=24, slices=3, mixing=1, guided_anchors=True,
                heads=(16, 16)),
    )
}  # fmt: skip


def _stage(o: Options, c: int) -> nn.Module:
    return nn.Sequential(*(TokenMixing(c) for _ in range(o.mixing))) if o.mixing else Residual(c)


def _last(x: Tensor) -> Tensor:
    """Channels last in memory, and so all that follows: a sixth faster on CPUs."""
    return x.contiguous(memory_format=torch.channels_last)


def _pointwise(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [conv(c_in, c_out, 1), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class Residue(nn.Module):
    """Latent residual prediction: what the quantizer took, as far as it can be told; within half a step."""

    def __init__(self, c_in: int, c: int):
        super().__init__()
        self.main = nn.Sequential(conv(c_in, 7 * c), nn.GELU(), conv(7 * c, 4 * c), nn.GELU(), conv(4 * c, c))

    def forward(self, *seen: Tensor) -> Tensor:
        return 0.5 * self.main(torch.cat(seen, 1)).tanh()


class Psi(NamedTuple):
    """What the hyperprior tells: on the whole grid, and packed."""

    whole: Tensor
    anchors: Tensor
    others: Tensor


class Shared(NamedTuple):
    """What both passes of a slice see: the hyperprior, and contexts of the slices before on the whole grid."""

    psi: Psi
    contexts: list[Tensor]


class MLIC(nn.Module):
    """Pictures (batch, 3, height, width) in 0..1, sides multiples of 64 -> {"x_hat", "likelihoods": {"y", "z"}}.

    With `selecting` also "selection": logits of each pass, and whether its symbols are other than zero.
    """

    def __init__(self, options: Options):
        super().__init__()
        o = self.options = options
        n, m, c = o.hidden, o.latents, o.slice
        down = [layer for c_in in (3, n, n) for layer in (Down(c_in, n), _stage(o, n))]
        self.g_a = nn.Sequential(*down, conv(n, m, stride=2))
        up = [layer for c_in in (m, n, n) for layer in (_stage(o, c_in), Up(c_in, n))]
        self.g_s = nn.Sequential(*up, _stage(o, n), subpixel(n, 3))
        self.h_a = nn.Sequential(conv(m, n), nn.GELU(), conv(n, n), nn.GELU(), conv(n, n, stride=2), nn.GELU(),
                                 conv(n, n), nn.GELU(), conv(n, n, stride=2))  # fmt: skip
        self.h_s = nn.Sequential(conv(n, m), nn.GELU(), subpixel(m, m), nn.GELU(), conv(m, 3 * m // 2), nn.GELU(),
                                 subpixel(3 * m // 2, 3 * m // 2), nn.GELU(), conv(3 * m // 2, 2 * m))  # fmt: skip
        self.entropy_bottleneck = Bottleneck(n)
        self.slices = o.slices
        self.banks: dict[str, cpp_ext.TableBank] = {}  # see update

        def each(make: Any, first: int = 0) -> nn.ModuleDict:
            return nn.ModuleDict({str(i): make(i) for i in range(first, o.slices)})

        def reweighted(name: str, width: int, first: int) -> nn.ModuleDict:
            return each(lambda i: contexts.Reweighting(width), first) if name in o.reweighted else nn.ModuleDict()

        self.channel = each(lambda i: contexts.channel_context(i * c, c), 1)
        self.local = each(lambda i: contexts.LocalContext(c, "local" in o.rotary, o.packed))
        self.inter = each(lambda i: contexts.InterContext(i, c, "inter" in o.rotary), 1)
        self.intra = each(lambda i: contexts.IntraContext(c, c, "intra" in o.rotary), 1)
        if o.guided:
            self.intra["0"] = contexts.IntraContext(2 * m, c, "intra" in o.rotary)
        if o.guided_anchors:
            self.hyper_context = contexts.HyperContext(m, c)
        first = 0 if o.guided else 1
        widths = {"channel": (4 * c, 1), "local": (2 * c, 0), "inter": (2 * c, 1), "intra": (2 * c, first)}
        self.reweighting = nn.ModuleDict({name: reweighted(name, *args) for name, args in widths.items()})

        def head(i: int, anchors: bool) -> nn.Sequential:
            width = 2 * m + (6 * c if i else 2 * c * (anchors and o.guided_anchors))  # Psi; channel and inter
            if not anchors:
                width += 2 * c + (2 * c if i or o.guided else 0)  # local, intra
            return _pointwise((width, *o.heads, 2 * c))

        self.head_anchor, self.head_other = each(lambda i: head(i, True)), each(lambda i: head(i, False))
        if o.selective:
            self.selection = each(lambda i: contexts.Selection(2 * m, c))
        self.selecting = False  # an untrained net would skip at random
        self.half = False  # transforms in bfloat16, for GPUs
        self.rounded = True  # outside of training the entropy part multiplies bfloat16, where a processor does
        self.selected: list[Tensor] = []  # logits of the last forward pass, pass by pass
        self.residue_anchor, self.residue_other = (each(lambda i: Residue(m + (i + 1) * c, c)) for _ in range(2))

    # -- what the coding loop asks for ------------------------------------------------------------------------------
    def z_parameters(self, qp: Any) -> tuple[Tensor, Tensor]:
        median = self.entropy_bottleneck.medians()
        return median, median  # the bottleneck knows its own scales

    def hyper(self, z_hat: Tensor, qp: Any) -> Psi:
        psi = self.h_s(z_hat)
        return Psi(psi, contexts.pack(psi, anchors=True), contexts.pack(psi, anchors=False))

    def _reweighted(self, name: str, i: int, x: Tensor) -> Tensor:
        found = self.reweighting[name]
        return found[str(i)](x) if str(i) in found else x

    def anchors(self, i: int, psi: Psi, before: Tensor | None, qp: Any) -> tuple[Shared, Tensor, Tensor, Tensor]:
        """(what both passes share; the slices before; means; deviations, 0 where no symbol is coded)

        The first two on the whole grid, the others on their half of it.
        """
        if before is None:
            shared = Shared(psi, [])
            seen = [self.hyper_context(psi.whole)] if self.options.guided_anchors else []
            before = psi.whole[:, :0]
        else:
            inter = self._reweighted("inter", i, self.inter[str(i)](before))
            channel = self._reweighted("channel", i, self.channel[str(i)](before))
            shared = Shared(psi, [inter, channel])
            seen = shared.contexts
        return shared, before, *self._gaussians(i, seen, psi, anchors=True)

    def others(self, i: int, shared: Shared, before: Tensor, anchor: Tensor, qp: Any) -> tuple[Tensor, Tensor]:
        seen = [self._reweighted("local", i, self.local[str(i)](anchor))]
        if str(i) in self.intra:
            guide = before[:, -self.options.slice :] if i else shared.psi.whole
            seen.append(self._reweighted("intra", i, self.intra[str(i)](guide, anchor)))
        return self._gaussians(i, seen + shared.contexts, shared.psi, anchors=False)

    def _gaussians(self, i: int, seen: list[Tensor], psi: Psi, anchors: bool) -> tuple[Tensor, Tensor]:
        """Means and deviations of a pass, packed: 1x1 convolutions need no more than their half of the grid."""
        head = (self.head_anchor if anchors else self.head_other)[str(i)]
        if self.options.packed:
            half = psi.anchors if anchors else psi.others
            found = head(torch.cat((*(contexts.pack(t, anchors) for t in seen), half), 1))
        else:
            found = contexts.pack(head(torch.cat((*seen, psi.whole), 1)), anchors)
        scale, mean = found.float().chunk(2, 1)
        scale = lower_bound(scale, LEAST_SCALE)
        if self.selecting:
            logits = self.selection[str(i)](psi.whole, mean, scale, anchors)
            self.selected.append(logits)
            chosen = logits.sigmoid()
            scale = scale * (chosen + ((chosen >= 0.5).to(chosen) - chosen).detach())
        return mean, scale

    def place(self, coded: Tensor, known: Tensor | None, i: int, shared: Shared, before: Tensor) -> Tensor:
        """On the whole grid, corrected by latent residual prediction, which sees the slice as far as it is known."""
        anchors = known is None
        grid = contexts.unpack(coded, anchors)
        now = grid if known is None else known + grid
        net = (self.residue_anchor if anchors else self.residue_other)[str(i)]
        psi_mean = shared.psi.whole[:, -self.options.latents :]
        return now + net(psi_mean, before, now) * (anchor_mask(now) == anchors)

    def join(self, slices: list[Tensor]) -> Tensor | None:
        return torch.cat(slices, 1) if slices else None

    # -- training and rate ------------------------------------------------------------------------------------------
    def forward(self, x: Tensor) -> dict[str, Any]:
        """Raises ValueError for sides that are no multiples of 64."""
        if x.shape[-1] % 64 or x.shape[-2] % 64:
            raise ValueError(f"sides must be multiples of 64, this is {x.shape[-1]}x{x.shape[-2]}")
        self.selected = []
        transforms = torch.autocast(x.device.type, torch.bfloat16) if self.half else nullcontext()
        with transforms:
            y = self.g_a(_last(x)).float()
        y_hat, _ = self.code(mode := Likelihoods(self, y, self.h_a(y)))
        with transforms:
            x_hat = self.g_s(y_hat).float()
        out = {"x_hat": x_hat, "likelihoods": mode.found()}
        return out | ({"selection": (self.selected, mode.targets)} if self.selecting else {})

    # -- files ------------------------------------------------------------------------------------------------------
    def update(self, scale_table: Any = None, force: bool = False) -> bool:
        """Make the entropy coder's tables from the weights. True, as CompressAI's; the arguments say nothing."""
        self.banks = {"y": coding.y_bank(), "z": coding.z_bank(self)}
        return True

    def code(self, mode: Any) -> tuple[Tensor, Psi]:
        """Run the coding loop: y_hat and Psi. Outside of training products are of bfloat16 where that is faster.

        That was measured to cost 0.03 % of the rate, in a small one trained for 700 steps.
        """
        device = self.entropy_bottleneck.quantiles.device.type
        rounds = self.rounded and not self.training and multiplies_bfloat16(device)
        with torch.autocast(device, torch.bfloat16) if rounds else nullcontext():
            return code_latents(self, mode, None)

    @torch.inference_mode()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """One picture -> {"strings": [[y], [z]], "shape": size of z}. Raises ValueError for more, or without tables."""
        if len(x) != 1 or not self.banks:
            raise ValueError("compress takes one picture, after update()")
        y = self.g_a(_last(x))
        z = self.h_a(y)
        mode = coding.Encode(self, y, z)
        self.code(mode)
        return {"strings": [[s] for s in mode.strings()], "shape": tuple(z.shape[-2:])}

    @torch.inference_mode()
    def decompress(self, strings: list[list[bytes]], shape: tuple[int, int]) -> dict[str, Tensor]:
        """What compress made -> {"x_hat"} in 0..1. Raises cpp_ext.CorruptStream."""
        if not self.banks:
            raise ValueError("decompress comes after update()")
        mode = coding.Decode(self, [s for (s,) in strings], (shape[0], shape[1]))
        y_hat, _ = self.code(mode)
        mode.finish()
        return {"x_hat": self.g_s(y_hat).clamp(0, 1)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor], options: Options | None = None) -> MLIC:
        """Weights of a network of these options, by default mlicv2-l. Raises RuntimeError for those of another one."""
        model = cls(options or OPTIONS["mlicv2-l"])
        model.load_state_dict(state)
        return model

    def aux_loss(self) -> Tensor:
        """Of the quantiles of z, for an optimizer of its own."""
        return self.entropy_bottleneck.loss()


class Likelihoods:
    """The mode of codec.coding that counts: straight-through rounding, in training the rate of noisy values."""

    def __init__(self, model: MLIC, y: Tensor, z: Tensor):
        self.model, self.y, self.z = model, y, z
        self.likelihoods: dict[str, list[Tensor]] = {"y": [], "z": []}
        self.targets: list[Tensor] = []  # whether a symbol of y is other than zero

    def code(self, i: int, half: int, mean: Tensor, scale: Tensor) -> Tensor:
        noisy = self.model.training
        if i == HYPER:
            v = self.z - mean
            rounded = v + (v.round() - v).detach()
            rated = self.z + torch.rand_like(v) - 0.5 if noisy else rounded + mean
            self.likelihoods["z"].append(self.model.entropy_bottleneck.likelihood(rated))
            return rounded + mean
        c = self.model.options.slice
        v = contexts.pack(self.y[:, i * c : (i + 1) * c], anchors=half == 0) - mean
        rounded = v + (v.round() - v).detach()
        rated = v + torch.rand_like(v) - 0.5 if noisy else rounded
        coded = scale / scale.clamp(min=LEAST_SCALE)  # 1, or 0 where the symbol is not worth coding
        self.targets.append((rounded != 0).detach())
        self.likelihoods["y"].append(gaussian_likelihood(rated, scale) ** coded)
        return rounded * coded + mean

    def found(self) -> dict[str, Tensor]:
        """In CompressAI's form; the order of y's symbols is that of coding."""
        return {name: torch.cat([t.flatten(1) for t in parts], 1) for name, parts in self.likelihoods.items()}
