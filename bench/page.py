"""The report of suite `rd` as one page: curves, BD-rates, speeds, a viewer and every point in a single HTML file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from xml.etree import ElementTree

from codec import files

LIMIT = 10_000_000  # bytes of the page: what a mail or an issue still takes
INK = "#010203"  # stands for the page's text colour, which SVG calls currentColor and matplotlib does not know
COLOURS = {"ours": "#d62728", "jpeg": "#999999", "webp": "#1f77b4", "avif": "#2ca02c", "jxl": "#ff7f0e"}
SPARE = ("#9467bd", "#17becf", "#e377c2", "#bcbd22", "#b5784a")  # visible on white and on black
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "*": "★", "P": "✚", "X": "✖"}  # and their likeness
METRICS = {
    "psnr": ("PSNR", "PSNR (RGB), dB"),
    "psnr_y": ("PSNR-Y", "PSNR (luma), dB"),
    "ms_ssim": ("MS-SSIM", "MS-SSIM as −10 log10(1 − x), dB"),
    "ssimulacra2": ("SSIMULACRA 2", "SSIMULACRA 2"),
}  # key -> short name, axis


class Look(NamedTuple):
    """How a codec is drawn wherever it appears: colour, matplotlib's marker ("" for a dashed line), legend sign."""

    colour: str
    marker: str
    sign: str


class Line(NamedTuple):
    """One curve."""

    label: str  # in the legend
    x: Sequence[float]
    y: Sequence[float]
    look: Look


class Column(NamedTuple):
    """One column of a table."""

    key: str  # in the records
    title: str
    digits: int | None = None  # decimals; None for text
    sign: bool = False  # whether a plus is written


CODEC = Column("codec", "codec")
BD = (
    CODEC, Column("anchor", "anchor"), Column("metric", "metric"),
    Column("rate", "BD-rate, %", 1, True), Column("low", "95 % from", 1, True), Column("high", "95 % to", 1, True),
    Column("akima", "Akima, %", 1, True), Column("db", "BD-PSNR, dB", 2, True),
    Column("from", "range from", 1), Column("to", "range to", 1), Column("warning", "warning"),
)  # fmt: skip
SPEED = (
    CODEC, Column("encode_mps", "encode, MP/s", 2), Column("decode_mps", "decode, MP/s", 2),
    Column("peak_mib", "peak, MiB", 0), Column("bugs", "bugs", 0),
    Column("settings", "settings"), Column("version", "version"),
)  # fmt: skip
POINTS = (
    CODEC, Column("level", "level"), Column("picture", "picture"), Column("bytes", "bytes", 0),
    Column("bpp", "bit/pixel", 3), Column("psnr", "PSNR, dB", 2), Column("psnr_y", "PSNR-Y, dB", 2),
    Column("ms_ssim", "MS-SSIM", 4), Column("ssimulacra2", "SSIMULACRA 2", 1),
    Column("encode_s", "encode, s", 3), Column("decode_s", "decode, s", 3), Column("error", "error"),
)  # fmt: skip


