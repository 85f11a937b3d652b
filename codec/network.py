"""The network, described once. Every executor walks the functions below with operations of its own.

    x -> g_a -> y;  energy(y) -> h_a -> z -> z_hat -> h_s -> Psi
    slice i of y: anchors <- Psi, slices before;  others <- the same and the anchors of this slice
    y_hat, Psi -> latent residual prediction -> g_s -> x_hat

An executor ("ops") knows a dozen operations: codec.models.ops (torch: training and the GPU), codec.ops.numpy (int64:
the definition of the integer path), codec.ops.onnx (writes graphs) and codec.ops.shapes (counts). On the entropy
path they are exact integer arithmetic with power-of-two scales; in g_a, h_a and g_s they are plain floats.

Number formats of the entropy path (our choice, fixed by design so that clipping acts from the first step of training):
every convolution input is "narrow", 8 bits with 4 fractional (+-8); the residual stream is "wide", 16 bits with 8
fractional; heads answer in 16 bits with 12 fractional; y_hat, z_hat and means count steps with 6 fractional bits.

Sources: MLICv2 (arXiv 2504.19119) for the mechanisms: slices x checkerboard, token mixing, inter- and intra-slice
global context by linear attention, hyperprior-guided global context for slice 0, channel reweighting. Block layout,
widths, 1/8-resolution transforms, gain vectors and the integer forms are our choice.
"""

from __future__ import annotations

from typing import Any

from codec.config import Config

NARROW = (4, 8)  # fractional bits, bits
WIDE = (8, 16)
HEAD = (12, 16)
STEP = (6, 16)
BOUND = 4096  # of y, in deviations: nothing else holds channels that a level's gain takes away, and some ran away
INDEX_PER_HEAD = 8  # scale indexes per unit of a head's output

Array = Any  # whatever the executor computes with


def limits(form: tuple[int, int]) -> tuple[float, float]:
    """Least and greatest value of a number format (fractional bits, bits)."""
    frac, bits = form
    return -(2.0 ** (bits - 1 - frac)), (2 ** (bits - 1) - 1) / 2.0**frac


def token_mixing(o: Any, x: Array, name: str) -> Array:
    """MetaFormer block without normalization: spatial mixing by a depthwise 5x5, then a gated channel MLP."""
    return o.block(_token_mixing, x, name)


def _token_mixing(o: Any, x: Array, name: str) -> Array:
    c = o.channels(x)
    t = o.act(o.conv(o.narrow(x), f"{name}/in", c))
    x = o.add(x, o.conv(o.depthwise(t, f"{name}/mix"), f"{name}/out", c, WIDE))
    u, v = o.halves(o.conv(o.narrow(x), f"{name}/gate", 3 * c))
    return o.add(x, o.conv(o.gated(u, v), f"{name}/back", c, WIDE))


def blocks(o: Any, x: Array, name: str, count: int) -> Array:
    for i in range(count):
        x = token_mixing(o, x, f"{name}/{i}")
    return x


def g_a(o: Any, cfg: Config, x: Array, qp: Array) -> Array:
    """Picture in -1..1, 3 channels -> y in the signal domain (independent of QP's step), at 1/16."""
    f = o.conv(o.unshuffle(x, 8), "g_a/stem", cfg.width)
    f = o.scale(token_mixing(o, f, "g_a/first"), "g_a/gain", qp)
    f = blocks(o, f, "g_a/eighth", cfg.analysis[0] - 1)
    f = o.conv(o.unshuffle(f, 2), "g_a/down", cfg.latents)
    return o.bounded(blocks(o, f, "g_a/sixteenth", cfg.analysis[1]), "y/deviation")


def h_a(o: Any, cfg: Config, y: Array, qp: Array) -> Array:
    """y (signal domain) -> z. It reads y over its deviation, and the log-energy of that: a linear h_a says nothing
    about scales and its z dies (measured)."""
    f = o.offset(o.conv(o.energy(y, "y/deviation"), "h_a/0", cfg.hyper), "h_a/offset", qp)
    f = o.act(o.conv(o.unshuffle(o.act(f), 2), "h_a/1", cfg.hyper))
    return o.conv(o.unshuffle(f, 2), "h_a/2", cfg.hyper)


def h_s(o: Any, cfg: Config, z_hat: Array, qp: Array) -> Array:
    """z_hat -> Psi, narrow, at 1/16."""
    f = o.conv(o.halve_steps(z_hat), "h_s/0", cfg.hyper, WIDE)
    f = o.conv(o.narrow(token_mixing(o, f, "h_s/sixtyfourth")), "h_s/1", 4 * cfg.hyper, WIDE)
    f = token_mixing(o, o.shuffle(f, 2), "h_s/thirtysecond")
    f = o.shuffle(o.conv(o.narrow(f), "h_s/2", 4 * cfg.features, WIDE), 2)
    return o.narrow(o.offset(blocks(o, f, "h_s/sixteenth", 2), "h_s/offset", qp))


