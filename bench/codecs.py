"""The codecs that `bench rd` runs: ours, what Pillow has, Debian's tools, CompressAI's networks, any command.

`find(spec)` opens one, in whatever process; a spec is a tuple of strings, so that it can travel there:

    ("ours", MODEL or "", RUNTIME, EFFORT)     ("jpeg",) and so on, see NAMES
    ("compressai", NAME, "CHECKPOINT,...")     ("command", NAME, ENCODE, DECODE, "LEVEL,...")
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image, features

from codec.compare import PEERS

from .measure import Codec, Picture
from .report import commit

Spec = tuple[str, ...]
QPS = tuple(range(0, 64, 9))
TIMEOUT = 600  # seconds for one external command


_threads: int | None = None  # of our codec: all


def set_threads(count: int) -> None:
    """Let our codec and torch's metrics in this process have so many threads. Others keep their own habits."""
    global _threads
    _threads = count
    os.environ["OMP_NUM_THREADS"] = str(count)


class Absent(Exception):
    """The codec is not to be had here; the message says what would bring it."""


def _pillow(name: str, settings: str, version: str, levels: tuple[int, ...], **options: Any) -> Codec:
    def encode(picture: Picture, level: int) -> bytes:
        file = io.BytesIO()
        at = {k: [level] if v is ... else v for k, v in options.items()}
        picture.save(file, name, **({} if ... in options.values() else {"quality": level}), **at)
        return file.getvalue()

    def decode(data: bytes) -> Picture:
        return Image.open(io.BytesIO(data)).convert("RGB")

    return Codec(name.lower(), encode, decode, levels, "dB" if ... in options.values() else "q", settings, version)


def _library(feature: str) -> str:
    if not features.check(feature):
        raise Absent(f"this Pillow has no {feature}")
    return f"{feature} {features.version(feature)}"


SETTINGS = {peer.name: peer.options for peer in PEERS}  # those of `codec compare`


def _jpeg() -> Codec:
    levels = (10, 20, 35, 50, 70, 85, 92)
    return _pillow("JPEG", "optimize, 4:4:4, baseline", _library("libjpeg_turbo"), levels, **SETTINGS["JPEG"])


def _webp() -> Codec:
    levels = (1, 10, 30, 50, 75, 90, 96)
    return _pillow("WEBP", "method 6, 4:2:0 (the format has no other)", _library("webp"), levels, **SETTINGS["WEBP"])


def _avif() -> Codec:
    from PIL import AvifImagePlugin

    version = f"{_library('avif')}, aom {AvifImagePlugin.get_codec_version('aom')}"
    levels = (15, 30, 45, 60, 75, 85, 92)
    return _pillow("AVIF", "aom, speed 4, 4:4:4, one thread", version, levels, **SETTINGS["AVIF"])


def _jpeg2000() -> Codec:
    # mct: Pillow's default leaves the colours correlated, at twice the bytes.
    options = {"quality_mode": "dB", "quality_layers": ..., "irreversible": True, "mct": 1}
    levels = (25, 28, 31, 34, 37, 40, 43)
    return _pillow(
        "JPEG2000", "irreversible, colour transform, PSNR asked for", _library("jpg_2000"), levels, **options
    )


def _jxl() -> Codec:
    try:
        import pillow_jxl  # noqa: F401  registers the format
    except ImportError as error:
        raise Absent("pip install pillow-jxl-plugin") from error
    version = f"pillow-jxl-plugin {metadata.version('pillow-jxl-plugin')}"
    return _pillow("JXL", "effort 7", version, (5, 15, 30, 50, 70, 85, 93), effort=7)


