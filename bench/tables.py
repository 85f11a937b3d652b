"""The README's tables of quant and nas: each the Markdown of one suite's result."""

from __future__ import annotations

from typing import Any

from .report import source


def gemm(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `gemm`."""
    values = {r["name"].removeprefix("gemm/"): r["value"] for r in result["rows"]}
    lines = [
        "| M x N x K | bfloat16, ms | integers, ms | times as fast | quantized on the way | a layer, forward |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    ratios = [f"{what}/vs-bf16" for what in ("gemm", "quantize+gemm", "layer")]
    for shape in dict.fromkeys(name.split("/")[0] for name in values if name[0].isdigit()):
        cells = (values[f"{shape}/{what}"] for what in ("bf16", "gemm", *ratios))
        lines.append("| {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |".format(shape, *cells))
    lines += [
        "| median | | | {:.2f} | {:.2f} | {:.2f} |".format(*(values[f"median/{what}"] for what in ratios)), "",
        "Products of 4-bit codes of 4 groups against oneDNN's of bfloat16, from float32, whose casts are counted; one "
        f"thread, medians of runs in turn. torch {result['torch']}, {result['isa']}. Source: {source(result)}.",
    ]  # fmt: skip
    return "\n".join(lines)


def l1norm(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `l1norm`."""
    values = {r["name"].removeprefix("l1norm/"): r["value"] for r in result["rows"]}
    lines = ["| shape | integer L1, ms | against float32 L2 | against bfloat16 L2 |", "|---|---:|---:|---:|"]
    for shape in dict.fromkeys(name.split("/")[0] for name in values if name[0].isdigit()):
        cells = (values[f"{shape}/{what}"] for what in ("l1", "vs-fp32-l2", "vs-same-width-l2"))
        lines.append("| {} | {:.2f} | {:.2f} times | {:.2f} times |".format(shape, *cells))
    lines += [
        "",
        "A norm's way forward and back on bfloat16 tensors: rows x numbers of layer norms, pictures x height x width "
        "x channels of batch norms; times as fast as torch's own. "
        f"One thread, {result['isa']}. Source: {source(result)}.",
    ]
    return "\n".join(lines)


def quant_train(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `quant-train`."""
    values = {r["name"].removeprefix("train-step/"): r["value"] for r in result["rows"]}
    lines = [
        "| network | batch, bits | a step in bfloat16, ms | in integers, ms | times as fast | kept for the way back |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for model in dict.fromkeys(name.split("/")[0] for name in values):
        cells = (values[f"{model}/{what}"] for what in ("bf16", "integers", "vs-bf16"))
        how = f"{result['models'][model]['batch']}, {result['models'][model]['bits']}"
        share = 100 * values[f"{model}/kept-vs-bf16"]
        lines.append("| {} | {} | {:.1f} | {:.1f} | {:.2f} | {:.0f} % |".format(model, how, *cells, share))
    lines += [
        "",
        "Whole training steps against torch's autocast to bfloat16, one thread, medians of runs in turn. Attention's "
        "own products and GELU are torch's in both. "
        f"torch {result['torch']}, {result['isa']}. Source: {source(result)}.",
    ]
    return "\n".join(lines)


ACCURACY = {
    "fp32": "float32",
    "w4a4g4-position-l1": "4 bits, gradients by position",
    "w4a4g3-tensor-nearest-l1": "gradients of 3 bits, one scale, to the nearest",
    "w4a4g3-tensor-l1": "gradients of 3 bits, one scale",
    "w4a4g3-shift-l1": "gradients of 3 bits, by channel",
    "w4a4g3-two-sided-l1": "gradients of 3 bits, on two sides",
    "w8a8g8-l2": "8 bits, L2 norms in bfloat16",
    "w8a8g8-l1": "8 bits",
    "w6a6g6-two-sided-l2": "6 bits on two sides, L2 norms in bfloat16",
}
NETWORKS = {"char": "Transformer, characters", "resnet20": "ResNet-20", "resnet20-g3": "ResNet-20"}


def quant_accuracy(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `quant-accuracy`."""
    values = {r["name"].removeprefix("accuracy/"): r["value"] for r in result["rows"]}
    lines = ["| network | trained in | epochs | test | training loss |", "|---|---|---:|---:|---:|"]
    for model, schedule in result["schedules"].items():
        epochs, unit = schedule[schedule.index("--epochs") + 1], "bit/character" if model == "char" else "%"
        for name in dict.fromkeys(n.split("/")[1] for n in values if n.startswith(f"{model}/")):
            t, d, loss = (values[f"{model}/{name}/{what}"] for what in ("test", "deviation", "loss"))
            n = 3 if model == "char" else 2
            lines.append(
                f"| {NETWORKS[model]} | {ACCURACY[name]} | {epochs} | {t:.{n}f} +- {d:.{n}f} {unit} | {loss:.3f} |"
            )
    told = f"Means and deviations of {result['seeds']} seeds; rows of as many epochs share schedule and seeds. On the "
    told += f"integer kernels, with integer L1 norms where none are named. Source: {source(result)}."
    return "\n".join([*lines, "", told])


def nas_step(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `nas-step`."""
    values = {r["name"].removeprefix("nas-step/"): r["value"] for r in result["rows"]}
    lines = ["| bit-widths | noise, ms | direct, ms | noise of direct | noise of float |", "|---|---:|---:|---:|---:|"]
    for count in dict.fromkeys(name.split("/")[0] for name in values):
        cells = (values[f"{count}/{what}"] for what in ("noise", "direct", "noise-vs-direct", "noise-vs-float"))
        lines.append("| {} | {:.0f} | {:.0f} | {:.2f} | {:.2f} |".format(count, *cells))
    told = "One step of the weights and one of the choices of `sr-basic` x4, 8 crops of 32x32; one thread, medians of "
    told += f"runs in turn; {result['real']} between layers. Direct rounds to every bit-width, float to none. "
    told += f"Source: {source(result)}."
    return "\n".join([*lines, "", told])


SR = {
    "searched": "searched against noise",
    "searched-directly": "searched by rounding",
    "hand": "8 bits in the first layer, 4 elsewhere",
    "greedy": "8 bits, given up greedily",
    "random": "random",
    "uniform-4": "4 bits everywhere",
    "hand-ends": "8 bits in head, upsampling and tail",
    "uniform-8": "8 bits everywhere",
}


def nas_sr(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `nas-sr`."""
    values = {r["name"].removeprefix("nas-sr/"): r["value"] for r in result["rows"]}
    lines = ["| network | G bit operations | Set5, dB | Set14, dB |", "|---|---:|---:|---:|"]
    for name, told in SR.items():
        cells = [f"{values[f'{name}/{s}']:.2f} \u00b1 {values[f'{name}/{s}/deviation']:.2f}" for s in ("Set5", "Set14")]
        lines.append(f"| {told} | {values[f'{name}/gbitops']:.2f} | {cells[0]} | {cells[1]} |")
    told = "`sr-basic` x4, three networks each, trained alike on photographs that are in neither set; PSNR of luma. "
    return "\n".join([*lines, "", f"{told}Source: {source(result)}."])


SYNTHESIS = {
    "searched": "searched",
    "hand": "by hand: 4x7, 10 bits at the ends",
    "uniform-8": "8 bits everywhere",
}


def nas_synthesis(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `nas-synthesis`."""
    values = {r["name"].removeprefix("nas-synthesis/"): r["value"] for r in result["rows"]}
    qps = [name.split("/")[1] for name in values if name.startswith("searched/qp")]
    heads = "".join(f" {qp.removeprefix('qp')} |" for qp in qps)
    lines = [f"| synthesis | bit operations | dB lost at QP{heads} BD-rate | decode, ms |"]
    lines.append("|---|" + "---:|" * (len(qps) + 3))
    for name, told in SYNTHESIS.items():
        cells = [f"{100 * values[f'{name}/share']:.1f} %", *(f"{values[f'{name}/{qp}/loss']:.3f}" for qp in qps)]
        cells += [f"{values[f'{name}/bdrate']:+.2f} %", f"{values[f'{name}/decode']:.0f}"]
        lines.append(f"| {told} | " + " | ".join(cells) + " |")
    told = (
        f"Bit operations of those of g_s with 8 bits everywhere; {result['pictures']} pictures as real files of the "
        "shipped bundle, drawn by it in float32 and by these, all trained alike on photographs. Decoding takes the "
        f"shipped bundle {values['codec/decode']:.0f} ms by its own loops and {values['codec-onnx/decode']:.0f} by "
        "ONNX Runtime, which runs the others in floating point around rounding: few bits gain time on hardware that "
        f"has them. Source: {source(result)}."
    )
    return "\n".join([*lines, "", told])


FPGA = {
    "fp16": "FP16, fused multiply-add",
    "int8": "integers of 8 bits",
    "int6": "of 6 bits",
    "int6-shift": "of 6 bits, ShiftQuant",
    "int4": "of 4 bits",
    "int4-shift": "of 4 bits, ShiftQuant",
    "pot6": "6 bits times powers of two",
}


def fpga(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `fpga`."""
    values = {r["name"].removeprefix("fpga/"): r["value"] for r in result["rows"]}
    lines = ["| elements | LUT of one | LUT of a tile | CARRY4 | FF | BRAM18 |", "|---|---:|---:|---:|---:|---:|"]
    for kind, name in FPGA.items():
        cells = [values[f"pe/{kind}/lut"], *(values[f"tile/{kind}/{what}"] for what in ("lut", "carry4", "ff", "bram"))]
        lines.append(f"| {name} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    saved = "int6-shift/saving-vs-fp16"
    lines += [
        "",
        "A tile of 16x16 elements, memories and control, for Xilinx' 7 series, without DSP blocks; after mapping "
        f"by yosys, not placed, no timing. ShiftQuant's 6 bits take {values[f'tile/{saved}/lut']:.1f} % fewer LUTs and "
        f"{values[f'tile/{saved}/carry4']:.1f} % fewer CARRY4 than FP16, and "
        f"{values['tile/int6-shift/overhead-vs-int6/lut']:.1f} % more LUTs than plain 6 bits. "
        f"{values['simulated/outputs']:,.0f} simulated results equal their references. Source: {source(result)}.",
    ]
    return "\n".join(lines)
