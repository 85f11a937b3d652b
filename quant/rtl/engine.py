"""Verilog of the engine: an array of elements, what feeds and empties it, and what runs layers by a table.

    load port -> activations, weights, rows, layers           memories; halves are filled while others are read
    activations -> window -> columns of the array             side positions of a row of a map, sliding by one for taps
    weights              -> rows of the array                 side outputs
    sums leave downward, a row of the array each cycle, through a requantizer for each column

A tile is side outputs at side positions. It takes a cycle for each product of one output and a cycle for each row that
leaves; tiles follow without a gap. A step is a word of activations and a word of weights. All is our choice.

Every kind gets the same of everything, in its widths, but for this: fp16 has no requantizer and no memory of rows,
because binary16 needs none.
"""

from __future__ import annotations

from dataclasses import dataclass

from quant.rtl import element, float16
from quant.rtl.element import MODES, module
from quant.rtl.kinds import Kind

OUT_BITS = 16  # of a result; narrow layers use as many as a code has
FINER = 4  # a shift of s in the memory of rows is s - FINER: results can be finer than sums by so many bits
SHIFT_BITS = 5
LAST_TAP = 4  # a row of a kernel has up to 5 taps


@dataclass(frozen=True)
class Shape:
    """side: rows and columns of the array. Depths of memories, in words, as powers of two."""

    side: int = 16
    activations: int = 12
    weights: int = 11
    rows: int = 9
    layers: int = 4

    def halves(self) -> tuple[int, int, int]:
        """Words of half a memory: activations, weights, rows."""
        return (1 << self.activations) // 2, (1 << self.weights) // 2, (1 << self.rows) // 2

    def fields(self) -> dict[str, int]:
        """Bits of each number of a layer, the first at the bottom of its word. Counts are of what follows the first."""
        return {
            "taps": 3, "lines": 6, "channels": 11, "across": 8, "down": 8, "blocks": 8,
            "line_step": 8, "channel_step": self.activations, "down_step": self.activations,
            "block_step": self.activations, "activations": self.activations, "weights": self.weights, "rows": self.rows,
        }  # fmt: skip


def widths(kind: Kind, shape: Shape) -> dict[str, int]:
    """Bits of a word of each memory, in the order of their numbers at the load port."""
    return {
        "activations": shape.side * kind.bits,
        "weights": shape.side * kind.weight_bits + kind.group_bits,
        "rows": kind.sum_bits + SHIFT_BITS + 1,
        "layers": sum(shape.fields().values()),
    }


def requantizer(kind: Kind) -> str:
    """(sum + bias) * 2^FINER >> shift, then saturated to the bits of a code, or to all.

    The bias that is stored holds 2^(s-1) already: that is rounding half up.
    """
    s = kind.sum_bits
    narrow, wide = kind.bits, OUT_BITS
    lines = [
        f"reg signed [{s}:0] biased;",
        f"reg [{SHIFT_BITS - 1}:0] far;",
        "reg wide;",
        f"wire signed [{s + FINER}:0] moved = $signed({{biased, {FINER}'d0}}) >>> far;",
        f"wire [{s + FINER}:0] sign = {{{s + FINER + 1}{{moved[{s + FINER}]}}}};",
        f"wire fits_wide = moved[{s + FINER - 1}:{wide - 1}] == sign[{s + FINER - 1}:{wide - 1}];",
        f"wire fits = fits_wide & (wide | moved[{wide - 1}:{narrow - 1}] == sign[{wide - 1}:{narrow - 1}]);",
        f"wire [{wide - narrow - 1}:0] upper = {{{wide - narrow}{{wide ^ sign[0]}}}};",
        f"wire [{wide - 1}:0] limit = {{sign[0], upper, {{{narrow - 1}{{!sign[0]}}}}}};",
        "always @(posedge clk) begin",
        f"    biased <= $signed(sums) + $signed(row[{s - 1}:0]);",
        f"    {{wide, far}} <= row[{s + SHIFT_BITS}:{s}];",
        f"    result <= fits ? moved[{wide - 1}:0] : limit;",
        "end",
    ]
    inputs = ["clk", f"[{s - 1}:0] sums", f"[{s + SHIFT_BITS}:0] row"]
    return module("requantizer", inputs, [f"reg [{wide - 1}:0] result"], lines)


