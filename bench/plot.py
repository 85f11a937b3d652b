"""The rate-distortion plot."""

from __future__ import annotations

from pathlib import Path

STYLES = {
    "mlicpp": ("MLIC++ (published)", "#9467bd", "--"),
    "vtm": ("VTM 9.1 (published)", "#333333", "--"),
    "avif": ("AVIF", "#2ca02c", "-"),
    "webp": ("WebP", "#1f77b4", "-"),
    "jpeg": ("JPEG", "#999999", "-"),
    "ours": ("mlicv2-s", "#d62728", "-"),
}  # codec -> legend, colour, line


def draw(path: Path, curves: dict[str, tuple[list[float], list[float]]], title: str) -> None:
    """Draw {codec: (bits per pixel, PSNR in dB)} to a picture file. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, (label, colour, line) in STYLES.items():
        if name in curves:
            axes.plot(*curves[name], line, color=colour, label=label, marker="o", markersize=3,
                      linewidth=2 if name == "ours" else 1.2)  # fmt: skip
    axes.set(xlabel="bits per pixel", ylabel="PSNR (RGB), dB", title=title, xlim=(0, 2.5), ylim=(25, 43))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
