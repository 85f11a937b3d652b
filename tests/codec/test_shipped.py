"""The network that ships: what its files are, and that they stay readable."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import codec
import cpp_ext
from codec import pipeline
from codec.bundle import find, find_by_id
from codec.container import HEADER_BYTES, unpack
from codec.runtime.native import NativeRuntime
from codec.runtime.onnx import OnnxRuntime
from rate import psnr

GOLDEN = Path(__file__).parent / "golden"
pytestmark = pytest.mark.skipif(not codec.installed_models(), reason="no model bundle is installed")


def latents_hash(data: bytes) -> str:
    found = unpack(data)
    y_hat, _ = next(pipeline.decode_latents(found, OnnxRuntime(find_by_id(found.entropy_id, None))))
    return hashlib.sha256(y_hat.astype("<i2").tobytes()).hexdigest()


@pytest.mark.parametrize("name", ["low", "high"])
def test_golden_files_decode_to_their_latents(name: str) -> None:
    """Format version 0 and this network; both may change until version 1, never without new golden files."""
    assert latents_hash((GOLDEN / f"{name}.mlic").read_bytes()) == (GOLDEN / f"{name}.sha256").read_text().strip()


def test_the_bundle_is_small_and_knows_itself() -> None:
    bundle = find(None)
    assert bundle.path.stat().st_size <= 18e6
    assert {a.dtype.name for n, a in bundle.arrays.items() if n.startswith("float/")} == {"float16"}
    assert HEADER_BYTES <= 32


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (65, 130), (768, 512), (2000, 1333)])
def test_sizes_come_back(photo: NDArray, size: tuple[int, int]) -> None:
    original = np.asarray(Image.fromarray(photo).resize(size))
    image = codec.decode(codec.encode(original))
    assert image.size == size
    assert psnr(original, np.asarray(image)) > 25


def test_bytes_and_psnr_rise_with_quality(photo: NDArray) -> None:
    part, sizes, values = photo[:256, 100:356], [], []
    for quality in range(0, 101, 10):
        data = codec.encode(part, quality)
        sizes.append(len(data))
        values.append(psnr(part, np.asarray(codec.decode(data))))
    assert sizes == sorted(sizes) and values == sorted(values)


def test_z_earns_its_bits(photo: NDArray) -> None:
    """A hyperprior that had collapsed would cost nothing and say nothing: moving it must cost y more than it saves."""
    from codec.coding import HYPER, code_latents
    from codec.modes import Encode

    bundle, rgb = find(None), photo[:256, :256]
    runtime, skip = OnnxRuntime(bundle), int(bundle.arrays["integer/skip"][0])
    y, z = runtime.analyse(pipeline.padded(rgb), 32)

    def size(z: NDArray) -> tuple[int, int]:
        mode = Encode(y.copy(), z, bundle.config.slices, skip)
        symbols = mode.targets[(HYPER, 0)]
        code_latents(runtime, mode, 32)
        return len(mode.payload(pipeline.bank(runtime))[0]), int(np.rint(symbols).any())

    told, spoken = size(z)
    mean, _ = runtime.z_parameters(32)
    untold, _ = size(np.broadcast_to(mean / 64, z.shape).copy())
    assert spoken and told < 0.99 * untold


def test_lanes_cost_next_to_nothing(photo: NDArray) -> None:
    """The lanes chosen for a file of about 4 KB against a single one."""
    runtime = NativeRuntime(find(None))
    mode, bank = pipeline.quantize(photo, 6, runtime), pipeline.bank(runtime)
    payload, lanes = mode.payload(bank)
    single = cpp_ext.Encoder(bank, 1)
    for symbols, indexes in mode.passes:
        single.put(symbols, indexes)
    alone = single.finish()
    assert 2000 < len(alone) < 6000 and lanes in (1, 4, 8, 32)
    assert len(payload) <= 1.01 * len(alone)


def test_one_runtime_draws_the_same_picture_every_time(photo: NDArray) -> None:
    data = codec.encode(photo[:200, :200])
    first = np.asarray(codec.decode(data, threads=1))
    assert np.array_equal(first, np.asarray(codec.decode(data, threads=1)))
    drawn_by_torch = pytest.importorskip("torch") and np.asarray(codec.decode(data, runtime="torch"))
    assert np.array_equal(drawn_by_torch, np.asarray(codec.decode(data, runtime="torch")))
    assert np.abs(first.astype(int) - drawn_by_torch).max() <= 1
