"""The C++ part without Python: under sanitizers, and for ARM where its compiler and emulator are."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "cpp_ext"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]


def build(
    folder: Path, source: str, compiler: str, flags: list[str], sets: dict[str, list[str]], define: list[str]
) -> Path:
    """Compile a program of this folder with the coder; sets: the loops and the flags that each needs."""
    common = [compiler, "-std=c++17", "-O1", *flags, *define]
    objects = []
    for name, own in {"rans": [], "rans_scalar": [], "cpu": [], **sets}.items():
        target = folder / f"{name}.o"
        subprocess.run([*common, *own, "-c", SOURCES / f"{name}.cpp", "-o", target], check=True)
        objects.append(target)
    program = folder / "program"
    subprocess.run([*common, HERE / source, *objects, "-o", program], check=True)
    return program


def here(folder: Path, source: str, *define: str) -> Path:
    """For this machine, with sanitizers."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("needs g++ or clang++")
    sets: dict[str, list[str]] = {}
    if platform.machine() in ("x86_64", "AMD64"):
        sets = {"rans_avx2": ["-march=x86-64-v3"], "rans_avx512": ["-march=x86-64-v4", "-Wno-all"]}
        define = (*define, "-DNARROWBIT_X86")
    elif platform.machine() in ("aarch64", "arm64"):
        sets = {"rans_neon": []}
        define = (*define, "-DNARROWBIT_ARM")
    return build(folder, source, compiler, SANITIZE, sets, list(define))


def test_loops_agree_under_sanitizers(tmp_path: Path) -> None:
    run = subprocess.run([here(tmp_path, "loops.cpp")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "symbols alike: scalar" in run.stdout


def test_loops_agree_on_arm(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)")
    program = build(tmp_path, "loops.cpp", compiler, ["-static", "-O2"], {"rans_neon": []}, ["-DNARROWBIT_ARM"])
    run = subprocess.run([emulator, program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "symbols alike: scalar neon" in run.stdout


def test_corpus_of_the_fuzzer(tmp_path: Path) -> None:
    corpus = sorted((HERE / "corpus").iterdir())
    assert len(corpus) > 20
    run = subprocess.run([here(tmp_path, "fuzz_decoder.cpp", "-DSTANDALONE"), *corpus], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{len(corpus)} inputs\n"