def passing(kind: Kind) -> str:
    """In place of a requantizer, where results are sums."""
    lines = ["reg [15:0] kept;", "always @(posedge clk) begin", "    kept <= sums;", "    result <= kept;", "end"]
    return module("requantizer", ["clk", f"[{kind.sum_bits - 1}:0] sums"], ["reg [15:0] result"], lines)


def control(shape: Shape) -> str:
    """Runs one layer of the table: where to read, and what the array does with it, for every cycle."""
    fields = shape.fields()
    a, w, r = shape.activations, shape.weights, shape.rows
    lines, at = [], 0
    for name, bits in fields.items():
        lines.append(f"wire [{bits - 1}:0] n_{name} = layer[{at + bits - 1}:{at}];")
        at += bits
    lines += [
        "reg [1:0] state;  // idle, the table is read, steps, rows leave",
        *(f"reg [{fields[n] - 1}:0] {n};" for n in ("taps", "lines", "channels", "across", "down", "blocks")),
        f"reg [{shape.side.bit_length() - 1}:0] leaving;",
        f"reg [{a - 1}:0] block_at, down_at, across_at, channel_at, line_at;",
        f"reg [{w - 1}:0] weights_from;",
        f"reg [{r - 1}:0] rows_from;",
        "reg fresh;  // the first step of a tile",
        "reg slid;  // past the second tap",
        "wire second = taps != n_taps & !slid;",
        "assign busy = state != 0;",
        "assign activation = line_at + second;",
        "assign load = taps == n_taps;",
        "assign append = second;",
        "assign first = fresh;",
        "assign drain = state == 3;",
        "assign row = rows_from + leaving;",
        f"wire [{a - 1}:0] next_channel = channel_at + n_channel_step;",
        f"wire [{a - 1}:0] next_tile =",
        "    across ? across_at + 1'b1 : down ? down_at + n_down_step : block_at + n_block_step;",
        "always @(posedge clk)",
        "    if (reset) state <= 0;",
        "    else case (state)",
        "        0: if (start) state <= 1;",
        "        1: begin",
        "            state <= 2;",
        "            {taps, lines, channels} <= {n_taps, n_lines, n_channels};",
        "            {across, down, blocks} <= {n_across, n_down, n_blocks};",
        "            block_at <= n_activations; down_at <= n_activations; across_at <= n_activations;",
        "            channel_at <= n_activations; line_at <= n_activations;",
        "            weight <= n_weights; weights_from <= n_weights; rows_from <= n_rows;",
        "            fresh <= 1; slid <= 0; leaving <= 0;",
        "        end",
        "        2: begin",
        "            fresh <= 0;",
        "            weight <= weight + 1'b1;",
        "            taps <= taps ? taps - 1'b1 : n_taps;",
        "            slid <= taps && taps != n_taps;",
        "            if (!taps) begin",
        "                lines <= lines ? lines - 1'b1 : n_lines;",
        "                line_at <= lines ? line_at + n_line_step : next_channel;",
        "                if (!lines) begin",
        "                    channel_at <= next_channel;",
        "                    channels <= channels ? channels - 1'b1 : n_channels;",
        "                    if (!channels) state <= 3;",
        "                end",
        "            end",
        "        end",
        "        3: begin",
        "            leaving <= leaving + 1'b1;",
        f"            if (leaving == {shape.side - 1}) begin",
        "                fresh <= 1; leaving <= 0;",
        "                channel_at <= next_tile; line_at <= next_tile; across_at <= next_tile;",
        "                across <= across ? across - 1'b1 : n_across;",
        "                if (!across) begin",
        "                    down_at <= next_tile;",
        "                    down <= down ? down - 1'b1 : n_down;",
        "                end",
        "                if (!across & !down) begin",
        "                    block_at <= next_tile;",
        "                    blocks <= blocks - 1'b1;",
        "                    weights_from <= weight;",
        f"                    rows_from <= rows_from + {shape.side};",
        "                end else weight <= weights_from;",
        "                state <= across || down || blocks ? 2 : 0;",
        "            end",
        "        end",
        "    endcase",
    ]
    outputs = ["busy", f"[{a - 1}:0] activation", f"reg [{w - 1}:0] weight", f"[{r - 1}:0] row"]
    outputs += ["load", "append", "first", "drain"]
    return module("control", ["clk", "reset", "start", f"[{at - 1}:0] layer"], outputs, lines)