def write(path: Path, results: dict[str, Any], viewer: list[dict[str, Any]]) -> None:
    """Write the results of suite `rd` and crops for the viewer (images as data: URLs) as one HTML file.

    The file asks the network for nothing and stays under 10 MB: crops that would not fit are left out, the last ones
    first, and the page says how many. Makes the folder where needed. Raises ImportError without jinja2 or matplotlib.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    home = FileSystemLoader(Path(__file__).parent)
    world = Environment(autoescape=True, loader=home, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    world.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    template, content = world.get_template("page.html"), _content(results)
    for count in range(len(viewer), -1, -1):
        text = template.render(content, viewer=viewer[:count], left_out=len(viewer) - count)
        page = text.encode(errors="replace")  # a file name that is no Unicode must not cost the report
        if len(page) < LIMIT:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(str(path), page)


def _content(results: dict[str, Any]) -> dict[str, Any]:
    """All that the template shows except the viewer."""
    curves, codecs, bd = results["curves"], results["codecs"], results["bd"]
    looks = _looks([codec["name"] for codec in codecs] + list(curves))
    lines = {metric: _lines(curves, metric, looks) for metric in METRICS}
    for colour, (name, curve) in zip(cycle(reversed(SPARE)), results["published"].items(), strict=False):
        lines["psnr"].append(Line(f"{name} ({curve['source']})", curve["bpp"], curve["psnr"], Look(colour, "", "╌╌")))
    speeds = {name: _speed(curve) for name, curve in curves.items()}
    first = {key: bd[0][key] if bd else None for key in ("anchor", "metric")}
    deltas = {r["codec"]: r["rate"] for r in bd if first.items() <= r.items()} | {first["anchor"]: 0}
    trade = [
        Line(name, [speed["decode_mps"]], [deltas[name]], looks[name])
        for name, speed in speeds.items()
        if speed["decode_mps"] and deltas.get(name) is not None
    ]
    about = {codec["name"]: codec for codec in codecs}
    speed_rows = [{**about.get(name, {}), "codec": name, **speed} for name, speed in speeds.items()]
    return {
        "results": results,
        "charts": [(key, name, lines[key], _chart(key, "bit/pixel", axis, lines[key]))
                   for key, (name, axis) in METRICS.items() if lines[key]],
        "trade": {"lines": trade, "svg": _chart("trade", "decode, MP/s", "BD-rate, %", trade), **first},
        "tables": {
            "bd": _table(BD, bd, first, "rate"),
            "speed": _table(SPEED, speed_rows, {}, None),
            "points": _table(POINTS, results["points"], {"codec": None, "level": None}, None),
        },
    }  # fmt: skip


def _looks(names: Iterable[str]) -> dict[str, Look]:
    """One look per name: the colour it always has, or one to spare."""
    spare, markers = cycle(SPARE), cycle(MARKERS.items())
    return {name: Look(COLOURS.get(name) or next(spare), *next(markers)) for name in dict.fromkeys(names)}


def _lines(curves: dict[str, Any], metric: str, looks: dict[str, Look]) -> list[Line]:
    """The measured curves that have the metric; a point where it is perfect has no place on a dB axis."""
    lines = []
    for name, curve in curves.items():
        found = sorted((p["bpp"], p[metric]) for p in curve if p.get("bpp") and p.get(metric) is not None)
        if metric == "ms_ssim":
            found = [(x, -10 * math.log10(1 - y)) for x, y in found if y < 1]
        if found := [(x, y) for x, y in found if math.isfinite(y)]:
            lines.append(Line(name, [x for x, _ in found], [y for _, y in found], looks[name]))
    return lines


def _speed(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean megapixels per second over the levels, highest peak, all bugs; None where nothing was measured."""
    rules: dict[str, Callable[..., Any]] = {"encode_mps": fmean, "decode_mps": fmean, "peak_mib": max, "bugs": sum}
    found = {key: [p[key] for p in curve if p.get(key) is not None] for key in rules}
    return {key: rule(found[key]) if found[key] else None for key, rule in rules.items()}


def _chart(name: str, xlabel: str, ylabel: str, lines: list[Line]) -> str:
    """A plot over a logarithmic axis as inline SVG (markupsafe.Markup). No name of a codec is in it."""
    from markupsafe import Markup
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, **dict.fromkeys(inked, INK)}):
        figure = Figure(figsize=(5, 3.6))
        axes = figure.add_axes((0.14, 0.13, 0.85, 0.85))
        for line in lines:
            axes.plot(line.x, line.y, "-" if line.look.marker else "--", color=line.look.colour, linewidth=1.5,
                      marker=line.look.marker or None, markersize=5 if len(line.x) > 1 else 9)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.2)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    # Inline, several figures share one document: no prolog, and each id under the figure's own name.
    for prefix, space in (("", "2000/svg"), ("xlink", "1999/xlink")):  # HTML knows them by these prefixes alone
        ElementTree.register_namespace(prefix, f"http://www.w3.org/{space}")
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        for key, value in element.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            if key == "clip-path" or key.endswith("href"):
                element.set(key, value.replace("#", f"#{name}-"))
    return Markup(ElementTree.tostring(root, encoding="unicode").replace(INK, "currentColor"))


def _table(
    columns: Sequence[Column], records: Iterable[dict[str, Any]], filters: dict[str, str | None], sort: str | None
) -> dict[str, Any]:
    """A table for the page's script, without empty columns; texts are indices into `words`, as most come often.

    `filters`: column -> the value chosen at first, None for all; `sort`: the column that is sorted at first.
    """
    words: dict[str, int] = {}

    def cell(value: Any, digits: int | None) -> float | None:
        if value is None or value != value:
            return None
        return words.setdefault(str(value), len(words)) if digits is None else round(value, digits)

    rows = [[cell(record.get(c.key), c.digits) for c in columns] for record in records]
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    head = {"columns": [columns[i]._asdict() for i in kept], "filters": filters, "sort": sort, "words": list(words)}
    return {**head, "rows": [[row[i] for i in kept] for row in rows]}
