"""The page of suite `rd` in a real browser: quiet, without network, sortable, comparable, and deaf to hostile names."""

import base64
import io
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.page import LIMIT, write

for module in ("jinja2", "matplotlib"):
    pytest.importorskip(module, reason="the extra `bench` is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CODECS = {"jpeg": 3.0, "webp": 2.2, "avif": 1.5, "ours": 1.2, "jxl": 1.8, "bpg": 1.4, "heif": 1.6}  # name -> bits
LEVELS = ["q5", "q10", "q20", "q40", "q60", "q80", "q95"]
HOSTILE = ["<b>x</b>.png", "</script><script>window.hacked = 1</script>", "'\"&amp;$x$ {{ 1 + 1 }}\u2028", "\udcff"]


def data_url(image: Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, "webp", **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def results(pictures: list[str], codecs: tuple[str, ...] = ("jpeg", "webp", "ours")) -> dict[str, Any]:
    """Made-up results in the shape that suite `rd` gives them, with one failed point and a few things missing."""
    points, curves, random = [], {}, np.random.default_rng(1)
    for codec in codecs:
        curve: list[dict[str, Any]] = []
        for i, level in enumerate(LEVELS):
            rate = 0.08 * CODECS[codec] * 1.7**i
            seconds = {"encode_s": 0.01 * CODECS[codec], "decode_s": 0.004 * CODECS[codec]}
            quality = {"bpp": rate, "psnr": 25 + 2.5 * i, "psnr_y": 26 + 2.6 * i, "ms_ssim": 1 - 0.06 * 0.6**i}
            speeds = {"encode_mps": 4 * CODECS[codec], "decode_mps": 9 / CODECS[codec]}
            rest = {"ssimulacra2": None, "peak_mib": 80.25, "bugs": i % 2}
            curve.append({"level": level, **quality, **seconds, **speeds, **rest})
            for picture in pictures:
                bpp = rate * float(random.uniform(0.5, 2))
                own = {"bytes": round(bpp * 49152), "bpp": bpp, "psnr": float(random.uniform(25, 42)), "error": None}
                points.append({"codec": codec, "level": level, "picture": picture, **quality, **own, **seconds})
        curves[codec] = curve
    nothing = dict.fromkeys(("bytes", "bpp", "psnr", "psnr_y", "ms_ssim", "encode_s", "decode_s"))
    points[1] |= {**nothing, "error": "ValueError: <i>no</i> such level"}
    points[2]["psnr"] = math.inf
    bd = [
        {"codec": codec, "anchor": "jpeg", "metric": metric, "rate": -10.5 * i, "low": -10.5 * i - 2, "db": 0.4 * i,
         "high": -10.5 * i + 3, "akima": -10.4 * i, "from": 27.0, "to": 41.0, "warning": None}
        for metric in ("psnr", "ms_ssim") for i, codec in enumerate(codecs[1:], 1)
    ]  # fmt: skip
    bd[-1] |= {**dict.fromkeys(("rate", "low", "high", "akima", "db")), "warning": "no overlap: 27..30 against 31..40"}
    return {
        "suite": "rd",
        "machine": {"cpu": "AMD EPYC", "cores": 2, "platform": "Linux x86_64, Python 3.11.7"},
        "commit": "abc1234",
        "command": "python -m bench rd --pictures kodak --out report",
        "libraries": {"pillow": "13.0.0", "libwebp": "1.6.0", "aom": None},
        "rules": ["Rates and qualities are averaged over the pictures, then compared.", "PSNR is taken in RGB."],
        "codecs": [
            *({"name": codec, "settings": "method 6, 4:2:0", "absent": None} for codec in codecs),
            {"name": "vvc", "settings": "medium", "absent": "pip install <vvc>"},
        ],
        "curves": curves,
        "published": {"compressai/vtm": {"bpp": [0.1, 0.3, 0.9], "psnr": [28, 33, 38], "source": "vtm.json"}},
        "bd": bd,
        "points": points,
    }


def crops(pictures: list[str], codecs: tuple[str, ...], make: Callable[[int], Image.Image]) -> list[dict[str, Any]]:
    """Viewer data: each picture made by `make(seed)`, and per codec a lossy copy of it."""
    viewer = []
    for seed, picture in enumerate(pictures):
        image = make(seed)
        images = [{"codec": "original", "label": "original", "src": data_url(image, lossless=True)}]
        for i, codec in enumerate(codecs):
            src = data_url(image, quality=5 + 5 * i)
            images.append({"codec": codec, "label": f"{codec} q{seed}, 12,345 bytes, 0.251 bit/pixel", "src": src})
        viewer.append({"picture": picture, "crop": [8, 16, *image.size], "images": images})
    return viewer


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (320, 320, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """show(results, viewer, **context options): the page, open. Afterwards it must have been quiet and offline."""
    path = tmp_path / "out" / "report.html"
    troubles: list[str] = []
    requests: list[str] = []
    contexts: list[Any] = []

    def opened(result: dict[str, Any], viewer: list[dict[str, Any]], **options: Any) -> Any:
        write(path, result, viewer)
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}


def column(page: Any, table: str, title: str) -> list[str]:
    """The texts of a column from top to bottom."""
    titles = [text.strip() for text in page.locator(f"#{table} th").all_inner_texts()]
    return page.locator(f"#{table} tbody td:nth-child({titles.index(title) + 1})").all_text_contents()


def numbers(texts: list[str]) -> list[float]:
    """Written numbers as floats; a dash, for what is missing, as NaN."""
    return [math.nan if t == "–" else float(t.replace(",", "").replace("−", "-").replace("∞", "inf")) for t in texts]


def sort(page: Any, table: str, title: str) -> str | None:
    """Click a header; what it then says of itself."""
    head = page.locator(f"#{table} th", has_text=title)
    head.locator("button").click()
    return head.get_attribute("aria-sort")


def clip(page: Any) -> str:
    return page.locator("#over").evaluate("image => getComputedStyle(image).clipPath")


def test_headers_sort_both_ways(show: Callable[..., Any]) -> None:
    page = show(results(["kodim01", "kodim02", "kodim10"]), [])
    assert sort(page, "points", "bytes") == "ascending"
    rising = numbers(column(page, "points", "bytes"))
    assert math.isnan(rising.pop())  # the failed one
    assert rising == sorted(rising) and rising != sorted(rising, key=str) and len(rising) == 3 * 3 * 7 - 1
    assert sort(page, "points", "bytes") == "descending"
    falling = numbers(column(page, "points", "bytes"))
    assert math.isnan(falling.pop()) and falling == rising[::-1]
    assert sort(page, "points", "PSNR, dB") == "ascending"
    assert page.locator("#points th[aria-sort=none]").count() == page.locator("#points th").count() - 1
    assert column(page, "points", "PSNR, dB")[-2:] == ["∞", "–"]
    page.locator("#points th button", has_text="level").focus()
    page.keyboard.press("Enter")
    levels = column(page, "points", "level")
    assert list(dict.fromkeys(levels)) == LEVELS  # q5 before q10


def test_filters_and_errors(show: Callable[..., Any]) -> None:
    page = show(results(["kodim01", "kodim02"]), [])
    bad = page.locator("#points tr.bad")
    assert bad.count() == 1 and "ValueError: <i>no</i> such level" in bad.inner_text()
    red, other = ("td => getComputedStyle(td).color", "#points tbody tr:not(.bad) td")
    assert bad.locator("td").first.evaluate(red) != page.locator(other).first.evaluate(red)
    page.locator("#points select[data-key=codec]").select_option(label="webp")
    assert set(column(page, "points", "codec")) == {"webp"} and len(column(page, "points", "codec")) == 14
    page.locator("#points select[data-key=level]").select_option(label="q10")
    assert len(column(page, "points", "codec")) == 2
    assert page.locator("#points [role=status]").inner_text() == "2 of 42 rows"


def test_many_points_come_in_portions(show: Callable[..., Any]) -> None:
    page = show(results([f"p{i}" for i in range(30)]), [])
    rows, everything = page.locator("#points tbody tr"), page.locator("#points .all")
    assert rows.count() == 500 and page.locator("#points [role=status]").inner_text() == "500 of 630 rows"
    everything.click()
    assert rows.count() == 630 and not everything.is_visible()


def test_bd_rates_and_absent_codecs(show: Callable[..., Any]) -> None:
    page = show(results(["a"]), [])
    assert column(page, "bd", "codec") == ["ours", "webp"]  # PSNR alone, fewest bits first
    assert column(page, "bd", "BD-rate, %") == ["−21.0", "−10.5"]
    assert page.locator("#bd th[aria-sort=ascending]").inner_text().strip().startswith("BD-rate")
    assert page.locator("#bd select[data-key=anchor]").evaluate("s => s.selectedOptions[0].text") == "jpeg"
    page.locator("#bd select[data-key=metric]").select_option(label="ms_ssim")
    assert column(page, "bd", "BD-rate, %") == ["−10.5", "–"]
    assert column(page, "bd", "warning") == ["–", "no overlap: 27..30 against 31..40"]
    assert page.locator(".absent").all_inner_texts() == ["vvc is absent: pip install <vvc>"]
    assert column(page, "speed", "codec") == ["jpeg", "webp", "ours"]
    assert numbers(column(page, "speed", "decode, MP/s")) == [3, 4.09, 7.5]
    assert column(page, "speed", "bugs") == ["3"] * 3


def test_metric_switches(show: Callable[..., Any]) -> None:
    page = show(results(["a"]), [])
    charts = {key: page.locator(f"#curve-{key}") for key in ("psnr", "psnr_y", "ms_ssim")}
    assert page.locator("[name=metric]").count() == 3  # SSIMULACRA 2 was never measured
    assert [key for key, chart in charts.items() if chart.is_visible()] == ["psnr"]
    assert "compressai/vtm (vtm.json)" in charts["psnr"].inner_text()
    boxes = charts["psnr"].locator("use").evaluate_all("uses => uses.map(use => use.getBoundingClientRect().toJSON())")
    assert sum(box["width"] > 0 and box["height"] > 0 for box in boxes) == 3 * 7  # every marker is drawn
    page.get_by_label("MS-SSIM", exact=True).check()
    assert [key for key, chart in charts.items() if chart.is_visible()] == ["ms_ssim"]
    assert "vtm" not in charts["ms_ssim"].inner_text()
    page.keyboard.press("ArrowUp")
    assert [key for key, chart in charts.items() if chart.is_visible()] == ["psnr_y"]


def test_viewer(show: Callable[..., Any]) -> None:
    viewer = crops(["first", "second"], ("ours", "webp"), noise)
    page = show(results(["a"]), viewer, viewport={"width": 1280, "height": 900})
    over, under, stage = page.locator("#over"), page.locator("#under"), page.locator(".stage")
    assert page.locator("#left-label").inner_text() == "original"
    assert page.locator("#right-label").inner_text() == viewer[0]["images"][1]["label"]
    assert under.evaluate("image => image.complete && image.naturalWidth") == 320

    assert clip(page) == "inset(0px 160px 0px 0px)"
    page.locator("#split").fill("250")
    assert clip(page) == "inset(0px 240px 0px 0px)"
    page.locator("#split").press("ArrowRight")
    assert clip(page) != "inset(0px 240px 0px 0px)"
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 40, steps=3)
    page.mouse.up()
    page.mouse.move(box["x"] + 20, box["y"] + 20)  # no longer dragging
    assert clip(page) == "inset(0px 80px 0px 0px)" and page.locator("#split").input_value() == "750"

    page.locator("#right").select_option(label="webp")
    page.locator("#picture").select_option(label="second")
    assert over.get_attribute("src") == viewer[1]["images"][0]["src"]
    assert under.get_attribute("src") == viewer[1]["images"][2]["src"]  # still webp
    assert page.locator("#right-label").inner_text().startswith("webp q1, 12,345 bytes")
    page.locator("#zoom").select_option(label="4×")
    assert stage.bounding_box()["width"] == 1280 and stage.bounding_box()["height"] == 1280
    assert over.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    page.set_viewport_size({"width": 390, "height": 844})
    frame = page.locator(".frame")
    frame.evaluate("frame => { frame.scrollLeft = 300; }")
    # Not wait_for_function, which evaluates text in the page: the page's own policy forbids that.
    frame.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("parseFloat(document.querySelector('.split').style.left)") > 300
    kept = page.locator(".split").bounding_box()["x"] - frame.bounding_box()["x"]
    assert kept == pytest.approx(0.75 * frame.evaluate("frame => frame.clientWidth"), abs=3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out on a phone


def test_hostile_names_are_text(show: Callable[..., Any]) -> None:
    result = results(HOSTILE) | {"command": HOSTILE[1], "rules": [HOSTILE[0]]}
    result["published"][HOSTILE[1]] = {"bpp": [0.1, 1], "psnr": [30, 40], "source": "<img src=http://example.org>"}
    result["curves"][HOSTILE[0]] = result["curves"]["webp"]
    viewer = crops(HOSTILE, (HOSTILE[1],), noise)
    viewer[0]["images"][1]["label"] = label = '"><img src=x onerror=alert(1)>'
    page = show(result, viewer)
    assert page.evaluate("window.hacked") is None and page.locator("script").count() == 1
    assert page.locator("b, i, [onerror]").count() == 0
    assert {*HOSTILE[:3]} < set(column(page, "points", "picture"))  # the fourth is no Unicode
    assert page.locator("#right-label").inner_text() == label
    assert page.locator("#picture option").first.inner_text() == HOSTILE[0]
    assert HOSTILE[1] in page.locator(".soft code").inner_text()
    assert page.locator(".rules li").all_inner_texts() == [HOSTILE[0]]
    assert HOSTILE[0] in page.locator("#curve-psnr .legend").inner_text()


def test_empty_parts_are_left_out(show: Callable[..., Any]) -> None:
    page = show(results(["a"]), [])
    assert page.locator("#viewer").count() == 0 and page.locator("#curves").count() == 1
    nothing: dict[str, Any] = {"curves": {}, "published": {}, "bd": [], "points": [], "commit": None}
    page = show(results(["a"]) | nothing, [])
    assert page.locator("#viewer, #curves, table").count() == 0
    assert page.locator(".absent").count() == 1


def test_stays_under_the_limit(tmp_path: Path) -> None:
    codecs = tuple(CODECS)
    result = results([f"kodim{i:02}" for i in range(24)], codecs)
    path = tmp_path / "report.html"
    write(path, result, crops(["a", "b"], codecs, noise))
    assert len(path.read_bytes()) < LIMIT
    heavy = crops(["a", "b", "c"], (), noise)
    for entry in heavy[1:]:
        entry["images"] *= 12
    write(path, result, heavy)
    page = path.read_text(encoding="utf-8")
    assert len(page.encode()) < LIMIT and "1 more picture would not fit" in page


def test_one_document(tmp_path: Path) -> None:
    """Several figures in one page: no id twice, every reference answered, and nothing from elsewhere."""
    path = tmp_path / "report.html"
    write(path, results(["a"]), [])
    page = path.read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert references and references <= set(ids)
    assert page.count("<!DOCTYPE") == 1 and "<?xml" not in page and "#010203" not in page