def memory(name: str, bits: int, depth: int) -> str:
    """One port that writes, one that reads; a word read is there a cycle later."""
    lines = [
        f"reg [{bits - 1}:0] words [0:{(1 << depth) - 1}];",
        "always @(posedge clk) begin",
        "    if (write) words[to] <= data;",
        "    word <= words[from];",
        "end",
    ]
    inputs = ["clk", "write", f"[{depth - 1}:0] to", f"[{bits - 1}:0] data", f"[{depth - 1}:0] from"]
    return module(f"memory_{name}", inputs, [f"reg [{bits - 1}:0] word"], lines)


def window(kind: Kind, shape: Shape) -> str:
    """The operands of all columns: a word as it is read, or what was there moved by one position.

    The shift of "operand" is done here, once for a whole column.
    """
    n, p, side = kind.bits, kind.operand_bits, shape.side
    lines = []
    for c in range(side):
        code = f"word[{n * c + n - 1}:{n * c}]"
        moved = f"{{{{{p - n}{{word[{n * c + n - 1}]}}}}, {code}}} << group"
        lines.append(f"wire [{p - 1}:0] code{c} = {moved if p > n else code};")
    lines += [
        f"reg [{p * (LAST_TAP - 1) - 1}:0] next;",
        f"wire [{p * (LAST_TAP - 1) - 1}:0] ahead = {{{', '.join(f'code{c}' for c in reversed(range(1, LAST_TAP)))}}};",
        "always @(posedge clk) begin",
        *(
            f"    operands[{p * c + p - 1}:{p * c}] <= load ? code{c} : operands[{p * c + 2 * p - 1}:{p * c + p}];"
            for c in range(side - 1)
        ),
        f"    operands[{p * side - 1}:{p * (side - 1)}] <= load ? code{side - 1} : append ? code0 : next[{p - 1}:0];",
        f"    next <= append ? ahead : {{{p}'d0, next[{p * (LAST_TAP - 1) - 1}:{p}]}};",
        "end",
    ]
    inputs = ["clk", "load", "append", f"[{side * n - 1}:0] word"] + (["[1:0] group"] if p > n else [])
    return module("window", inputs, [f"reg [{side * p - 1}:0] operands"], lines)


def array(kind: Kind, shape: Shape) -> str:
    """side x side elements; those of a row share a weight, of a column an activation, and the sums of a column leave
    downward."""
    n, m, s, side = kind.operand_bits, kind.weight_bits, kind.sum_bits, shape.side
    group = ", .group(group)" if kind.way == "product" else ""
    lines = [f"wire [{s * side - 1}:0] sums_{r};" for r in range(side)]
    for r in range(side):
        for c in range(side):
            above = f"sums_{r - 1}[{s * c + s - 1}:{s * c}]" if r else f"{s}'d0"
            lines.append(
                f"element e_{r}_{c} (.clk(clk), .a(a[{n * c + n - 1}:{n * c}]), .w(w[{m * r + m - 1}:{m * r}]){group}, "
                f".clear(clear), .mode(mode), .above({above}), .sums(sums_{r}[{s * c + s - 1}:{s * c}]));"
            )
    lines.append(f"assign bottom = sums_{side - 1};")
    inputs = ["clk", f"[{side * n - 1}:0] a", f"[{side * m - 1}:0] w", "clear", "[1:0] mode"]
    return module("array", inputs + (["[1:0] group"] if group else []), [f"[{side * s - 1}:0] bottom"], lines)


