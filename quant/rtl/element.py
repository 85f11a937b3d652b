"""Verilog of the integer elements, all in a module `element`.

The shape follows from what a LUT of six inputs and a carry chain do at once (our choice; all kinds get the same):

*   A product is made of Booth's rows: two bits of the weight and the one below choose 0, +-1 or +-2 activations, and a
    bit of the row and its place in the running sum are one LUT. A row that is subtracted is complemented; its missing 1
    is the carry into the chain, that of the first row waits for the accumulator's chain.
*   The accumulator adds the product to one of four things: nothing (the first product), the sum, twice the sum (a group
    ends), or the sum of the element above (the array is emptied, the product being zero). Choice and sum are one LUT.
"""

from __future__ import annotations

from quant.rtl.kinds import GROUPS, Kind

TOO_SMALL = 4  # bits of a product's operand that yosys puts into no DSP block
MODES = {"first": 0, "add": 1, "double": 2, "drain": 3}  # what the accumulator adds the product to


def add(a: str, b: str, carry: str) -> str:
    """a + b + carry on one chain, as its upper bits: the lowest of the result is to be left out."""
    return f"{{{a}, 1'b1}} + {{{b}, {carry}}}"


def extend(name: str, bits: int, to: int) -> str:
    """A signed name, with more bits."""
    return f"{{{{{to - bits}{{{name}[{bits - 1}]}}}}, {name}}}" if to > bits else name


def rows(n: int, m: int, signed: bool) -> tuple[list[str], str]:
    """Lines that multiply wires `a` (n bits, signed) and `w` (m bits, signed or not), and the product.

    It lacks a 1 where w[1] is set, if w is signed: whoever adds it has a carry to spare. Without sign it is whole.
    """
    count = (m + 1) // 2 if signed else m // 2 + 1
    fill = f"w[{m - 1}]" if signed else "1'b0"
    top = f"{{{2 * count - m}{{{fill}}}}}, " if 2 * count > m else ""
    lines = [f"wire [{2 * count}:0] digits = {{{top}w, 1'b0}};", f"wire [{n + 1}:0] once = {{a[{n - 1}], a, 1'b0}};"]
    for r in range(count):
        two, one, zero = (f"digits[{2 * r + i}]" for i in (2, 1, 0))
        lines += [
            f"wire signed [{n}:0] row{r} = {{{n + 1}{{{two}}}}}",
            f"    ^ ({{{n + 1}{{{one} ^ {zero}}}}} & once[{n + 1}:1]",
            f"    | {{{n + 1}{{({one} == {zero}) & ({two} != {one})}}}} & once[{n}:0]);",
        ]
        if r or not signed:
            # A running sum is below 4/3 of its largest row: one bit more than a row has is enough.
            lines += [
                f"wire signed [{n + 1}:0] left{r} = {f'$signed(sum{r - 1}[{n + 1}:2])' if r else '0'};",
                f"wire signed [{n + 1}:0] right{r} = row{r};",
                f"wire [{n + 2}:0] chain{r} = {add(f'left{r}', f'right{r}', two)};",
                f"wire [{n + 1}:0] sum{r} = chain{r}[{n + 2}:1];",
            ]
        else:
            lines.append(f"wire [{n + 1}:0] sum0 = {{row0[{n}], row0}};")
    return lines, "{" + ", ".join([f"sum{count - 1}", *(f"sum{r}[1:0]" for r in reversed(range(count - 1)))]) + "}"


def _product(kind: Kind, dsp: bool) -> tuple[list[str], str]:
    """Lines that make `made`, what is added, and the 1 that it lacks."""
    n, m, p = kind.operand_bits, kind.weight_bits, kind.product_bits
    if kind.arithmetic == "pot":
        return [
            f"wire [{p - 1}:0] moved = {extend('a', n, p)} << w[2:0];",
            f"wire [{p - 1}:0] made = ({{{p}{{w[3]}}}} ^ moved) & {{{p}{{!w[4]}}}};",
        ], "w[3] & !w[4]"
    lines, product, lacks = ["// one multiplication, for a DSP block"], "$signed(a) * $signed(w)", "1'b0"
    if not dsp or min(n, m) <= TOO_SMALL:
        (lines, product), lacks = rows(n, m, True), "w[1]"
    if kind.way != "product":
        return [*lines, f"wire signed [{p - 1}:0] made = {product};"], lacks
    far = GROUPS - 1
    return [
        *lines,
        f"wire signed [{p - far - 1}:0] exact = {product};",
        # What lacks its 1 lacks it still when ones come in from below.
        f"wire [{p + far - 1}:0] moved = {{{extend('exact', p - far, p)}, {{{far}{{{lacks}}}}}}} << group;",
        f"wire [{p - 1}:0] made = moved[{p + far - 1}:{far}];",
    ], lacks


def integer(kind: Kind, dsp: bool = False) -> str:
    """The element of a kind that is not fp16. dsp: products are written `*`, for tools to find DSP blocks."""
    n, m, p, s = kind.operand_bits, kind.weight_bits, kind.product_bits, kind.sum_bits
    body, lacks = _product(kind, dsp)
    carried = lacks != "1'b0"
    wide, doubled = extend("product", p, s), f"{{sums[{s - 2}:0], 1'b0}}" if kind.way == "sums" else "sums"
    ports = ["clk", f"[{n - 1}:0] a", f"[{m - 1}:0] w", "clear", "[1:0] mode", f"[{s - 1}:0] above"]
    ports += ["[1:0] group"] if kind.way == "product" else []
    lines = [
        *body,
        f"reg [{p - 1}:0] product;",
        *(["reg lacks;"] if carried else []),
        f"wire [{s - 1}:0] kept = mode[1] ? (mode[0] ? above : {doubled}) : (mode[0] ? sums : {s}'d0);",
        f"wire [{s}:0] chain = {add(wide, 'kept', 'lacks')};" if carried else f"wire [{s}:1] chain = {wide} + kept;",
        "always @(posedge clk) begin",
        f"    product <= clear ? {p}'d0 : made;",
        *([f"    lacks <= !clear & {lacks};"] if carried else []),
        f"    sums <= chain[{s}:1];",
        "end",
    ]
    return module("element", ports, [f"reg [{s - 1}:0] sums"], lines)


def module(name: str, inputs: list[str], outputs: list[str], lines: list[str]) -> str:
    """A module as text."""
    ports = ",\n".join([*(f"    input {i}" for i in inputs), *(f"    output {o}" for o in outputs)])
    body = "\n".join(f"    {line}" for line in lines)
    return f"module {name} (\n{ports}\n);\n{body}\nendmodule\n"
