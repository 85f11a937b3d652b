// Types and sizes only: arrays of numpy or torch in, results into arrays that the caller made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <vector>

#include "gemm.hpp"
#include "quantize.hpp"

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

constexpr size_t kLongest = size_t(1) << 17;  // sums of products of two bytes fit 32 bits

void check_depth(size_t k) {
    if (k > kLongest) throw std::invalid_argument("k is above 131072: sums might not fit 32 bits");
}

void multiply_arrays(int threads, Array<const uint8_t> a, Array<const int8_t> panels, Array<const int32_t> corrections,
                     Array<int32_t> c) {
    if (a.ndim() != 2 || a.shape(1) % 4) throw std::invalid_argument("a must be (m, k), k a multiple of 4");
    if (c.ndim() != 2 || c.shape(0) != a.shape(0)) throw std::invalid_argument("c must be (m, n)");
    const size_t m = a.shape(0), k = a.shape(1), n = c.shape(1);
    check_depth(k), expect(panels, panel_bytes(n, k), "panels"), expect(corrections, padded(n), "corrections");
    multiply(gemm(), threads, m, n, k, {a.data(), k, 4},
             {panels.data(), kColumns * k, 4 * kColumns, corrections.data()}, c.data());
}

void multiply_interleaved(int threads, Array<const uint8_t> a, Array<const uint8_t> b, Array<const int32_t> corrections,
                          Array<int32_t> c) {
    if (a.ndim() != 3 || b.ndim() != 3 || a.shape(2) != 4 || b.shape(2) != 4 || a.shape(0) != b.shape(0))
        throw std::invalid_argument("a and b must be (k / 4, m, 4) and (k / 4, n, 4)");
    const size_t k = 4 * a.shape(0), m = a.shape(1), n = b.shape(1);
    if (n % 16) throw std::invalid_argument("n must be a multiple of 16");  // kernels read sixteen columns at a time
    check_depth(k), expect(c, m * n, "c"), expect(corrections, padded(n), "corrections");
    multiply(gemm(), threads, m, n, k, {a.data(), 4, 4 * m},
             {reinterpret_cast<const int8_t*>(b.data()), 4 * kColumns, 4 * n, corrections.data()}, c.data());
}

void interleave_bytes(Array<const uint8_t> bytes, Array<uint8_t> made, std::optional<Array<int32_t>> corrections) {
    if (bytes.ndim() != 2) throw std::invalid_argument("bytes must be (k, c)");
    const size_t k = bytes.shape(0), c = bytes.shape(1);
    expect(made, (k + 3) / 4 * 4 * c, "made");
    if (corrections) expect(*corrections, padded(c), "corrections");
    interleave(k, c, bytes.data(), corrections ? kOffset : 0, made.data(), corrections ? corrections->data() : nullptr);
}

// The furthest byte that stretches reach must be there.
void check_reach(const Array<const int64_t>& at, size_t further, size_t size, const char* what) {
    if (at.ndim() != 1) throw std::invalid_argument("stretches begin at lists of offsets");
    for (size_t i = 0; i < at.size(); ++i)
        if (at.data()[i] < 0 || size_t(at.data()[i]) + further > size)
            throw std::invalid_argument(std::string("a stretch reaches beyond ") + what);
}

Stretches stretches(const Array<const int64_t>& at_a, const Array<const int64_t>& at_b, size_t k4) {
    static_assert(sizeof(size_t) == sizeof(int64_t));
    if (at_a.size() != at_b.size()) throw std::invalid_argument("as many stretches of a as of b");
    check_depth(at_a.size() * k4 * 4);
    const auto as_sizes = [](const int64_t* p) { return reinterpret_cast<const size_t*>(p); };
    return {at_a.size(), k4, as_sizes(at_a.data()), as_sizes(at_b.data())};
}