def engine(kind: Kind, shape: Shape = Shape(), dsp: bool = False) -> str:
    """All modules; the top is `engine`.

    Inputs: reset; load: a word `data` goes to `address` of memory `where` (0 activations, 1 weights, 2 rows, 3 layers);
    start, with the number of a layer, which stays while busy. Outputs: busy, from the cycle after start until the last
    row leaves; valid, with side results of OUT_BITS, five cycles later; the last row of a tile comes first.
    """
    side, s, m, q = shape.side, kind.sum_bits, kind.weight_bits, kind.group_bits
    bits = widths(kind, shape)
    depth = {"activations": shape.activations, "weights": shape.weights, "rows": shape.rows, "layers": shape.layers}
    fp = kind.arithmetic == "fp16"
    held = [name for name in bits if not (fp and name == "rows")]
    bus, longest = max(bits[n] for n in held), max(depth[n] for n in held)
    reads = {"activations": "activation", "weights": "weight", "rows": "row_2", "layers": "number"}
    lines = [
        f"wire [{depth['activations'] - 1}:0] activation;", f"wire [{depth['weights'] - 1}:0] weight;",
        f"wire [{depth['rows'] - 1}:0] row;", f"reg [{depth['rows'] - 1}:0] row_1, row_2;",
        *(f"wire [{bits[n] - 1}:0] {n};" for n in held),
    ]  # fmt: skip
    for number, name in enumerate(bits):
        if name in held:
            lines.append(
                f"memory_{name} {name}_ (.clk(clk), .write(load & where == {number}), "
                f".to(address[{depth[name] - 1}:0]), .data(data[{bits[name] - 1}:0]), "
                f".from({reads[name]}), .word({name}));"
            )
    group = f"weights[{bits['weights'] - 1}:{side * m}]"
    double = group if kind.way == "sums" else "1'b0"
    lines += [
        "wire loads, appends, firsts, drains;",
        "control control_ (.clk(clk), .reset(reset), .start(start), .layer(layers), .busy(busy),",
        "    .activation(activation), .weight(weight), .row(row), .load(loads), .append(appends),",
        "    .first(firsts), .drain(drains));",
        "// Numbers say how many cycles after the memories' addresses.",
        "reg load_1, append_1, first_1, drain_1, drain_2, drain_3, drain_4;",
        "reg [1:0] mode_2, mode_3;",
        f"reg [{side * m - 1}:0] weights_2;",
        *([f"reg [{q - 1}:0] group_2;"] if kind.way == "product" else []),
        f"wire [{side * kind.operand_bits - 1}:0] operands_2;",
        f"window window_ (.clk(clk), .load(load_1), .append(append_1), .word(activations), .operands(operands_2)"
        f"{f', .group({group})' if kind.way == 'operand' else ''});",
        "always @(posedge clk) begin",
        "    {load_1, append_1, first_1, drain_1} <= {loads, appends, firsts, drains};",
        f"    mode_2 <= drain_1 ? {MODES['drain']} : first_1 ? {MODES['first']}",
        f"        : {double} ? {MODES['double']} : {MODES['add']};",
        "    mode_3 <= mode_2;",
        f"    weights_2 <= weights[{side * m - 1}:0];",
        *([f"    group_2 <= {group};"] if kind.way == "product" else []),
        "    {row_1, row_2} <= {row, row_1};",
        "    {drain_2, drain_3, drain_4, valid} <= {drain_1, drain_2, drain_3, drain_4};",
        "end",
        f"wire [{side * s - 1}:0] bottom;",
        f"array array_ (.clk(clk), .a(operands_2), .w(weights_2), .clear(drain_2), .mode(mode_3), .bottom(bottom)"
        f"{', .group(group_2)' if kind.way == 'product' else ''});",
    ]
    row_ports = "" if fp else ", .row(rows)"
    for c in range(side):
        lines.append(
            f"requantizer requantizer_{c} (.clk(clk), .sums(bottom[{s * c + s - 1}:{s * c}]){row_ports}, "
            f".result(results[{OUT_BITS * c + OUT_BITS - 1}:{OUT_BITS * c}]));"
        )
    inputs = ["clk", "reset", "load", "[1:0] where", f"[{longest - 1}:0] address", f"[{bus - 1}:0] data", "start"]
    inputs += [f"[{shape.layers - 1}:0] number"]
    top = module("engine", inputs, ["busy", "reg valid", f"[{side * OUT_BITS - 1}:0] results"], lines)
    parts = [float16.fused(dsp) if fp else element.integer(kind, dsp), passing(kind) if fp else requantizer(kind)]
    parts += [memory(n, bits[n], depth[n]) for n in held]
    return "\n".join([*parts, window(kind, shape), array(kind, shape), control(shape), top])


def program_word(shape: Shape, values: dict[str, int]) -> int:
    """A layer's word for the table. Raises ValueError for a number that its field does not hold."""
    word, at = 0, 0
    for name, bits in shape.fields().items():
        if not 0 <= values[name] < 1 << bits:
            raise ValueError(f"a layer's {name} is {values[name]}, but its field has {bits} bits")
        word |= values[name] << at
        at += bits
    return word
