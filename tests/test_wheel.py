"""The package as a user gets it: this tree's wheel, in an empty environment, through every line of README's "Use"."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BUILD = ("scikit_build_core", "nanobind", "cmake", "ninja")
LARGEST = 25 << 20  # bytes; it has about half of that, nearly all of it the network

# Lines that are not run here, by a pattern, and why not.
NOT_HERE = {
    r"codec encode .*(-e|--effort)[ =]*[789]\b": "refines with torch, which users of the wheel need not have",
    r"codec (train|export)\b": "needs torch",
}

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **variables: str) -> str:
    """The output of a program that has to succeed; nothing of this process's Python paths is passed on."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "MLIC_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept | variables, text=True, capture_output=True, timeout=280
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by pip; with what this environment has to build with, in the tree's own build folder, where it has it."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if not shutil.which(compiler):
        pytest.skip(f"there is no C++ compiler {compiler}")
    out = tmp_path_factory.mktemp("wheel")
    options = ["--no-build-isolation"] if all(find_spec(name) for name in BUILD) else []
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *options, "-w", out, ROOT, cwd=out)
    (found,) = out.glob("*.whl")
    return found


def needed(name: str, seen: set[str]) -> Iterator[metadata.Distribution]:
    """The installed distributions that `name` requires without extras, and what they require."""
    for text in metadata.distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        yield metadata.distribution(requirement.name)
        yield from needed(requirement.name, seen)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and with links to the dependencies that the package declares."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in [*needed("narrowbit", set()), metadata.distribution("imageio")]:  # README has an example of it
        for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    made = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", made, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=folder)
    return made


@pytest.fixture(scope="module")
def sandbox(python: Path, photo: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.png, photo.jpg, and two pictures in each folder that README may name."""
    folder = tmp_path_factory.mktemp("sandbox")
    image = Image.fromarray(photo[40:237, 130:387])
    for name in ("photo.png", "photo.jpg"):
        image.save(folder / name)
    for name in ("FOLDER", "DIR", "PHOTOS"):
        (folder / name).mkdir()
        image.crop((0, 0, 192, 180)).save(folder / name / "one.png")
        image.crop((40, 10, 220, 190)).save(folder / name / "two.png")
    return folder


def blocks(*languages: str) -> list[str]:
    """The fenced blocks of README's section "Use" in these languages."""
    section = re.split(r"^## .*\n", (ROOT / "README.md").read_text().partition("\n## Use\n")[2], flags=re.M)[0]
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S) if name in languages]


def lines() -> list[str]:
    """What a reader would type, continued lines as one."""
    texts = "\n".join(blocks("", "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    return [text.removeprefix("$ ") for text in texts if text.strip() and not text.lstrip().startswith("#")]


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    release = "-".join(wheel.name.split("-")[:2])
    assert {name.split("/")[0] for name in names} == {
        "codec", "cpp_ext", "nas", "quant", "rate", f"{release}.data", f"{release}.dist-info"
    }  # fmt: skip
    assert "codec/weights/mlicv2-s.safetensors" in names
    assert not [name for name in names if name.endswith((".npz", ".cpp", ".hpp", ".pyc"))]
    native = {name.split(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert native == {"cpp_ext/_native", "cpp_ext/_layers", "cpp_ext/_gemm"}
    assert wheel.stat().st_size < LARGEST


def test_the_package_comes_from_the_wheel_alone(python: Path, sandbox: Path) -> None:
    ask = "import codec, cpp_ext._native, rate, sys; print(codec.__file__, cpp_ext._native.__file__, rate.__file__)"
    places = run(python, "-c", f"{ask}; print(*sys.path)", cwd=sandbox).split()
    assert all(place.startswith(str(python.parents[1])) for place in places[:3])
    assert not [place for place in places if place.startswith(str(ROOT))]
    absent = "import importlib.util as u; print([m for m in ('torch', 'bench', 'tests', 'skimage') if u.find_spec(m)])"
    assert run(python, "-c", absent, cwd=sandbox) == "[]\n"


def test_types_are_under_the_prefix(python: Path) -> None:
    for name in ("magic/narrowbit", "mime/packages/narrowbit.xml"):
        assert (python.parents[1] / "share" / name).read_bytes() == (ROOT / "share" / name).read_bytes()


def test_lines_of_the_readme(python: Path, sandbox: Path) -> None:
    """One after the other, by a shell, as a reader would."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    typed = [line for line in lines() if not any(re.search(pattern, line) for pattern in NOT_HERE)]
    assert len(typed) > 4
    for line in typed:
        assert re.search(r"\bcodec\b|\.mlic", line), (
            f"README: {line!r} is no codec command: tell this test what to do with it"
        )
        run("bash", "-e", "-o", "pipefail", "-c", line, cwd=sandbox, PATH=path)


def test_python_of_the_readme(python: Path, sandbox: Path) -> None:
    script = "\n".join(blocks("python"))
    assert "import codec" in script
    run(python, "-c", script, cwd=sandbox)
