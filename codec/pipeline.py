"""Picture <-> file, given an executor: the corridor of the codec, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import cpp_ext
from codec.coding import code_latents
from codec.container import Container, pack
from codec.errors import Corrupt
from codec.modes import Decode, Encode
from codec.picture import Picture

BLOCK = 64  # z has one position per so many pixels in each direction


def padded(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H, W, 3] -> (1, 3, height, width) in -1..1; the last row and column repeat to multiples of BLOCK."""
    h, w = rgb.shape[:2]
    full = np.pad(rgb, ((0, -h % BLOCK), (0, -w % BLOCK), (0, 0)), mode="edge")
    return np.ascontiguousarray(full.transpose(2, 0, 1)[None], np.float32) / np.float32(127.5) - np.float32(1)


def bank(runtime: Any) -> cpp_ext.TableBank:
    arrays = runtime.bundle.arrays
    return cpp_ext.TableBank(*(arrays[f"integer/tables/{n}"] for n in ("raw_bits", "sizes", "freqs")))


def quantize(rgb: NDArray[np.uint8], qp: int, runtime: Any) -> Encode:
    """All symbols of a picture, uint8 [H, W, 3], ready to be written."""
    bundle = runtime.bundle
    y, z = runtime.analyse(padded(rgb), qp)
    mode = Encode(y, z, bundle.config.slices, int(bundle.arrays["integer/skip"][0]))
    code_latents(runtime, mode, qp)
    return mode


def write(picture: Picture, qp: int, mode: Encode, runtime: Any) -> bytes:
    """The file of a picture whose symbols are known."""
    height, width = picture.rgb.shape[:2]
    bundle = runtime.bundle
    payload, lanes = mode.payload(bank(runtime))
    return pack(
        Container(width, height, qp, picture.grey, lanes, bundle.entropy_id, bundle.synthesis_id, mode.crc, payload)
    )


def decode_latents(found: Container, runtime: Any) -> tuple[Any, Any]:
    """(y_hat, Psi). Raises Corrupt if the payload does not end where it should or gives other latents."""
    bundle = runtime.bundle
    z_shape = (1, bundle.config.hyper, -(-found.height // BLOCK), -(-found.width // BLOCK))
    try:
        decoder = cpp_ext.Decoder(bank(runtime), found.payload, found.lanes)
        mode = Decode(decoder, z_shape, int(bundle.arrays["integer/skip"][0]))
        result = code_latents(runtime, mode, found.qp)
        decoder.finish()
    except cpp_ext.CorruptStream as error:
        raise Corrupt(f"the file is damaged: {error}") from error
    if mode.crc != found.latents_crc:
        raise Corrupt("the decoded latents are not those that were encoded: the file is damaged, or this machine is")
    return result


def decode(found: Container, runtime: Any) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]"""
    x = runtime.synthesise(*decode_latents(found, runtime), found.qp)[0, :, : found.height, : found.width]
    return np.clip(np.rint(x.transpose(1, 2, 0) * 127.5 + 127.5), 0, 255).astype(np.uint8)
