"""Layers as jobs of the engine.

A map is stored as planes of channels, a line of it as words of side positions, with a frame of zeros where a kernel
reaches over the edge. 1x1 layers see a map as one long line. A layer that the memories do not hold is cut into stripes
of positions and chunks of outputs; each memory has two halves, of which one is filled while the other is read.

A depthwise layer uses the array otherwise: its rows are side lines of the map for one channel, and the word of weights
for a line of inputs holds at row r the weight that output line r has for it, or zero. So (side + taps - 1) x taps steps
make side x side outputs, a quarter of them of use for 5x5 taps and 16 rows, without any hardware for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.rtl.engine import FINER, SHIFT_BITS, Shape, program_word
from quant.rtl.kinds import TERMS, Kind
from quant.rtl.layer import Ints, Layer, encode, grouped
from quant.rtl.simulate import Engine, Job

LONGEST = 255  # words of a line: what the table holds


def words(codes: NDArray, bits: int) -> list[int]:
    """Codes (words, side) unsigned -> a number for each word, the first code at its bottom."""
    powers = np.array([1 << (bits * i) for i in range(codes.shape[1])], object)
    return list(codes.astype(object) @ powers)


class Halves:
    """What is in the two halves of a memory."""

    def __init__(self) -> None:
        self.holds: list[object] = [None, None]
        self.last = 1

    def place(self, what: object) -> tuple[int, bool]:
        """The half where it is or is to be, and whether it has to be loaded."""
        fresh = what not in self.holds
        self.last = 1 - self.last if fresh else self.holds.index(what)
        self.holds[self.last] = what
        return self.last, fresh


def chunks(count: int, size: int) -> Iterable[slice]:
    """0..count in pieces. Raises ValueError where not even one fits."""
    if size < 1:
        raise ValueError("the layer does not fit the memories of the engine")
    return (slice(at, min(at + size, count)) for at in range(0, count, size))


def _masked(x: NDArray, kind: Kind) -> Ints:
    """Activations as unsigned patterns. Raises ValueError for what a kind has no code for."""
    if kind.arithmetic == "fp16":
        return x.astype(np.float16).view(np.uint16).astype(np.int64)
    top = 1 << (kind.bits - 1)
    if x.size and (x.min() < -top or x.max() >= top):
        raise ValueError(f"activations are signed codes of {kind.bits} bits")
    return x.astype(np.int64) & ((1 << kind.bits) - 1)


def _rows(layer: Layer, of: NDArray, kind: Kind) -> list[int]:
    """Words of the memory of rows, for outputs in the order in which they leave; -1 is nobody."""
    if kind.arithmetic == "fp16":
        if layer.bias.any() or layer.shift.any():
            raise ValueError("an engine of fp16 adds no bias: give it as the weights of a channel of ones")
        return []
    bias, shift = (np.append(v, 0).astype(np.int64) for v in (layer.bias, layer.shift))
    if (shift < -FINER).any() or (shift + FINER >= 1 << SHIFT_BITS).any():
        raise ValueError(f"shifts are {-FINER}..{(1 << SHIFT_BITS) - 1 - FINER}")
    full = bias + np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
    if (np.abs(full) >= 1 << (kind.sum_bits - 1)).any():
        raise ValueError(f"a bias, or half of what a shift takes away, does not fit sums of {kind.sum_bits} bits")
    low = full & ((1 << kind.sum_bits) - 1)
    made = low | (shift + FINER) << kind.sum_bits | int(layer.wide) << (kind.sum_bits + SHIFT_BITS)
    return [int(made[o]) for o in of]  # the last of the arrays is nobody's


def _planes(x: Ints, lines: slice, taps: int, across: int, side: int) -> Ints:
    """Planes of a stripe: (channels, lines + taps - 1, words, side)."""
    (c, h, w), edge = x.shape, taps // 2
    wide = (across + (taps > 1)) * side
    out = np.zeros((c, lines.stop - lines.start + taps - 1, max(wide, w + edge)), np.int64)
    first, last = max(lines.start - edge, 0), min(lines.stop + edge, h)
    at = first - lines.start + edge
    out[:, at : at + last - first, edge : edge + w] = x[:, first:last]
    return out[:, :, :wide].reshape(c, out.shape[1], -1, side)


class Dense:
    """How a layer over all channels is cut: lines of the map into stripes, blocks of side outputs into parts."""

    def __init__(self, layer: Layer, x: NDArray, kind: Kind, shape: Shape):
        self.kind, self.shape, self.taps, self.outputs = kind, shape, layer.taps, len(layer.weights)
        half_a, half_w, half_r = shape.halves()
        self.order, self.group = grouped(layer, kind)
        self.signal = _masked(x, kind)
        (_, h, w), side, inputs = self.signal.shape, shape.side, len(self.order)
        if self.taps == 1:  # one line, or as many as the memory makes of it
            flat = min(max(half_a // inputs, 1), LONGEST) * side
            lines, length = -(-h * w // flat), min(flat, h * w)
            line = self.signal.reshape(len(x), -1)
            self.signal = np.pad(line, ((0, 0), (0, lines * length - h * w))).reshape(-1, lines, length)
            h, w = lines, length
        self.lines, self.across, blocks = h, -(-w // side), -(-self.outputs // side)
        self.row_words, self.steps = self.across + (self.taps > 1), inputs * self.taps**2
        if self.steps > TERMS:
            raise ValueError(f"sums of {self.steps} products may overflow: {TERMS} fit")
        self.stripes = list(chunks(h, min(half_a // (inputs * self.row_words) - self.taps + 1, h)))
        self.parts = list(chunks(blocks, min(half_w // self.steps, half_r // side)))
        real = [i for i, c in enumerate(self.order) if c >= 0]
        self.codes = np.full((blocks * side, inputs, self.taps, self.taps), encode(np.zeros(1), kind)[0], np.int64)
        self.codes[: self.outputs, real] = encode(layer.weights, kind)[:, [self.order[i] for i in real]]

    def signal_key(self, lines: slice, part: slice) -> object:
        return lines.start

    def planes(self, lines: slice, part: slice) -> Ints:
        """(words, side), in the order of the groups: where a channel is written is all that is done for it."""
        made = _planes(self.signal, lines, self.taps, self.across, self.shape.side)
        return np.concatenate((made, np.zeros_like(made[:1])))[self.order].reshape(-1, self.shape.side)

    def weights(self, part: slice) -> tuple[Ints, Ints]:
        """(words, side) and what goes with each word."""
        side, count = self.shape.side, part.stop - part.start
        codes = self.codes[part.start * side : part.stop * side].reshape(count, side, self.steps).transpose(0, 2, 1)
        group = np.zeros((len(self.order), self.taps**2), np.int64)
        group[:, : 1 if self.kind.way == "sums" else None] = np.array(self.group)[:, None]
        return codes.reshape(-1, side), np.tile(group.reshape(-1), count)

    def rows(self, part: slice) -> Ints:
        """The output of each row that leaves, -1 for none."""
        outputs = np.arange(part.start * self.shape.side, part.stop * self.shape.side)
        outputs = np.where(outputs < self.outputs, outputs, -1)
        return outputs.reshape(-1, self.shape.side)[:, ::-1].reshape(-1)

    def fields(self, lines: slice, part: slice) -> dict[str, int]:
        count = lines.stop - lines.start
        return {
            "taps": self.taps - 1, "lines": self.taps - 1, "channels": len(self.order) - 1, "across": self.across - 1,
            "down": count - 1, "blocks": part.stop - part.start - 1, "line_step": self.row_words,
            "channel_step": (count + self.taps - 1) * self.row_words, "down_step": self.row_words, "block_step": 0,
        }  # fmt: skip

    def put(self, out: NDArray, results: NDArray, lines: slice, part: slice) -> None:
        """Results of a job, as they left, to their places in out (outputs, lines, positions)."""
        side = self.shape.side
        tiles = results.reshape(-1, lines.stop - lines.start, self.across, side, side)[:, :, :, ::-1]
        block = tiles.transpose(0, 3, 1, 2, 4).reshape((part.stop - part.start) * side, -1, self.across * side)
        out[part.start * side : part.stop * side, lines] = block

    def shape_out(self) -> tuple[int, int, int]:
        return len(self.codes), self.lines, self.across * self.shape.side

    def trim(self, out: NDArray, h: int, w: int) -> NDArray:
        """out as (outputs, height, width)."""
        if self.taps == 1:
            return (
                out[: self.outputs, :, : self.signal.shape[2]].reshape(self.outputs, -1)[:, : h * w].reshape(-1, h, w)
            )
        return out[: self.outputs, :h, :w]


class Depthwise:
    """How a depthwise layer is cut: side lines are a block of rows, a channel is a block of the engine's table."""

    def __init__(self, layer: Layer, x: NDArray, kind: Kind, shape: Shape):
        self.kind, self.shape, self.taps = kind, shape, layer.taps
        half_a, half_w, half_r = shape.halves()
        (channels, h, w), side = x.shape, shape.side
        if layer.exponents is not None:
            raise ValueError("a depthwise layer's exponents are outside of its sums: add them to its shifts")
        self.across, self.high = -(-w // side), -(-h // side)
        self.row_words, self.band = self.across + 1, side + self.taps - 1
        self.signal = np.pad(_masked(x, kind), ((0, 0), (0, self.high * side - h), (0, 0)))
        fits = min(half_a // self.row_words - self.taps + 1, 256 * side)
        self.stripes = list(chunks(self.high, min(fits // side, self.high)))
        plane = (self.stripes[0].stop * side + self.taps - 1) * self.row_words
        self.parts = list(chunks(channels, min(half_w // (self.band * self.taps), half_r // side, half_a // plane)))
        self.codes = np.full((channels, self.band, self.taps, side), encode(np.zeros(1), kind)[0], np.int64)
        for r in range(side):
            self.codes[:, r : r + self.taps, :, r] = encode(layer.weights, kind)

    def signal_key(self, lines: slice, part: slice) -> object:
        return lines.start, part.start

    def planes(self, lines: slice, part: slice) -> Ints:
        side = self.shape.side
        full = slice(lines.start * side, lines.stop * side)
        return _planes(self.signal[part], full, self.taps, self.across, side).reshape(-1, side)

    def weights(self, part: slice) -> tuple[Ints, Ints]:
        codes = self.codes[part].reshape(-1, self.shape.side)
        return codes, np.zeros(len(codes), np.int64)

    def rows(self, part: slice) -> Ints:
        return np.repeat(np.arange(part.start, part.stop), self.shape.side)

    def fields(self, lines: slice, part: slice) -> dict[str, int]:
        count, side = lines.stop - lines.start, self.shape.side
        return {
            "taps": self.taps - 1, "lines": self.band - 1, "channels": 0, "across": self.across - 1, "down": count - 1,
            "blocks": part.stop - part.start - 1, "line_step": self.row_words, "channel_step": 0,
            "down_step": side * self.row_words, "block_step": (count * side + self.taps - 1) * self.row_words,
        }  # fmt: skip

    def put(self, out: NDArray, results: NDArray, lines: slice, part: slice) -> None:
        side = self.shape.side
        tiles = results.reshape(part.stop - part.start, -1, self.across, side, side)[:, :, :, ::-1]
        block = tiles.transpose(0, 1, 3, 2, 4).reshape(part.stop - part.start, -1, self.across * side)
        out[part, lines.start * side : lines.stop * side] = block

    def shape_out(self) -> tuple[int, int, int]:
        return len(self.codes), self.high * self.shape.side, self.across * self.shape.side

    def trim(self, out: NDArray, h: int, w: int) -> NDArray:
        return out[:, :h, :w]


Cut = Dense | Depthwise


def cut(layer: Layer, x: NDArray, kind: Kind, shape: Shape) -> Cut:
    """How a layer for codes x (channels, height, width) is cut into jobs. Raises ValueError where it does not fit."""
    return (Depthwise if layer.depthwise else Dense)(layer, x, kind, shape)


@dataclass(frozen=True)
class Turn:
    """One job: what part of the layer, in which halves of the memories, and whether those have to be filled for it."""

    lines: slice
    part: slice
    signal: tuple[int, bool]
    weights: tuple[int, bool]
    fields: dict[str, int]

    @property
    def tiles(self) -> int:
        return (self.fields["across"] + 1) * (self.fields["down"] + 1) * (self.fields["blocks"] + 1)

    @property
    def steps(self) -> int:
        """Of a tile: products of one output."""
        return (self.fields["taps"] + 1) * (self.fields["lines"] + 1) * (self.fields["channels"] + 1)

    def loads(self, side: int, kind: Kind) -> int:
        """Words that have to be there before it starts: activations, weights, rows, and the layer's own."""
        f = self.fields
        planes = (f["channels"] + 1) * f["channel_step"] or (f["blocks"] + 1) * f["block_step"]
        rows = 0 if kind.arithmetic == "fp16" else side
        weights = (f["blocks"] + 1) * (self.steps + rows)
        return self.signal[1] * planes + self.weights[1] * weights + 1

    def cycles(self, side: int) -> int:
        """In which the engine is busy: the table is read, then each tile's steps and rows."""
        return 1 + self.tiles * (self.steps + side)


def turns(made: Cut) -> list[Turn]:
    """The jobs of a layer in their order."""
    in_a, in_w, out = Halves(), Halves(), []
    for lines in made.stripes:
        for part in made.parts:
            signal, weights = in_a.place(made.signal_key(lines, part)), in_w.place(part.start)
            out.append(Turn(lines, part, signal, weights, made.fields(lines, part)))
    return out


SETTLE = 8  # cycles that a run goes on after the last job, in which results arrive


def cycles(made: Cut) -> tuple[int, int]:
    """Of a layer, from the first word loaded: in all, and busy. Exact: a job starts when the one before it has ended
    and its own words are loaded, one a cycle, from the moment that one started."""
    side, kind, jobs = made.shape.side, made.kind, turns(made)
    busy, loads = [j.cycles(side) for j in jobs], [j.loads(side, kind) for j in jobs]
    waits = sum(max(b, load) + 1 for b, load in zip(busy, loads[1:], strict=False))
    return loads[0] + waits + busy[-1] + SETTLE, sum(busy)


@dataclass(frozen=True)
class Ran:
    """results (outputs, height, width), int16, or float16 of fp16; cycles from the first word loaded to the last
    result; busy: those in which the array worked."""

    results: NDArray
    cycles: int
    busy: int


def run(engine: Engine, layer: Layer, x: NDArray) -> Ran:
    """A layer for codes x (channels, height, width). Raises ValueError for one that the engine cannot hold."""
    kind, shape = engine.kind, engine.shape
    made = cut(layer, x, kind, shape)
    half_a, half_w, half_r = shape.halves()
    jobs: list[Job] = []
    todo = turns(made)
    for turn in todo:
        (a, fresh_a), (w, fresh_w) = turn.signal, turn.weights
        loads: list[tuple[int, int, int]] = []
        if fresh_a:
            codes = words(made.planes(turn.lines, turn.part), kind.bits)
            loads += [(0, a * half_a + i, v) for i, v in enumerate(codes)]
        if fresh_w:
            matrix, group = made.weights(turn.part)
            high, codes = shape.side * kind.weight_bits, words(matrix, kind.weight_bits)
            loads += [(1, w * half_w + i, v | int(group[i]) << high) for i, v in enumerate(codes)]
            loads += [(2, w * half_r + i, v) for i, v in enumerate(_rows(layer, made.rows(turn.part), kind))]
        starts = {"activations": a * half_a, "weights": w * half_w, "rows": w * half_r}
        number = len(jobs) % (1 << shape.layers)
        loads.append((3, number, program_word(shape, {**turn.fields, **starts})))
        jobs.append(Job(number, loads))
    ran = engine.run(jobs)
    out, at = np.zeros(made.shape_out(), np.int16), 0
    for turn in todo:
        count = turn.tiles * shape.side
        made.put(out, ran.results[at : at + count], turn.lines, turn.part)
        at += count
    if at != len(ran.results):
        raise ValueError(f"{len(ran.results)} rows left the engine, {at} should have")
    done = made.trim(out, x.shape[1], x.shape[2])
    return Ran(done.view(np.float16) if kind.arithmetic == "fp16" else done, ran.cycles, sum(ran.busy))
