"""Operations of codec.network in torch, on tensors of shape (batch, height, width, channels).

Four kinds of arithmetic: FLOAT (transforms), CLIP (entropy path early in training: ranges only), ROUND (the same with
weights and activations rounded, gradients straight through) and EXACT (inference: as ROUND, with the integer softmax).
Rounded values are real numbers, integers times a power of two; float32 carries them without error because the sums
stay below 2^24, and float64 does so in the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.network import BOUND, INDEX_PER_HEAD, NARROW, STEP, limits
from codec.tables import INDEX_STEP, LOG_SCALE_MIN, SCALES

Format = tuple[int, int]


BLOCK_LAYERS = ("in", "mix", "out", "gate", "back")


class Arithmetic(IntEnum):
    FLOAT, CLIP, ROUND, EXACT = range(4)


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether products of bfloat16 are faster there than those of float32, and not only emulated."""
    kind = torch.device(device).type
    return kind == "cuda" or (kind == "cpu" and torch.cpu._is_avx512_bf16_supported())


def fast_precision(device: str) -> str:
    """Of float32 matrix products, in torch's words: inputs rounded to TF32 on GPUs and to bfloat16 on CPUs that
    multiply such, sums in float32. Both hold the products of 8-bit integers exactly."""
    return "medium" if multiplies_bfloat16(device) else "high"  # to a GPU both are TF32


_precisions = ["highest"]  # inside of each other; torch does not always tell which one holds


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Matrix products in this precision, for all threads, until the end of the block."""
    _precisions.append(precision)
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        _precisions.pop()
        torch.set_float32_matmul_precision(_precisions[-1])


def rounded_products() -> bool:
    """Whether float32 products round their inputs to bfloat16."""
    return _precisions[-1] == "medium"


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2), straight through."""
    r = torch.floor(x + 0.5)
    return x + (r - x).detach() if x.requires_grad else r


def row_exponents(w: Tensor) -> Tensor:
    """Fractional bits per output row that fill int8: (rows, ...) -> (rows, 1, ...) float."""
    peak = w.detach().abs().flatten(1).amax(1).clamp(min=1e-9).reshape(-1, *[1] * (w.dim() - 1))
    return torch.floor(torch.log2(127.0 / peak)).clamp(0, 12)


def to_int8_rows(w: Tensor) -> Tensor:
    """Weights rounded to 8 bits with a power-of-two scale per output row."""
    s = torch.exp2(row_exponents(w))
    return round_half_up(w * s).clamp(-127, 127) / s


def to_mantissa(g: Tensor) -> Tensor:
    """Positive gains rounded to 8 significant bits."""
    s = torch.exp2(7 - torch.floor(torch.log2(g.detach())))
    return round_half_up(g * s) / s


