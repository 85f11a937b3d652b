"""The synthesis transform of our codec as a space: every block of g_s has a choice of block and bit-width.

(y_hat in steps, Psi, QPs) to a picture in -1..1: codec.network.g_s, whose trained weights `load` puts into every
candidate that can take them. Not searched are the prediction of the latent residual, of which little is left in the
picture, and upsampling and head, through which the picture itself goes: with 8 bits everywhere 0.75 dB are lost at QP
48, with 12 at these two 0.11, with 10 for their weights and few for the prediction 0.13 (crops of photos, not trained).
(Our choice throughout.)
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.bundle import Bundle
from codec.config import QPS, Config
from nas.cost import rule
from nas.layers import QConv2d, State
from nas.quantizers import Bits
from nas.space import MixedOp, SearchSpace

PREDICTION, ENDS = (4, 6), (10, 12)  # bits of weights and activations


def _gated(u: Tensor, v: Tensor) -> Tensor:
    return u * (F.hardtanh(v, -4, 4) * 0.125 + 0.5)


class Block(nn.Module):
    """codec.network's token-mixing block: a depthwise kernel x kernel between 1x1, or nothing for kernel 0, then a
    gated MLP of `hidden` times the channels. It keeps its residual paths."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bits: tuple[Bits, ...],
        state: State,
        quantizer: str,
        kernel: int,
        hidden: float,
    ):
        super().__init__()
        if inputs != outputs:
            raise ValueError(f"a block keeps its channels: {inputs} -> {outputs}")
        c, m = inputs, int(hidden * inputs)
        self.kernel, self.hidden = kernel, m

        def conv(a: int, b: int, k: int = 1, groups: int = 1) -> QConv2d:
            return QConv2d(a, b, (k, k), groups, bits, state, True, quantizer, bias=True, balanced=True)

        if kernel:
            self.enter, self.spread, self.leave = conv(c, c), conv(c, c, kernel, c), conv(c, c)
        self.gate, self.back = conv(c, 2 * m), conv(m, c)

    def forward(self, x: Tensor, shares: Tensor | None = None) -> Tensor:
        if self.kernel:
            t = self.enter(x, shares)
            x = x + self.leave(self.spread(_gated(t, t), shares), shares)
        u, v = self.gate(x, shares).chunk(2, 1)
        return x + self.back(_gated(u, v), shares)


OWN = {
    "mixing5": partial(Block, kernel=5, hidden=1.5), "mixing3": partial(Block, kernel=3, hidden=1.5),
    "slim5": partial(Block, kernel=5, hidden=0.75), "mlp": partial(Block, kernel=0, hidden=1.5),
}  # fmt: skip


def _shuffle(x: Tensor, r: int) -> Tensor:
    """Channels ordered (row, column, channel) become blocks of r x r positions."""
    b, c, h, w = x.shape
    return x.view(b, r, r, c // r // r, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // r // r, h * r, w * r)


class Synthesis(nn.Module):
    def __init__(self, space: SearchSpace, cfg: Config):
        super().__init__()
        c, n = cfg.latents, cfg.width
        fixed = partial(space.fixed, kernel=1, signed=True, bias=True, balanced=True)
        self.lrp = nn.ModuleList(fixed(inputs, c, bits=PREDICTION) for inputs in (cfg.features + c, c))
        self.sixteenth = nn.ModuleList(space.choice(f"sixteenth{i}", c, c) for i in range(cfg.synthesis[0]))
        self.up = fixed(c, 4 * n, bits=ENDS)
        self.eighth = nn.ModuleList(space.choice(f"eighth{i}", n, n) for i in range(cfg.synthesis[1] - 1))
        self.last, self.head = space.choice("last", n, n), fixed(n, 192, bits=ENDS)
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


def synthesis_space(bits: tuple[Bits, ...] = (4, 8), ops: tuple[str, ...] = tuple(OWN)) -> SearchSpace:
    """A space whose operations are blocks of g_s; its options say what is not searched."""
    options = {"prediction": list(PREDICTION), "ends": list(ENDS)}
    return SearchSpace(bits, ops, name="codec-synthesis", options=options, own=OWN)


@torch.no_grad()
def load(model: Synthesis, bundle: Bundle) -> None:
    """The bundle's g_s into every candidate: a smaller kernel takes the middle of the taps, a slim MLP the units whose
    way out is largest."""
    a = {n: torch.from_numpy(v).float() for n, v in bundle.part("float").items() if n.startswith(("g_s/", "y/"))}

    def put(conv: QConv2d, name: str, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
        w, b = a[f"{name}/weight"], a[f"{name}/bias"]
        w, b = (w, b) if rows is None else (w[rows], b[rows])
        w = w if columns is None else w[:, columns]
        conv.weight.copy_(w.view(conv.weight.shape))
        assert conv.bias is not None
        conv.bias.copy_(b)

    def put_block(block: Block, name: str) -> None:
        if block.kernel:
            put(block.enter, f"{name}/in")
            put(block.leave, f"{name}/out")
            edge = (5 - block.kernel) // 2
            taps = a[f"{name}/mix/weight"].view(-1, 1, 5, 5)[:, :, edge : 5 - edge, edge : 5 - edge]
            block.spread.weight.copy_(taps)
            assert block.spread.bias is not None
            block.spread.bias.copy_(a[f"{name}/mix/bias"])
        units = a[f"{name}/back/weight"].shape[1]
        best = a[f"{name}/back/weight"].norm(dim=0).argsort(descending=True)[: block.hidden].sort().values
        put(block.gate, f"{name}/gate", torch.cat((best, best + units)))
        put(block.back, f"{name}/back", columns=best)

    def put_position(m: nn.Module, name: str) -> None:
        for block in m.ops if isinstance(m, MixedOp) else (m,):
            assert isinstance(block, Block)
            put_block(block, name)

    for conv, name in ((model.lrp[0], "lrp/0"), (model.lrp[1], "lrp/1"), (model.up, "up"), (model.head, "head")):
        put(conv, f"g_s/{name}")
    for stage in ("sixteenth", "eighth"):
        for i, m in enumerate(getattr(model, stage)):
            put_position(m, f"g_s/{stage}/{i}")
    put_position(model.last, "g_s/last")
    model.reconstruct.copy_(a["y/reconstruct"])
    model.gain.copy_(a["g_s/gain"])
    model.deviation.copy_(a["y/deviation"])
