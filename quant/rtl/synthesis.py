"""What a design takes of a device: yosys' synth_xilinx for the 7 series, and its cells counted.

Cells are counted after mapping and before placement: LUTs of all sizes (an inverter is one, a distributed memory is as
many as it occupies), flip-flops, CARRY4, DSP48E1 and block memories of 18 kbit. Two small LUTs that would share one of
the device (LUT6_2) count as two; multiplexers behind LUTs (MUXF7, MUXF8) are not counted. There is no timing in this.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quant.rtl.simulate import run_yosys

# LUTs that cells other than LUT1..LUT6 occupy.
LUTS = {
    "INV": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1, "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2,
    "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM32M": 4, "RAM64M": 4,
}  # fmt: skip
BLOCKS = {"RAMB18E1": 1, "RAMB36E1": 2}


@dataclass(frozen=True)
class Cells:
    """Counts; bram in blocks of 18 kbit."""

    lut: int
    ff: int
    carry4: int
    dsp: int
    bram: int


def count(cells: dict[str, int]) -> Cells:
    """Of yosys' numbers by type."""
    lut = sum(n for t, n in cells.items() if t in {f"LUT{i}" for i in range(1, 7)})
    lut += sum(n * cells.get(t, 0) for t, n in LUTS.items())
    ff = sum(cells.get(t, 0) for t in ("FDRE", "FDSE", "FDCE", "FDPE"))
    bram = sum(n * cells.get(t, 0) for t, n in BLOCKS.items())
    return Cells(lut, ff, cells.get("CARRY4", 0), cells.get("DSP48E1", 0), bram)


def synthesize(verilog: str, top: str, dsp: bool = False, flat: bool = True) -> Cells:
    """Map a design. dsp: whether DSP blocks may be used. Not flat: each module for itself, then summed, which is
    quicker and hardly larger. Raises Missing without yosys, ValueError where it fails."""
    options = ("-flatten " if flat else "") + ("" if dsp else "-nodsp")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.v").write_text(verilog)
        run_yosys(
            f"read_verilog design.v; synth_xilinx -family xc7 -noiopad -noclkbuf {options} -top {top}; "
            "tee -q -o cells.json stat -json",
            folder,
        )
        found = json.loads((folder / "cells.json").read_text())
    return count(found["design"]["num_cells_by_type"])
