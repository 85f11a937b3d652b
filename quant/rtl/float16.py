"""Verilog of the peer: IEEE 754 binary16 fused multiply-add, a * w + sum, in a module `element`.

Rounded once, to the nearest, ties to even. Subnormal operands and results are whole; infinities are IEEE's; every NaN
is 7e00. Written for this comparison; it has 534 LUTs where FloPoCo's IEEEFMA has 771 (yosys, no DSP blocks).

    product register   significands of 11 bits by Booth's rows, as the integers have them: 22 bits
    then a frame       38 bits: the sum's significand, 2 bits room, the product, 2 bits more than it has, sticky.
                       The sum moves right; where it is far larger, it stays, and the product is sticky itself. The two
                       bits more hold what a product of a subnormal number would need for rounding
    sum register       add or subtract, magnitude, leading zeros, shift left but not below the least exponent, one
                       addition that rounds and carries into the exponent
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.rtl.element import module, rows

FRAME = 38


def _leading_zeros() -> list[str]:
    """zeros: of size[37:0], by halves; 38 and more only where all are zero, which nobody asks for."""
    lines = ["wire [63:0] level5 = {size, 26'd0};"]
    for bit in reversed(range(6)):
        half = 1 << bit
        lines.append(f"wire none{bit} = level{bit}[{2 * half - 1}:{half}] == 0;")
        if bit:
            lines.append(
                f"wire [{half - 1}:0] level{bit - 1} = none{bit} ? level{bit}[{half - 1}:0] : "
                f"level{bit}[{2 * half - 1}:{half}];"
            )
    return [*lines, "wire [5:0] zeros = {none5, none4, none3, none2, none1, none0};"]


def fused(dsp: bool = False) -> str:
    """The element. dsp: the product of significands is written `*`."""
    lines, product = (["// for a DSP block"], "a * w") if dsp else rows(12, 11, False)
    multiplier = module(
        "significands", ["[11:0] a", "[10:0] w"], ["[21:0] product"],
        [*lines, f"wire [23:0] exact = {'a * w' if dsp else product};", "assign product = exact[21:0];"],
    )  # fmt: skip
    body = [
        # -- first stage: an exact product
        "wire a_normal = |x[14:10], w_normal = |y[14:10];",
        "wire [4:0] a_exponent = {x[14:11], x[10] | !a_normal}, w_exponent = {y[14:11], y[10] | !w_normal};",
        "wire a_top = &x[14:10], w_top = &y[14:10];",
        "wire a_zero = !a_normal & x[9:0] == 0, w_zero = !w_normal & y[9:0] == 0;",
        "wire a_nan = a_top & x[9:0] != 0, w_nan = w_top & y[9:0] != 0;",
        "wire [21:0] exact;",
        "significands multiply (.a({1'b0, a_normal, x[9:0]}), .w({w_normal, y[9:0]}), .product(exact));",
        "reg [21:0] product;",
        "reg [5:0] scale;  // the biased exponent that bit 37 of the frame stands for; 0 for a product of zero",
        "reg sign, infinite, nan;",
        "always @(posedge clk) begin",
        "    product <= exact;",
        "    sign <= x[15] ^ y[15];",
        "    scale <= a_zero | w_zero ? 6'd0 : a_exponent + w_exponent - 6'd1;",
        "    infinite <= a_top | w_top;",
        "    nan <= a_nan | w_nan | (a_top & w_zero) | (w_top & a_zero);",
        "end",
        # -- second stage: aligned, added, normalized, rounded
        "wire [15:0] c = mode == 2'd0 ? 16'd0 : sums;",
        "wire c_normal = |c[14:10], c_top = &c[14:10];",
        "wire [4:0] c_exponent = {c[14:11], c[10] | !c_normal};",
        "wire signed [6:0] apart = $signed({1'b0, scale}) - $signed({2'b0, c_exponent});",
        "wire [5:0] right = apart[6] ? 6'd0 : apart[5:0];",
        "wire [5:0] frame = apart[6] ? {1'b0, c_exponent} : scale;",
        "wire [73:0] far = {c_normal, c[9:0], 63'd0} >> right;",
        "wire [37:0] moved = {far[73:37], |far[36:0]};",
        "wire minus = sign ^ c[15];",
        "wire [39:0] chain = {14'd0, product, 3'd0, 1'b1} + {{39{minus}} ^ {1'b0, moved}, minus};",
        "wire [38:0] total = chain[39:1];",
        "wire less = total[38];",
        "wire [38:0] chain2 = {{38{less}} ^ total[37:0], 1'b1} + {38'd0, less};",
        "wire [37:0] size = chain2[38:1];",
        *_leading_zeros(),
        "wire [5:0] room = frame - 6'd1;",
        "wire [5:0] left = zeros < room ? zeros : room;",
        "wire [37:0] normal = size << left;",
        "wire up = normal[26] & (normal[27] | |normal[25:0]);",
        "wire [5:0] exponent = room - left;",
        "wire [17:0] chain3 = {1'b0, exponent, 10'd0, 1'b1} + {6'd0, normal[37:27], up};",
        "wire [16:0] rounded = chain3[17:1];",
        "wire result_sign = size == 0 ? sign & c[15] : (less ? c[15] : sign);",
        "wire over = rounded[16:10] >= 7'd31;",
        "wire c_nan = c_top & c[9:0] != 0;",
        "wire any_nan = nan | c_nan | (infinite & c_top & minus);",
        "wire [15:0] result = any_nan ? 16'h7e00",
        "    : infinite ? {sign, 15'h7c00} : c_top ? c : {result_sign, over ? 15'h7c00 : rounded[14:0]};",
        "always @(posedge clk) sums <= mode == 2'd3 ? above : result;",
    ]
    ports = ["clk", "[15:0] a", "[15:0] w", "clear", "[1:0] mode", "[15:0] above"]
    named = ["wire [15:0] x = a, y = w;", *body]
    return multiplier + module("element", ports, ["reg [15:0] sums"], named)


Halfs = NDArray[np.float16]


def fma(a: Halfs, w: Halfs, c: Halfs) -> Halfs:
    """a * w + c in numpy, rounded once: the definition.

    A product is exact in float64. A sum that is not is rounded to odd there, so that rounding to binary16 cannot tell
    the difference (Boldo and Melquiond, 2008).
    """
    with np.errstate(all="ignore"):
        product, addend = np.multiply(a, w, dtype=np.float64), c.astype(np.float64)
        total = np.asarray(product + addend)
        back = total - product
        lost = (product - (total - back)) + (addend - back)  # what rounding took away, exactly (Knuth)
        bits = total.view(np.int64)
        away = (lost > 0) == (total > 0)  # the exact sum is larger in size
        odd = np.where(np.isfinite(total) & (lost != 0) & (bits & 1 == 0), np.where(away, bits | 1, bits - 1), bits)
        return odd.view(np.float64).astype(np.float16)
