"""Everything visible, in seconds and without weights: run this first."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

import codec
from codec.bundle import Bundle
from codec.container import HEADER_BYTES, peek


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (65, 130), (128, 96)])
def test_sizes_come_back(tiny_bundle: Path, photo: NDArray, size: tuple[int, int]) -> None:
    w, h = size
    data = codec.encode(photo[:h, :w], model=tiny_bundle)
    image = codec.decode(data, model=tiny_bundle)
    assert (image.size, image.mode) == (size, "RGB")
    # An untrained network, but fitted: the picture must be recognizable.
    assert np.abs(np.asarray(image, int) - photo[:h, :w]).mean() < 40


def test_grey_stays_grey(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(Image.fromarray(photo[:64, :64]).convert("L"), model=tiny_bundle)
    assert codec.decode(data, model=tiny_bundle).mode == "L"


def test_more_bits_better_picture(tiny_bundle: Path, photo: NDArray) -> None:
    part, sizes, errors = photo[100:228, 100:228], [], []
    for quality in (0, 50, 100):
        data = codec.encode(part, quality, model=tiny_bundle)
        sizes.append(len(data))
        errors.append(((np.asarray(codec.decode(data, model=tiny_bundle), float) - part) ** 2).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)


def test_same_bytes_every_time(tiny_bundle: Path, photo: NDArray) -> None:
    part = photo[:96, :96]
    assert codec.encode(part, threads=1, model=tiny_bundle) == codec.encode(part, threads=2, model=tiny_bundle)


def test_info_and_verify(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:80, :90], qp=20, model=tiny_bundle)
    facts = codec.info(data)
    assert (facts["width"], facts["height"], facts["qp"], facts["checksums"]) == (90, 80, 20, "ok")
    assert facts["bytes"] == len(data) and facts["bpp"] == 8 * len(data) / 7200
    codec.verify(data, model=tiny_bundle)


def test_the_model_is_named_when_it_is_missing(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:64, :64], model=tiny_bundle)
    with pytest.raises(codec.UnknownModel, match=codec.info(data)["model_id"]):
        codec.decode(data)


def test_what_is_no_bundle_or_a_damaged_one_is_named(tiny_bundle: Path, tmp_path: Path, photo: NDArray) -> None:
    arrays, metadata = load_file(tiny_bundle), Bundle(tiny_bundle).metadata
    for wrong, message in (
        ({"mlic_bundle": "0"}, "config"), (metadata | {"config": "[]"}, "not a configuration"),
        (metadata | {"config": '{"colour": 1}'}, "not a configuration"), (metadata | {"model_id": "xy"}, "hexadecimal"),
        (metadata | {"synthesis_id": "0000"}, "do not match its synthesis id"),
        (metadata | {"analysis_id": "0000"}, "do not match its analysis id"),
    ):  # fmt: skip
        save_file(arrays, tmp_path / "x.safetensors", wrong)
        with pytest.raises(codec.UnknownModel, match=message):
            codec.encode(photo[:64, :64], model=tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    with pytest.raises(codec.UnknownModel, match="not a model bundle"):
        codec.encode(photo[:64, :64], model=tmp_path / "y.safetensors")


@pytest.mark.parametrize("runtime", ["native", "onnx"])
def test_a_damaged_header_of_a_bundle_is_noticed(
    tiny_bundle: Path, tmp_path: Path, photo: NDArray, runtime: str
) -> None:
    """No id covers it."""
    whole = tiny_bundle.read_bytes()
    of_graph = [b'"arrays/analysis":"'] if runtime == "onnx" else []
    for i, text in enumerate([b'"float/g_a/stem/weight"', b'heads\\": 2', b'analysis\\": [1', b"context\\", *of_graph]):
        at = whole.index(text) + len(text) - 2
        for bit in range(3):
            damaged = tmp_path / f"{i}{bit}.safetensors"
            damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(codec.UnknownModel):
                codec.encode(photo[:64, :64], model=damaged, runtime=runtime)


def test_every_flipped_bit_is_noticed(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:64, :64], qp=0, model=tiny_bundle)
    for at in range(0, 8 * len(data), 37):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(codec.CodecError):
            codec.decode(bytes(damaged), model=tiny_bundle)


def test_damage_behind_the_checksums_is_noticed_too(tiny_bundle: Path, photo: NDArray) -> None:
    """A forger can mend the payload's checksum; the coder's final state and the latents' checksum remain."""
    from dataclasses import replace

    from codec.container import pack

    found, _ = peek(codec.encode(photo[:64, :64], qp=30, model=tiny_bundle))
    piece = found.pieces[0]
    assert len(pack(found)) == HEADER_BYTES + len(piece.payload)
    for at in range(0, 8 * len(piece.payload), 101):
        payload = bytearray(piece.payload)
        payload[at // 8] ^= 1 << at % 8
        with pytest.raises(codec.Corrupt):
            codec.decode(pack(replace(found, pieces=(replace(piece, payload=bytes(payload)),))), model=tiny_bundle)


def test_pictures_too_large_are_refused_before_any_work(tiny_bundle: Path) -> None:
    with pytest.raises(codec.BadInput, match="65535"):
        codec.encode(np.broadcast_to(np.uint8(7), (1, 70000, 3)), model=tiny_bundle)


@pytest.mark.parametrize("runtime", ["native", "onnx", "torch"])
def test_threads_may_code_at_the_same_time(tiny_bundle: Path, photo: NDArray, runtime: str) -> None:
    """Executors are shared between them."""
    from concurrent.futures import ThreadPoolExecutor

    options: dict[str, Any] = {"model": tiny_bundle, "runtime": runtime}
    parts = [photo[:96, : 64 + 32 * i] for i in range(4)]
    files = [codec.encode(part, qp=40, **options) for part in parts]
    shown = [np.asarray(codec.decode(data, **options)) for data in files]

    def agrees(i: int) -> bool:
        i %= 4
        same = codec.encode(parts[i], qp=40, **options) == files[i]
        return same and bool((np.asarray(codec.decode(files[i], **options)) == shown[i]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(agrees, range(24)))


def test_every_runtime_bounds_the_latents(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from codec.config import CONFIGS
    from codec.models.mlicv2 import MLICv2
    from codec.network import BOUND
    from codec.runtime.native import NativeRuntime
    from codec.runtime.onnx import OnnxRuntime
    from codec.runtime.torch import TorchRuntime
    from codec.training.export import write

    torch.manual_seed(0)
    model = MLICv2(CONFIGS["tiny"])
    with torch.no_grad():
        model.arrays["g_a/down/weight"].mul_(1e4)
        model.arrays["y/gain"].zero_()
    write(model, tmp_path / "wild.safetensors")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    found = [
        r(Bundle(tmp_path / "wild.safetensors"), 1).analyse(x, 20)[0]
        for r in (NativeRuntime, OnnxRuntime, TorchRuntime)
    ]
    for y in found:
        assert np.abs(y).max() == pytest.approx(BOUND * model.arrays["y/deviation"].max().item(), rel=1e-3)
        np.testing.assert_allclose(y, found[0], rtol=2e-3, atol=0.1)


def test_memory_between_pictures_is_that_of_the_largest(tiny_bundle: Path, photo: NDArray) -> None:
    from codec.bundle import Bundle
    from codec.runtime.native import NativeRuntime

    runtime = NativeRuntime(Bundle(tiny_bundle), 1)

    def kept() -> int:
        return sum(b.nbytes for ops in (runtime.entropy, runtime.transforms) for b in vars(ops.of_thread).values())

    sizes = []
    for side in (256, 128, 192, 64, 256):
        runtime.analyse(np.zeros((1, 3, side, side), np.float32), 10)
        sizes.append(kept())
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"tile": -1}, ValueError),
        ({"tile": 10.5}, ValueError),
        ({"threads": 0}, ValueError),
        ({"target_bpp": float("nan")}, ValueError),
        ({"target_psnr": float("inf")}, ValueError),
        ({"metadata": "some"}, codec.BadInput),
    ],
)
def test_wrong_options(tiny_bundle: Path, photo: NDArray, wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        codec.encode(photo[:64, :64], model=tiny_bundle, **wrong)


def test_any_bytes_are_taken_and_nothing_else(tiny_bundle: Path, photo: NDArray) -> None:
    data = codec.encode(photo[:64, :64], model=tiny_bundle)
    assert codec.info(bytearray(data)) == codec.info(memoryview(data)) == codec.info(data)
    for wrong in ("photo.mlic", None, 3):
        with pytest.raises(TypeError):
            codec.info(wrong)
    for wrong in (None, 3, [1, 2]):
        with pytest.raises(TypeError, match="a picture is a path"):
            codec.encode(wrong, model=tiny_bundle)
