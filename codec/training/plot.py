"""The picture of a run: rate, PSNR and learning rate over crops seen."""

from __future__ import annotations

import json
from pathlib import Path


def draw(folder: Path) -> None:
    """folder/log.jsonl -> folder/progress.png"""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps, judged = [r for r in rows if "loss" in r], [r for r in rows if "held_out" in r]
    figure, axes = pyplot.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    for axis, what, label in zip(axes, ("bpp", "psnr", "lr"), ("bit/pixel", "PSNR, dB", "learning rate"), strict=True):
        axis.plot([r["crops"] for r in steps], [r[what] for r in steps], label="training crops, all QPs")
        for i, qp in enumerate(r["qp"] for r in judged[-1]["held_out"]) if judged and what != "lr" else ():
            axis.plot(
                [r["crops"] for r in judged],
                [r["held_out"][i][what] for r in judged],
                "o-",
                label="" if qp is None else f"QP {qp}",
            )
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small", title="held-out photographs", title_fontsize="small")
    axes[2].set_xlabel("crops of 256x256 seen")
    figure.savefig(folder / "progress.png", dpi=110)
    pyplot.close(figure)