// a (images, height, width, channels), b packed of (n, taps * channels); c (images, rows, columns, n).
void convolve_arrays(int threads, Array<const uint8_t> a, Array<const int8_t> panels, Array<const int32_t> corrections,
                     Array<const int64_t> at_a, size_t stride, Array<int32_t> c) {
    if (a.ndim() != 4 || c.ndim() != 4 || a.shape(0) != c.shape(0) || a.shape(3) % 4)
        throw std::invalid_argument("a and c must be (images, height, width, channels), those of a a multiple of 4");
    const Pictures p{a.shape(0), a.shape(1), a.shape(2), a.shape(3)};
    const Outputs o{c.shape(1), c.shape(2), stride, stride};
    const size_t n = c.shape(3), taps = at_a.size(), k = taps * p.channels;
    expect(panels, panel_bytes(n, k), "panels"), expect(corrections, padded(n), "corrections");
    std::vector<size_t> at_b(taps);
    for (size_t t = 0; t < taps; ++t) at_b[t] = t * p.channels * kColumns;
    if (c.size() == 0) return;
    const size_t last = (((p.images - 1) * p.height + (o.rows - 1) * stride) * p.width + (o.columns - 1) * stride);
    check_reach(at_a, (last + 1) * p.channels, a.size(), "a"), check_depth(k);
    convolve(gemm(), threads, p, o, n,
             {taps, p.channels / 4, reinterpret_cast<const size_t*>(at_a.data()), at_b.data()}, a.data(),
             {panels.data(), kColumns * k, 4 * kColumns, corrections.data()}, c.data());
}

// a in fours (..., m, 4), b (..., n, 4); c (m, n).
void multiply_stretches(Array<const uint8_t> a, Array<const uint8_t> b, Array<const int32_t> corrections,
                        Array<const int64_t> at_a, Array<const int64_t> at_b, size_t k4, Array<int32_t> c) {
    if (c.ndim() != 2 || c.shape(1) % 16 || k4 == 0)
        throw std::invalid_argument("c must be (m, n), n a multiple of 16");
    const size_t m = c.shape(0), n = c.shape(1);
    expect(corrections, padded(n), "corrections");
    check_reach(at_a, k4 * m * 4, a.size(), "a"), check_reach(at_b, k4 * n * 4, b.size(), "b");
    gemm().multiply(0, m, n, stretches(at_a, at_b, k4), {a.data(), 4, 4 * m},
                    {reinterpret_cast<const int8_t*>(b.data()), 4 * kColumns, 4 * n, corrections.data()}, c.data(), n);
}

size_t columns(const Array<const float>& x) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (n, c)");
    return x.shape(1);
}

void ranges_of(int threads, Array<const float> x, Array<uint32_t> bits) {
    const size_t c = columns(x);
    expect(bits, c, "bits");
    ranges(quantize(), threads, x.shape(0), c, x.data(), bits.data());
}

void rows_of(int threads, Array<const float> x, Array<const float> inverse, Array<const uint8_t> shifts, int largest,
             std::optional<uint32_t> seed, Array<uint8_t> bytes) {
    const size_t c = columns(x), n = x.shape(0);
    expect(inverse, c, "inverse"), expect(shifts, c, "shifts");
    if (bytes.ndim() != 2 || bytes.shape(0) != n || bytes.shape(1) < c) throw std::invalid_argument("bytes are small");
    for (size_t i = 0; i < c; ++i)
        if (largest < 1 || shifts.data()[i] > 6 || (largest << shifts.data()[i]) > 127)
            throw std::invalid_argument("shifted codes do not fit a byte");
    const uint32_t* chance = seed ? &*seed : nullptr;
    rows(quantize(), threads, n, c, bytes.shape(1), x.data(), inverse.data(), shifts.data(), float(largest), chance,
         bytes.data());
}

}  // namespace

NB_MODULE(_gemm, m) {
    const auto release = nb::call_guard<nb::gil_scoped_release>();
    m.attr("COLUMNS") = kColumns;
    m.def("isa", [] { return gemm().name; });
    m.def("pack", &pack, "b"_a, "panels"_a, "corrections"_a, release);
    m.def("multiply", &multiply_arrays, "threads"_a, "a"_a, "panels"_a, "corrections"_a, "c"_a, release);
    m.def("interleave", &interleave_bytes, "bytes"_a, "made"_a, "corrections"_a.none() = nb::none(), release);
    m.def("multiply_interleaved", &multiply_interleaved, "threads"_a, "a"_a, "b"_a, "corrections"_a, "c"_a, release);
    m.def("convolve", &convolve_arrays, "threads"_a, "a"_a, "panels"_a, "corrections"_a, "at_a"_a, "stride"_a, "c"_a,
          release);
    m.def("multiply_stretches", &multiply_stretches, "a"_a, "b"_a, "corrections"_a, "at_a"_a, "at_b"_a, "k4"_a, "c"_a,
          release);
    m.def("ranges", &ranges_of, "threads"_a, "x"_a, "bits"_a, release);
    m.def("rows", &rows_of, "threads"_a, "x"_a, "inverse"_a, "shifts"_a, "largest"_a, "seed"_a.none(), "bytes"_a,
          release);
}
