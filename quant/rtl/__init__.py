"""Plain Verilog of one engine for narrow integers, ShiftQuant's shifts, powers of two, and binary16 as their peer.

    kinds      the elements and their widths          layer      layers, and what they must give
    element    the integer elements                   program    layers as jobs of an engine, in exact cycles
    float16    the peer, a fused multiply-add         simulate   yosys' cxxrtl and a C++ compiler
    engine     array, memories, control               synthesis  yosys' synth_xilinx, cells counted

docs/fpga.md says what came of it; `python -m bench fpga` measures it again.
"""
