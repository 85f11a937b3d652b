"""The kinds of processing element that an engine can be an array of, and the widths that follow from each.

All are one multiply-accumulate a cycle, with registers at the same three places: operands (at the edge of the array,
one for each row and column, which all its elements share), product, sum.

    int4 int6 int8     signed codes times signed codes; sums of product bits + HEADROOM
    intB-shift         the same with ShiftQuant's groups: sums are doubled where a group ends (Horner's rule)
    intB-shift-product each product is shifted by its group's exponent before it is added
    intB-shift-operand the activation is shifted at the edge of the array, once for a whole column
    pot4 pot6 pot8     signed codes times powers of two 2^0..2^7, with a sign, or times zero
    fp16               IEEE 754 binary16: fused multiply-add, rounded once, into a binary16 sum

The three ways of the shift give the same integers (quant.reference has them too). The first is the smallest and what
"intB-shift" means: it takes channels in the order of their groups, which is the order in which they are written to the
buffer and nothing else. The others are here to be measured against it. All of it is our choice; the paper shows the
second (its figure 3).
"""

from __future__ import annotations

from dataclasses import dataclass

HEADROOM = 10  # bits of a sum over those of a product
TERMS = 2047  # products of any codes that it holds then
GROUPS = 4  # ShiftQuant's default: shifts of 0..3
POT_SHIFTS = 8  # 2^0..2^7


@dataclass(frozen=True)
class Kind:
    """bits: of an activation's code. way: of the shift, "" for none."""

    name: str
    bits: int
    arithmetic: str = "int"  # int, pot, fp16
    way: str = ""  # sums, product, operand

    @property
    def weight_bits(self) -> int:
        """Of a weight's code; of a power of two: zero, sign, exponent, from the top."""
        return 5 if self.arithmetic == "pot" else self.bits

    @property
    def operand_bits(self) -> int:
        """Of an activation as the elements get it."""
        return self.bits + (GROUPS - 1 if self.way == "operand" else 0)

    @property
    def group_bits(self) -> int:
        """That go with each word of weights: whether sums are doubled before it, or how far its channel is shifted."""
        return {"": 0, "sums": 1}.get(self.way, 2)

    @property
    def product_bits(self) -> int:
        """Of a product as it is added."""
        if self.arithmetic == "fp16":
            return 16
        wide = self.bits + POT_SHIFTS if self.arithmetic == "pot" else 2 * self.bits
        return wide + (GROUPS - 1 if self.way in ("product", "operand") else 0)

    @property
    def sum_bits(self) -> int:
        """Of the accumulator."""
        if self.arithmetic == "fp16":
            return 16
        return self.product_bits + HEADROOM + (GROUPS - 1 if self.way == "sums" else 0)


KINDS = {
    k.name: k
    for k in (
        *(Kind(f"int{b}", b) for b in (4, 6, 8)),
        *(Kind(f"int{b}-shift", b, way="sums") for b in (4, 6, 8)),
        *(Kind(f"int6-shift-{way}", 6, way=way) for way in ("product", "operand")),
        *(Kind(f"pot{b}", b, "pot") for b in (4, 6, 8)),
        Kind("fp16", 16, "fp16"),
    )
}
