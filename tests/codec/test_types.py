"""What file(1) and desktops are told of .mlic files: share/magic/narrowbit, share/mime/packages/narrowbit.xml."""

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

import codec
from codec.container import SIGNATURE
from tests.codec.commands import ROOT

MAGIC = ROOT / "share" / "magic" / "narrowbit"
XML = ROOT / "share" / "mime" / "packages" / "narrowbit.xml"


def said(*command: object, **variables: str) -> str:
    """The output of a program that has to succeed without a complaint."""
    line = list(map(str, command))
    done = subprocess.run(line, env={**os.environ, **variables}, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def coded(tiny_bundle: Path, photo: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real file, of 300x171 pixels at QP 11, whose name does not say what it is."""
    path = tmp_path_factory.mktemp("types") / "holiday"
    path.write_bytes(codec.encode(np.ascontiguousarray(photo[:171, :300]), qp=11, model=tiny_bundle))
    return path


@pytest.mark.skipif(not shutil.which("file"), reason="there is no file(1)")
def test_file_describes_a_picture(coded: Path, tiny_bundle: Path, photo: NDArray[np.uint8]) -> None:
    model = codec.info(coded.read_bytes())["model_id"]
    described = said("file", "--brief", "-m", MAGIC, coded)
    assert described == f"MLIC learned image data, 300 x 171, QP 11, model {model}"
    assert said("file", "--brief", "--mime-type", "-m", MAGIC, coded) == "image/x-mlic"
    assert said("file", "--brief", "--extension", "-m", MAGIC, coded) == "mlic"
    coded.write_bytes(codec.encode(np.ascontiguousarray(photo[:64, :70, 0]), qp=63, model=tiny_bundle))
    assert "70 x 64, grey, QP 63" in said("file", "--brief", "-m", MAGIC, coded)
    coded.write_bytes(SIGNATURE + b"\x07" + bytes(40))
    assert said("file", "--brief", "-m", MAGIC, coded) == "MLIC learned image data, version 7"
    coded.write_bytes(SIGNATURE.replace(b"\r\n", b"\n") + bytes(40))
    assert "MLIC" not in said("file", "--brief", "-m", MAGIC, coded)


def test_the_description_is_the_formats() -> None:
    kind = ElementTree.parse(XML).getroot()[0]
    space = {"": "http://www.freedesktop.org/standards/shared-mime-info"}
    assert kind.get("type") == "image/x-mlic"
    assert [glob.get("pattern") for glob in kind.findall("glob", space)] == ["*.mlic"]
    (match,) = kind.findall("magic/match", space)
    value = str(match.get("value")).encode().decode("unicode_escape").encode("latin-1")
    assert value == SIGNATURE and match.get("offset") == "0"


@pytest.mark.skipif(
    not (shutil.which("update-mime-database") and shutil.which("gio")), reason="there is no desktop's database of types"
)
@pytest.mark.parametrize("name", ["holiday.mlic", "holiday"], ids=["by name", "by content"])
def test_a_desktop_knows_it(tmp_path: Path, name: str) -> None:
    packages = tmp_path / "mime" / "packages"
    packages.mkdir(parents=True)
    shutil.copy(XML, packages)
    said("update-mime-database", tmp_path / "mime", XDG_DATA_HOME=str(tmp_path))
    (tmp_path / name).write_bytes(bytes(8) if name.endswith(".mlic") else SIGNATURE + bytes(40))
    found = said("gio", "info", "-a", "standard::content-type", tmp_path / name, XDG_DATA_HOME=str(tmp_path))
    assert found.endswith("standard::content-type: image/x-mlic")
