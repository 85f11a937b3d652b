"""The comparison with Pillow's encoders: its searches, its table, and what it says where a peer cannot follow."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

import codec
from codec import compare
from codec.compare import PEERS, Absent, Peer
from rate import psnr

JPEG, WEBP, AVIF = PEERS
need_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


@pytest.fixture
def small(photo: np.ndarray) -> Image.Image:
    """Eyes and mouth: 75x61."""
    return Image.fromarray(np.ascontiguousarray(photo[80:141, 190:265]))


@pytest.mark.parametrize("target", [10.0, 27.0, 33.0, 90.0])
@pytest.mark.parametrize("peer", [JPEG, WEBP], ids=["JPEG", "WEBP"])
def test_lowest_quality_that_reaches_a_psnr(small: Image.Image, peer: Peer, target: float) -> None:
    quality, point = compare.at_psnr(small, peer, target)
    assert point.psnr == peer.measure(small, quality).psnr
    assert point.psnr >= target or quality == 100
    assert quality == 0 or peer.measure(small, quality - 1).psnr < target


def test_best_quality_of_a_size(small: Image.Image) -> None:
    quality, point = compare.of_size(small, JPEG, 1500)
    assert point.bytes <= 1500 < len(JPEG.encode(small, quality + 1))
    assert compare.of_size(small, JPEG, 1)[0] == 1
    assert compare.of_size(small, JPEG, 10**6)[0] == 100


def test_numbers_are_of_the_file(small: Image.Image) -> None:
    data = JPEG.encode(small, 60)
    point = JPEG.measure(small, 60)
    assert point.bytes == len(data) and point.bpp == 8 * len(data) / (75 * 61)
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    assert point.psnr == psnr(np.asarray(small), decoded) and point.encode_s > 0 and point.decode_s > 0


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_the_table(tiny_bundle: Path, small: Image.Image, grey: bool, capsys: pytest.CaptureFixture[str]) -> None:
    image = small.convert("L") if grey else small
    made = compare.compare(image, qp=40, same_size=True, model=tiny_bundle)
    header, ours, *lines = capsys.readouterr().out.splitlines()
    assert header == compare.HEADER
    data = codec.encode(image, qp=40, model=tiny_bundle)
    decoded = np.asarray(codec.decode(data, model=tiny_bundle).convert("RGB"))
    assert made["ours"]["bytes"] == len(data) and f"{len(data):,}" in ours
    assert made["ours"]["psnr"] == psnr(np.asarray(image.convert("RGB")), decoded)
    assert (made["width"], made["height"], made["grey"], made["qp"]) == (75, 61, grey, 40)
    assert made["model"] == codec.info(data)["model_id"]
    for peer, line in zip(PEERS, lines[:3], strict=True):
        found = made["same_psnr"][peer.name]
        if "absent" in found:
            continue
        assert found["psnr"] >= made["ours"]["psnr"] or found["quality"] == 100
        assert line.startswith(f"{peer.name} q{found['quality']} ")
        assert f"{100 * (found['bytes'] / len(data) - 1):+.1f} %" in line
        fitting = made["same_size"][peer.name]
        assert fitting["bytes"] <= len(data) or fitting["quality"] == 1
    assert lines[3] == "at most our size:"
    assert json.loads(json.dumps(made, allow_nan=False)) == made


@need_avif
def test_grey_goes_as_one_channel(small: Image.Image) -> None:
    grey = small.convert("L")
    for peer in (JPEG, AVIF):
        assert len(peer.encode(grey, 70)) < len(peer.encode(grey.convert("RGB"), 70))


def test_a_peer_that_is_not_there(
    tiny_bundle: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    made = compare.compare(small, model=tiny_bundle)
    assert "AVIF        absent: this Pillow has no AVIF\n" in capsys.readouterr().out
    assert set(made["same_psnr"]["AVIF"]) == {"absent"} and made["same_psnr"]["JPEG"]["bytes"] > 0


def test_a_picture_that_a_peer_cannot_hold() -> None:
    with pytest.raises(Absent, match="cannot hold"):
        WEBP.encode(Image.new("RGB", (16384, 1)), 50)


def test_peers_that_cannot_follow_are_named(
    tiny_bundle: Path, small: Image.Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "PEERS", (JPEG,))
    for psnr_, size, told in ((99.0, 10**6, "Not reached by JPEG"), (1.0, 1, "even at its worst quality: JPEG")):
        monkeypatch.setattr(compare, "ours", lambda *_, p=psnr_, s=size, **__: compare.Point(s, 1.0, p, 0.1, 0.1))
        compare.compare(small, same_size=True, model=tiny_bundle)
        assert told in capsys.readouterr().out


def test_equal_pictures_have_a_number() -> None:
    flat = Image.new("RGB", (16, 16), "grey")
    assert compare.measure(flat, lambda: b"x", lambda _: flat).psnr == compare.LOSSLESS