def attention(o: Any, cfg: Config, queries: Array, keys: Array, values: Array, name: str) -> Array:
    """Global context by linear attention (softmax over positions for keys, over features for queries), then channel
    reweighting by a gate that sees the mean over all positions."""
    d = cfg.context
    q, k, v = (o.conv(t, f"{name}/{n}", d) for t, n in ((queries, "q"), (keys, "k"), (values, "v")))
    f = o.conv(o.linear_attention(q, k, v, cfg.heads), f"{name}/o", d)
    g = o.act(o.conv(o.mean_positions(f), f"{name}/squeeze", d // 2))
    return o.gated(f, o.conv(g, f"{name}/excite", d))


def anchors(o: Any, cfg: Config, i: int, psi: Array, before: Array | None, qp: Array) -> tuple[Array, ...]:
    """Slice i, first pass. before: y_hat of the slices before, in steps, or None for slice 0.

    Returns (trunk, inter-slice context, means, scale indexes); the last two on the packed anchor grid.
    """
    name, lo = f"slice/{i}", sum(cfg.slices[:i])
    seen = psi if before is None else o.to_signal(before, "y/to_signal", qp, 0, lo)
    t = o.conv(psi if before is None else o.concat(psi, seen), f"{name}/join", cfg.features, WIDE)
    t = o.narrow(blocks(o, t, f"{name}/trunk", cfg.trunk))
    inter = attention(o, cfg, t, t, seen, f"{name}/inter")
    e = o.act(o.conv(o.pack(o.concat(t, inter), 0), f"{name}/anchor/0", cfg.head_anchor))
    return t, inter, *parameters(o, cfg, i, e, f"{name}/anchor/1", qp)


def others(o: Any, cfg: Config, i: int, t: Array, inter: Array, anchor: Array, qp: Array) -> tuple[Array, Array]:
    """Slice i, second pass. anchor: y_hat of its anchors in steps on the full grid, zero elsewhere.

    Returns (means, scale indexes) on the packed grid of the others.
    """
    name, lo, c = f"slice/{i}", sum(cfg.slices[:i]), cfg.slices[i]
    seen = o.to_signal(anchor, "y/to_signal", qp, lo, lo + c)
    local = o.conv(seen, f"{name}/local/0", cfg.context, bias=False)
    local = o.conv(o.depthwise(local, f"{name}/local/mix"), f"{name}/local/1", cfg.context)
    intra = attention(o, cfg, o.pack(t, 1), o.pack(t, 0), o.pack(seen, 0), f"{name}/intra")
    e = o.concat(o.pack(o.concat(t, inter, local), 1), intra)
    e = o.act(o.conv(e, f"{name}/other/0", cfg.head_other))
    return parameters(o, cfg, i, e, f"{name}/other/1", qp)


def parameters(o: Any, cfg: Config, i: int, e: Array, name: str, qp: Array) -> tuple[Array, Array]:
    """Head of a pass: means in steps and indexes into the scale table."""
    lo, c = sum(cfg.slices[:i]), cfg.slices[i]
    mean, scale = o.split(o.conv(e, name, 2 * c, HEAD), c)
    return o.to_steps(mean, "y/to_steps", qp, lo, lo + c), o.scale_index(scale, "y/index", qp, lo, lo + c)


def g_s(o: Any, cfg: Config, y_hat: Array, psi: Array, qp: Array) -> Array:
    """y_hat in steps and Psi -> picture in -1..1. Latent residual prediction sees all slices and stays a float."""
    signal = o.from_steps(y_hat, "y/reconstruct", qp)
    r = o.act(o.conv(o.concat(psi, o.standardize(signal, "y/deviation")), "g_s/lrp/0", cfg.latents))
    y = o.from_steps(o.residual(y_hat, o.conv(r, "g_s/lrp/1", cfg.latents)), "y/reconstruct", qp)
    f = o.shuffle(o.conv(blocks(o, y, "g_s/sixteenth", cfg.synthesis[0]), "g_s/up", 4 * cfg.width), 2)
    f = blocks(o, f, "g_s/eighth", cfg.synthesis[1] - 1)
    f = token_mixing(o, o.scale(f, "g_s/gain", qp), "g_s/last")
    return o.shuffle(o.conv(f, "g_s/head", 192), 8)