def command(
    name: str, encode: str, decode: str, levels: tuple[int, ...], settings: str = "", letter: str = "q"
) -> Codec:
    """External programs. The templates hold {in}, {out} and, to encode, {level}; pictures are PNG files.

    Seconds are of whole processes. Raises Absent where a program is missing.
    """
    words = {}
    for way, template in (("encode", encode), ("decode", decode)):
        try:
            words[way] = shlex.split(template)
        except ValueError as error:
            raise ValueError(f"the template {template!r} of {name}: {error}") from error
        if "{in}" not in template or "{out}" not in template:
            raise ValueError(f"the template {template!r} of {name} needs {{in}} and {{out}}")
    for program in dict.fromkeys(w[0] for w in words.values() if w):
        if not shutil.which(program):
            raise Absent(f"no program {program}")

    def run(way: str, data: bytes, suffixes: tuple[str, str], level: int | None = None) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            places = {way: str(Path(folder, way + s)) for way, s in zip(("in", "out"), suffixes, strict=True)}
            Path(places["in"]).write_bytes(data)
            line = [_filled(word, {"level": str(level), **places}) for word in words[way]]
            status, said = _run(line, Path(folder, "said"))
            out = Path(places["out"])
            if status or not out.is_file():
                raise RuntimeError(f"{line[0]}: status {status}: {(said or ['it wrote no file'])[-1]}")
            return out.read_bytes()

    def to_file(picture: Picture, level: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        return run("encode", file.getvalue(), (".png", f".{name}"), level)

    def to_picture(data: bytes) -> Picture:
        return Image.open(io.BytesIO(run("decode", data, (f".{name}", ".png")))).convert("RGB")

    return Codec(name, to_file, to_picture, levels, letter, settings or f"`{encode}`, `{decode}`", _version(words))


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _run(line: list[str], said: Path) -> tuple[int, list[str]]:
    """Status and lines of output of a program. What it leaves running is ended with it, and holds up nothing."""
    global _running
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True}
    with said.open("wb") as file:
        with starting:
            _running = subprocess.Popen(line, stdout=file, stderr=file, **options)
        with _running:
            try:
                status = _running.wait(TIMEOUT)
            finally:
                stop_command()
    return status, said.read_text(errors="replace").strip().splitlines()


def stop_command() -> None:
    """End the program that is running for this process, if any, and all that it started."""
    if _running:
        with contextlib.suppress(OSError):
            os.killpg(_running.pid, signal.SIGKILL)


_running: subprocess.Popen[bytes] | None = None
starting = threading.Lock()  # whoever holds it knows that no program starts unseen


def _version(words: dict[str, list[str]]) -> str:
    """What a program says of its version, or its size: enough to notice that it has changed."""
    program = words["encode"][0]
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    first = (said.stdout or said.stderr).strip().splitlines()[:1]
    size = Path(str(shutil.which(program))).stat().st_size
    usable = first and not said.returncode and "nrecognized" not in first[0]
    return first[0] if usable else f"{program}, {size} bytes"


def _heic() -> Codec:
    levels = (8, 16, 25, 35, 45, 58, 70)
    encode = "heif-enc -q {level} -p chroma=444 -o {out} {in}"
    try:
        made = command("heic", encode, "heif-convert {in} {out}", levels, "x265 by heif-enc, 4:4:4, whole processes")
    except Absent as error:
        raise Absent(f"{error}: apt install libheif-examples") from error
    return made


def _avifenc(encoder: str) -> Codec:
    levels = (62, 56, 50, 42, 34, 26, 18)
    chroma = "420" if encoder == "svt" else "444"  # all that SVT-AV1 has
    encode = f"avifenc -c {encoder} -s 6 -y {chroma} --min {{level}} --max {{level}} {{in}} {{out}}"
    settings = f"avifenc, speed 6, 4:{chroma[1]}:{chroma[2]}, whole processes"
    try:
        return command(f"avif-{encoder}", encode, "avifdec {in} {out}", levels, settings, "qz")
    except Absent as error:
        raise Absent(f"{error}: apt install libavif-bin") from error


