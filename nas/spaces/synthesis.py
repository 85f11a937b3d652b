"""The synthesis transform of our codec as a space: every convolution of g_s has a choice of bit-widths, a depthwise one
of kernels too.

(y_hat in steps, Psi, QPs) to a picture in -1..1: codec.network.g_s, whose trained weights `load` puts into every
candidate. Convolutions choose for themselves, as what they lose by rounding differs by four orders of magnitude: with 4
bits for the weights of the head alone the picture is off by 17 times the codec's squared error, of upsampling by 0.66,
of the last MLP's first half by 0.03, of any convolution at a sixteenth of the size, which are a third of all work, by
0.0015 and less (measured on crops of photos, not trained). Blocks with half of the hidden units lost more than bits do:
0.19 after 200 steps of training at 5 bits, where whole ones had 0.06 at 4. (Our choice throughout.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.bundle import Bundle
from codec.config import QPS, Config
from nas.cost import rule
from nas.layers import QConv2d, State
from nas.quantizers import Bits
from nas.space import SearchSpace


def _gated(u: Tensor, v: Tensor) -> Tensor:
    return u * (F.hardtanh(v, -4, 4) * 0.125 + 0.5)


def _conv(
    inputs: int, outputs: int, bits: tuple[Bits, ...], state: State, quantizer: str, kernel: int = 1
) -> QConv2d:  # fmt: skip
    """1x1 with a scale for each position of what it sees, or depthwise."""
    groups = inputs if kernel > 1 else 1
    return QConv2d(
        inputs, outputs, (kernel, kernel), groups, bits, state, True, quantizer, bias=True, balanced=True,
        rowwise=kernel == 1,
    )  # fmt: skip


OWN: dict[str, Callable[..., nn.Module]] = {
    "point": _conv, "depthwise5": partial(_conv, kernel=5), "depthwise3": partial(_conv, kernel=3),
}  # fmt: skip
POINT, DEPTHWISE = ("point",), ("depthwise5", "depthwise3")


def offered(position: str) -> tuple[str, ...]:
    """The operations at a position, by its name."""
    return DEPTHWISE if position.endswith("/mix") else POINT


class Block(nn.Module):
    """codec.network's token-mixing block: a depthwise convolution between 1x1, then a gated MLP. It keeps its residual
    paths."""

    def __init__(self, space: SearchSpace, name: str, channels: int, hidden: int):
        super().__init__()
        c = channels
        self.enter, self.leave = space.choice(f"{name}/in", c, c), space.choice(f"{name}/out", c, c)
        self.spread = space.choice(f"{name}/mix", c, c, offered(f"{name}/mix"))
        self.gate, self.back = space.choice(f"{name}/gate", c, 2 * hidden), space.choice(f"{name}/back", hidden, c)

    def forward(self, x: Tensor) -> Tensor:
        t = self.enter(x)
        x = x + self.leave(self.spread(_gated(t, t)))
        u, v = self.gate(x).chunk(2, 1)
        return x + self.back(_gated(u, v))


def _shuffle(x: Tensor, r: int) -> Tensor:
    """Channels ordered (row, column, channel) become blocks of r x r positions."""
    b, c, h, w = x.shape
    return x.view(b, r, r, c // r // r, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // r // r, h * r, w * r)


def _hidden(channels: int) -> int:
    return channels * 3 // 2


class Synthesis(nn.Module):
    """Positions are named as the layers of codec.network."""

    def __init__(self, space: SearchSpace, cfg: Config):
        super().__init__()
        c, n = cfg.latents, cfg.width
        whole = 0 if space.options.get("sixteenth") == "left out" else cfg.synthesis[0]
        self.lrp = nn.ModuleList(space.choice(f"lrp/{i}", inputs, c) for i, inputs in enumerate((cfg.features + c, c)))
        self.sixteenth = nn.ModuleList(Block(space, f"sixteenth/{i}", c, _hidden(c)) for i in range(whole))
        self.up = space.choice("up", c, 4 * n)
        self.eighth = nn.ModuleList(Block(space, f"eighth/{i}", n, _hidden(n)) for i in range(cfg.synthesis[1] - 1))
        self.last, self.head = Block(space, "last", n, _hidden(n)), space.choice("head", n, 192)
        self.reconstruct, self.gain = nn.Parameter(torch.ones(QPS, c)), nn.Parameter(torch.ones(QPS, n))
        self.register_buffer("deviation", torch.ones(c))

    def forward(self, y_hat: Tensor, psi: Tensor, qp: Tensor) -> Tensor:
        """(batch, latents, h, w), (batch, features, h, w), int64 (batch,) -> (batch, 3, 16 h, 16 w)."""
        steps = self.reconstruct[qp][:, :, None, None]
        standard = y_hat * steps / self.deviation[:, None, None]
        r = self.lrp[0](torch.cat((psi, standard), 1))
        x = (y_hat + 0.5 * torch.tanh(self.lrp[1](_gated(r, r)))) * steps
        for block in self.sixteenth:
            x = block(x)
        x = _shuffle(self.up(x), 2)
        for block in self.eighth:
            x = block(x)
        x = self.last(x * self.gain[qp][:, :, None, None])
        return _shuffle(self.head(x), 8)


rule(Synthesis, lambda *_: None)  # gains: elementwise, as norms are


# Of weights and activations: some that are best for their work, by what rounding loses.
LADDER: tuple[Bits, ...] = (
    (2, 4), (3, 5), (4, 5), (4, 6), (4, 7), (5, 6), (5, 7), 6, (6, 7), (6, 8), 7, (7, 8), (8, 9), (9, 10), (11, 10)
)  # fmt: skip


def synthesis_space(bits: tuple[Bits, ...] = LADDER, whole: bool = True) -> SearchSpace:
    """A space whose operations are the convolutions of g_s. whole: with the blocks at a sixteenth of the size, which
    are 29 % of the work; without them what the shipped one draws is off by 0.0005 of its squared error."""
    options = {"choices": "convolutions"} | ({} if whole else {"sixteenth": "left out"})
    return SearchSpace(bits, POINT, name="codec-synthesis", options=options, own=OWN)


@torch.no_grad()
def load(model: Synthesis, bundle: Bundle) -> None:
    """The bundle's g_s into every candidate: a smaller kernel takes the middle of the taps."""
    a = {n: torch.from_numpy(v).float() for n, v in bundle.part("float").items() if n.startswith(("g_s/", "y/"))}
    parts = {"enter": "in", "spread": "mix", "leave": "out"}  # the others have the bundle's names
    for path, m in model.named_modules():
        if not isinstance(m, QConv2d):
            continue
        names = [parts.get(n, n) for n in path.partition(".ops")[0].split(".")]
        w, b = a[f"g_s/{'/'.join(names)}/weight"], a[f"g_s/{'/'.join(names)}/bias"]
        if m.groups > 1:
            edge = (5 - m.kernel[0]) // 2
            w = w.view(-1, 1, 5, 5)[:, :, edge : 5 - edge, edge : 5 - edge]
        m.weight.copy_(w.view(m.weight.shape))
        assert m.bias is not None
        m.bias.copy_(b)
    model.reconstruct.copy_(a["y/reconstruct"])
    model.gain.copy_(a["g_s/gain"])
    model.deviation.copy_(a["y/deviation"])