class TorchOps:
    """params(name) gives a parameter or buffer; qp arguments are (batch, anchors) interpolation weights."""

    def __init__(self, params: Callable[[str], Tensor], arithmetic: Arithmetic):
        self.p, self.kind = params, arithmetic

    # -- number formats ---------------------------------------------------------------------------------------------
    def fix(self, x: Tensor, form: Format) -> Tensor:
        if self.kind == Arithmetic.FLOAT:
            return x
        x = F.hardtanh(x, *limits(form))
        return x if self.kind == Arithmetic.CLIP else round_half_up(x * 2.0 ** form[0]) * 2.0 ** -form[0]

    def narrow(self, x: Tensor) -> Tensor:
        return self.fix(x, NARROW)

    @property
    def rounds(self) -> bool:
        return self.kind >= Arithmetic.ROUND

    # -- layers -----------------------------------------------------------------------------------------------------
    def block(self, f: Callable[..., Tensor], x: Tensor, name: str) -> Tensor:
        """A token-mixing block."""
        if self.by_loops(x):
            from codec.models.mixing import TokenMixing

            arrays = [a for layer in BLOCK_LAYERS for a in self.weights(f"{name}/{layer}", True)]
            return TokenMixing.apply(int(self.kind), x, *arrays)
        return f(self, x, name)

    def by_loops(self, x: Tensor) -> bool:
        """Whether compiled loops take the place of torch's operators: when training."""
        here = x.is_cpu or (x.is_cuda and find_spec("triton") is not None)
        return here and torch.is_grad_enabled() and self.kind != Arithmetic.EXACT

    def channels(self, x: Tensor) -> int:
        return x.shape[-1]

    def weights(self, name: str, bias: bool) -> tuple[Tensor, Tensor | None]:
        w, b = self.p(f"{name}/weight"), self.p(f"{name}/bias") if bias else None
        if self.rounds:
            if b is not None:
                s = torch.exp2(row_exponents(w).flatten() + NARROW[0])
                b = round_half_up(b * s) / s
            w = to_int8_rows(w)
        return w, b

    def conv(self, x: Tensor, name: str, out: int, form: Format = NARROW, bias: bool = True) -> Tensor:
        return self.fix(F.linear(x, *self.weights(name, bias)), form)

    def depthwise(self, x: Tensor, name: str) -> Tensor:
        w, b = self.weights(name, True)
        if self.by_loops(x):
            from codec.models.mixing import Depthwise

            return Depthwise.apply(int(self.kind), x.contiguous(), w, b)
        y = F.conv2d(x.permute(0, 3, 1, 2), w.reshape(-1, 1, 5, 5), b, padding=2, groups=x.shape[-1])
        return self.narrow(y.permute(0, 2, 3, 1))

    def act(self, x: Tensor) -> Tensor:
        return self.gated(x, x)

    def gated(self, u: Tensor, v: Tensor) -> Tensor:
        """u times a hard sigmoid of v, which rises from 0 at -4 to 1 at 4."""
        return self.narrow(u * (F.hardtanh(v, -4, 4) * 0.125 + 0.5))

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self.fix(a + b, (8, 16))

    def concat(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, -1)

    def split(self, x: Tensor, at: int) -> tuple[Tensor, Tensor]:
        return x[..., :at], x[..., at:]

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(x, x.shape[-1] // 2)

    def unshuffle(self, x: Tensor, r: int) -> Tensor:
        """Blocks of r x r positions become channels, ordered (row, column, channel) as in ONNX's SpaceToDepth."""
        b, h, w, c = x.shape
        return x.reshape(b, h // r, r, w // r, r, c).transpose(2, 3).reshape(b, h // r, w // r, c * r * r)

    def shuffle(self, x: Tensor, r: int) -> Tensor:
        b, h, w, c = x.shape
        return x.reshape(b, h, w, r, r, c // r // r).transpose(2, 3).reshape(b, h * r, w * r, c // r // r)

    def pack(self, x: Tensor, half: int) -> Tensor:
        """Half a checkerboard, first its even rows, then its odd ones. Anchors (0): row + column odd."""
        return torch.cat((x[:, 0::2, 1 - half :: 2], x[:, 1::2, half::2]), 1)

    def place(self, coded: Tensor, known: Tensor | None) -> Tensor:
        """Inverse of pack: anchors among zeros, or others among the known anchors."""
        anchors, others = (coded, torch.zeros_like(coded)) if known is None else (self.pack(known, 0), coded)
        (a0, a1), (n0, n1) = anchors.chunk(2, 1), others.chunk(2, 1)
        even = torch.stack((n0, a0), 3).flatten(2, 3)
        odd = torch.stack((a1, n1), 3).flatten(2, 3)
        return torch.stack((even, odd), 2).flatten(1, 2)

    # -- global context ---------------------------------------------------------------------------------------------
    def linear_attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        b, h, w, d = q.shape
        q, k, v = (t.reshape(b, -1, heads, d // heads).transpose(1, 2) for t in (q, k, v))  # (b, heads, n, d)
        if self.kind == Arithmetic.EXACT:
            out = _exact_attention(q, k, v, self.p("exp"))
        else:
            out = q.softmax(3) @ (k.softmax(2).transpose(2, 3) @ v)
        return self.narrow(out.transpose(1, 2).reshape(b, h, w, d))

    def mean_positions(self, x: Tensor) -> Tensor:
        if self.kind != Arithmetic.EXACT:
            return self.narrow(x.mean((1, 2), keepdim=True))
        n = x.shape[1] * x.shape[2]
        total = (x.double() * 16).sum((1, 2), keepdim=True)
        return (torch.floor((2 * total + n) / (2 * n)) / 16).to(x.dtype)

    # -- per-QP vectors ---------------------------------------------------------------------------------------------
    def vector(self, name: str, qp: Tensor, lo: int = 0, hi: int | None = None) -> Tensor:
        return (qp @ self.p(name)[:, lo:hi])[:, None, None, :]

    def scale(self, x: Tensor, name: str, qp: Tensor) -> Tensor:
        return x * self.vector(name, qp).exp()

    def offset(self, x: Tensor, name: str, qp: Tensor) -> Tensor:
        v = self.vector(name, qp)
        return x + (round_half_up(v * 16) / 16 if self.rounds else v)

    def log_gain(self, qp: Tensor, lo: int, hi: int) -> Tensor:
        """Log of the deviation of y in steps, as the network sees it: the unit in which heads speak."""
        return self.vector("y/gain", qp, lo, hi) + self.p("y/deviation")[lo:hi].log()

    def to_steps(self, mean: Tensor, name: str, qp: Tensor, lo: int, hi: int) -> Tensor:
        g = self.log_gain(qp, lo, hi).exp()
        return self.fix(mean * (to_mantissa(g) if self.rounds else g), STEP)

    def to_signal(self, y_hat: Tensor, name: str, qp: Tensor, lo: int, hi: int) -> Tensor:
        g = (-self.log_gain(qp, lo, hi)).exp()
        return self.narrow(y_hat * (to_mantissa(g) if self.rounds else g))

    def index_offset(self, name: str, qp: Tensor, lo: int, hi: int) -> Tensor:
        offset = (self.log_gain(qp, lo, hi) - LOG_SCALE_MIN) / INDEX_STEP
        return round_half_up(offset * 16) / 16 if self.rounds else offset

    def scale_index(self, head: Tensor, name: str, qp: Tensor, lo: int, hi: int) -> Tensor:
        """Indexes 0..63; gradients pass the limits, so that no scale gets stuck at one."""
        raw = head * INDEX_PER_HEAD + self.index_offset(name, qp, lo, hi)
        raw = round_half_up(raw) if self.rounds else raw
        return raw + (raw.clamp(0, SCALES - 1) - raw).detach()

    def halve_steps(self, z_hat: Tensor) -> Tensor:
        return self.narrow(z_hat * 0.5)

    # -- transforms only --------------------------------------------------------------------------------------------
    def bounded(self, y: Tensor, name: str) -> Tensor:
        """Gradients pass the limits, so that nothing stays outside."""
        limit = BOUND * self.p(name)
        return y.clamp(-limit, limit).detach() + (y - y.detach())

    def energy(self, y: Tensor, name: str) -> Tensor:
        v = y / self.p(name)
        return torch.cat((v.clamp(-8, 8), torch.log1p(v.abs())), -1)

    def standardize(self, y: Tensor, name: str) -> Tensor:
        return y / self.p(name)

    def from_steps(self, y_hat: Tensor, name: str, qp: Tensor) -> Tensor:
        return y_hat * self.vector(name, qp).exp()

    def residual(self, y_hat: Tensor, r: Tensor) -> Tensor:
        return y_hat + 0.5 * torch.tanh(r)


def _exact_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Integer softmax, defined in codec.ops.numpy. float64 holds all integers and decides every floor of a quotient
    rightly, since they stay below 2^53. table: round(65535 * exp(-i / 16)), 256 entries, float64."""

    def weights(t: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        e = table[((t.amax(axis, keepdim=True) - t) * 16).long()]
        return e, e.sum(axis, keepdim=True)

    (e, s), (p, r) = weights(k, 2), weights(q, 3)
    s = s.transpose(2, 3)
    context = torch.floor((512 * (e.transpose(2, 3) @ (v.double() * 16)) + s) / (2 * s))
    p = torch.floor((8192 * p + r) / (2 * r))
    return (torch.floor((p @ context) * 2.0**-20 + 0.5) / 16).to(q.dtype)
