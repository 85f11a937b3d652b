// Types and sizes only: arrays of numpy or torch in, results into arrays that the caller made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "gemm.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace narrowbit;

namespace {

template <typename T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

size_t padded(size_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

template <typename A>
void expect(const A& array, size_t size, const char* what) {
    if (array.size() != size) throw std::invalid_argument(std::string(what) + " has the wrong size");
}

void pack(Array<const int8_t> b, Array<int8_t> panels, Array<int32_t> corrections) {
    if (b.ndim() != 2 || b.shape(1) % 4) throw std::invalid_argument("b must be (n, k), k a multiple of 4");
    const size_t n = b.shape(0), k = b.shape(1);
    expect(panels, panel_bytes(n, k), "panels"), expect(corrections, padded(n), "corrections");
    gemm().pack(n, k, b.data(), panels.data(), corrections.data());
}

void multiply_arrays(int threads, Array<const uint8_t> a, Array<const int8_t> panels, Array<const int32_t> corrections,
                     Array<int32_t> c) {
    if (a.ndim() != 2 || a.shape(1) % 4) throw std::invalid_argument("a must be (m, k), k a multiple of 4");
    if (c.ndim() != 2 || c.shape(0) != a.shape(0)) throw std::invalid_argument("c must be (m, n)");
    const size_t m = a.shape(0), k = a.shape(1), n = c.shape(1);
    if (k > (size_t(1) << 16)) throw std::invalid_argument("k is above 65536: sums might not fit 32 bits");
    expect(panels, panel_bytes(n, k), "panels"), expect(corrections, padded(n), "corrections");
    multiply(gemm(), threads, m, n, k, a.data(), panels.data(), corrections.data(), c.data());
}

}  // namespace

NB_MODULE(_gemm, m) {
    const auto release = nb::call_guard<nb::gil_scoped_release>();
    m.attr("COLUMNS") = kColumns;
    m.def("isa", [] { return gemm().name; });
    m.def("pack", &pack, "b"_a, "panels"_a, "corrections"_a, release);
    m.def("multiply", &multiply_arrays, "threads"_a, "a"_a, "panels"_a, "corrections"_a, "c"_a, release);
}