def _ours(model: str = "", runtime: str = "native", effort: str = "5") -> Codec:
    import codec
    from codec.bundle import find as bundle_of

    bundle = bundle_of(model or None)
    options: dict[str, Any] = {"model": bundle.path, "runtime": runtime, "threads": _threads}

    def encode(picture: Picture, qp: int) -> bytes:
        return codec.encode(picture, qp=qp, effort=int(effort), **options)

    def decode(data: bytes) -> Picture:
        return codec.decode(data, **options)

    if effort not in map(str, codec.EFFORTS):
        raise ValueError(f"effort is {effort}, not one of {', '.join(map(str, codec.EFFORTS))}")
    name = "ours" + (f"-{Path(model).stem}" if model else "") + (f"@{runtime}" if runtime != "native" else "")
    name += f"+{effort}" if effort != "5" else ""
    code = " ".join(f"{folder} {commit(folder)}" for folder in ("codec", "cpp_ext"))
    version = f"{bundle.entropy_id.hex()} {bundle.synthesis_id.hex()}, {code}"
    return Codec(name, encode, decode, QPS, "qp", f"{bundle.name}, runtime {runtime}, effort {effort}", version)


def _compressai_networks() -> dict[str, Any]:
    """CompressAI's classes by name, ours among them."""
    try:
        from codec.compressai import register

        return register()
    except ImportError as error:
        raise Absent(f"compressai: {error}") from error


def _compressai(name: str, checkpoints: str) -> Codec:
    """A network of CompressAI, a checkpoint a level; a file is its strings, each with its length, and 12 bytes more."""
    model_architectures = _compressai_networks()
    import torch
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    if name not in model_architectures:
        raise Absent(f"compressai has no {name!r}, but {', '.join(sorted(model_architectures))}")
    files = checkpoints.split(",")

    @functools.cache
    def network(level: int) -> Any:
        state = torch.load(files[level], map_location="cpu", weights_only=True)
        made = model_architectures[name].from_state_dict(state.get("state_dict", state)).eval()
        made.update()
        return made

    def encode(picture: Picture, level: int) -> bytes:
        x = pil_to_tensor(picture)[None] / 255
        right, down = -picture.width % 64, -picture.height % 64
        with torch.inference_mode():
            made = network(level).compress(torch.nn.functional.pad(x, (0, right, 0, down), mode="replicate"))
        strings = [group[0] for group in made["strings"]]
        head = struct.pack("<BBHHHH", level, len(strings), *made["shape"], *picture.size)
        return head + b"".join(struct.pack("<I", len(s)) + s for s in strings)

    def decode(data: bytes) -> Picture:
        level, count, *shape, width, height = struct.unpack_from("<BBHHHH", data)
        strings, at = [], struct.calcsize("<BBHHHH")
        for _ in range(count):
            (size,) = struct.unpack_from("<I", data, at)
            strings.append([data[at + 4 : at + 4 + size]])
            at += 4 + size
        with torch.inference_mode():
            x = network(level).decompress(strings, shape)["x_hat"][0, :, :height, :width]
        return to_pil_image(x.clamp(0, 1))

    levels = tuple(range(len(files)))
    version = f"compressai {metadata.version('compressai')}, " + ", ".join(str(Path(f).stat().st_size) for f in files)
    return Codec(f"compressai-{name}", encode, decode, levels, "#", "padded to 64", version, between=False)


def _levels(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(level) for level in text.split(","))
    except ValueError as error:
        raise ValueError(f"the levels of {name} are {text!r}, not integers and commas") from error


NAMES: dict[str, Callable[..., Codec]] = {
    "ours": _ours,
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "jpeg2000": _jpeg2000,
    "jxl": _jxl,
    "heic": _heic,
    "avif-aom": lambda: _avifenc("aom"),
    "avif-svt": lambda: _avifenc("svt"),
    "compressai": _compressai,
    "command": lambda name, encode, decode, levels: command(name, encode, decode, _levels(name, levels)),
}
DEFAULT: tuple[Spec, ...] = tuple(
    (name,) for name in ("ours", "jpeg", "webp", "avif", "jpeg2000", "jxl", "heic", "avif-svt")
)


@functools.cache
def find(spec: Spec) -> Codec:
    """The codec of a spec. Raises Absent, and KeyError for an unknown name."""
    return NAMES[spec[0]](*spec[1:])


def name_of(spec: Spec) -> str:
    """What a codec that is absent is listed as."""
    return f"compressai-{spec[1]}" if spec[0] == "compressai" else spec[1] if spec[0] == "command" else spec[0]
