// Types and sizes only: arrays of numpy or torch in, results into arrays that the caller made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <utility>
#include <vector>

#include "conv.hpp"
#include "gemm.hpp"
#include "norm.hpp"
#include "quantize.hpp"
#include "threads.hpp"

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

// Real numbers: float32, or bfloat16 as the uint16 that numpy has in its place.
using RealArray = nb::ndarray<nb::c_contig, nb::device::cpu>;

Reals reals(const RealArray& x) {
    if (x.dtype() == nb::dtype<float>()) return {Real::f32, x.data()};
    if (x.dtype() == nb::dtype<uint16_t>()) return {Real::bf16, x.data()};
    throw std::invalid_argument("real numbers are float32 or bfloat16");
}

void ranges_of(int threads, RealArray x, Array<uint32_t> bits) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (n, c)");
    expect(bits, 2 * x.shape(1), "bits");
    const Reals from = reals(x);
    ranges(quantize(), threads, from.type, x.shape(0), x.shape(1), from.data, bits.data());
}

// bits (2, n): the largest size of each row, and that of its most negative number; factors (c).
void row_ranges_of(int threads, RealArray x, Array<const float> factors, Array<uint32_t> bits) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (n, c)");
    expect(factors, x.shape(1), "factors"), expect(bits, 2 * x.shape(0), "bits");
    const Reals from = reals(x);
    row_ranges(quantize(), threads, from.type, x.shape(0), x.shape(1), from.data, factors.data(), bits.data());
}

void scaled_ranges_of(int threads, RealArray x, Array<const float> factors, Array<uint32_t> sizes) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (n, c)");
    expect(factors, x.shape(0), "factors"), expect(sizes, x.shape(1), "sizes");
    const Reals from = reals(x);
    scaled_ranges(quantize(), threads, from.type, x.shape(0), x.shape(1), from.data, factors.data(), sizes.data());
}

// inverse and shifts for c channels of all pictures, or of each.
Rounding rounding(size_t pictures, size_t c, const Array<const float>& inverse, const Array<const uint8_t>& shifts,
                  int lowest, int largest, const std::optional<uint32_t>& seed) {
    const bool shared = inverse.size() == c;
    expect(inverse, shared ? c : pictures * c, "inverse"), expect(shifts, inverse.size(), "shifts");
    for (size_t i = 0; i < shifts.size(); ++i)
        if (largest < 1 || lowest > 0 || lowest < -largest || shifts.data()[i] > 6 ||
            (largest << shifts.data()[i]) > 127)
            throw std::invalid_argument("shifted codes do not fit a byte");
    return {inverse.data(), shifts.data(), shared ? 0 : c, float(lowest), float(largest), seed ? &*seed : nullptr};
}

void rows_of(int threads, RealArray x, Array<const float> inverse, Array<const uint8_t> shifts, int lowest, int largest,
             std::optional<uint32_t> seed, Array<uint8_t> bytes) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (n, c)");
    const size_t c = x.shape(1), n = x.shape(0);
    if (bytes.ndim() != 2 || bytes.shape(0) != n || bytes.shape(1) < c) throw std::invalid_argument("bytes are small");
    const Reals from = reals(x);
    rows(quantize(), threads, from.type, n, c, bytes.shape(1), from.data,
         rounding(1, c, inverse, shifts, lowest, largest, seed), bytes.data());
}

void check_bits(unsigned bits) {
    if (bits != 4 && bits != 6 && bits != 8) throw std::invalid_argument("4, 6 or 8 bits are saved");
}

Shape shape_of(const RealArray& x, const RealArray& y, const Array<const int8_t>& weights, size_t groups, size_t stride,
               size_t padding) {
    if (x.ndim() != 4 || y.ndim() != 4 || weights.ndim() != 4 || x.shape(0) != y.shape(0))
        throw std::invalid_argument("pictures are (images, height, width, channels), weights (outputs, y, x, inputs)");
    const Shape s{x.shape(0),       x.shape(1),       x.shape(2), x.shape(3), y.shape(3), groups,
                  weights.shape(1), weights.shape(2), stride,     padding,    y.shape(1), y.shape(2)};
    if (!groups || !stride || !s.ky || !s.kx || s.inputs % groups || s.outputs % groups || !weights.size() ||
        weights.shape(0) != s.outputs || weights.shape(3) != s.inputs / groups)
        throw std::invalid_argument("weights do not fit the pictures");
    const auto fits = [&](size_t n, size_t k, size_t out) {
        return n + 2 * padding >= k && out == (n + 2 * padding - k) / stride + 1;
    };
    if (!fits(s.height, s.ky, s.rows) || !fits(s.width, s.kx, s.columns))
        throw std::invalid_argument("the output's size is another");
    check_depth(s.ky * s.kx * (s.inputs / groups + 3));
    return s;
}

void check_saved(const Shape& s, unsigned bits, const Array<uint8_t>& saved) {
    check_bits(bits), expect(saved, s.images * saved_bytes(s, bits), "saved");
}

size_t saved_size(size_t images, size_t height, size_t width, size_t inputs, size_t groups, unsigned bits) {
    if (!groups) throw std::invalid_argument("there is at least one group");
    Shape s{};
    s.height = height, s.width = width, s.inputs = inputs, s.groups = groups;
    return images * saved_bytes(s, bits);
}

void forward(int threads, RealArray x, Array<const float> inverse, Array<const uint8_t> shifts, int lowest, int largest,
             unsigned bits, Array<const int8_t> weights, size_t groups, size_t stride, size_t padding, float scale,
             RealArray y, Array<uint8_t> saved) {
    const Shape s = shape_of(x, y, weights, groups, stride, padding);
    check_saved(s, bits, saved);
    convolve_forward(threads, s, reals(x), rounding(1, s.inputs, inverse, shifts, lowest, largest, std::nullopt), bits,
                     weights.data(), {scale}, reals(y), saved.data());
}

// Rows in pictures of one line of `columns`, with scales of their own, as inputs and outputs have.
Shape lines_of(const RealArray& x, const RealArray& y, size_t columns, const Array<const int8_t>& weights) {
    if (x.ndim() != 2 || y.ndim() != 2 || weights.ndim() != 2 || !columns || x.shape(0) % columns || !weights.size() ||
        y.shape(0) != x.shape(0) || weights.shape(0) != y.shape(1) || weights.shape(1) != x.shape(1))
        throw std::invalid_argument("x is (rows, inputs), y (rows, outputs), weights (outputs, inputs)");
    check_depth(x.shape(1) + 3), check_depth(y.shape(1) + 3);
    if (columns > kMostPositions) throw std::invalid_argument("lines above 133,000 rows");
    return {x.shape(0) / columns, 1, columns, x.shape(1), y.shape(1), 1, 1, 1, 1, 0, 1, columns};
}

// Codes of x are x * rows, y the sums times scale and scale_w.
void multiply_rows(int threads, RealArray x, Array<const float> rows, int lowest, int largest, unsigned bits,
                   Array<const int8_t> weights, size_t columns, Array<const float> scale, Array<const float> scale_w,
                   RealArray y, Array<uint8_t> saved) {
    const Shape s = lines_of(x, y, columns, weights);
    check_saved(s, bits, saved), expect(rows, x.shape(0), "rows"), expect(scale, x.shape(0), "scale");
    expect(scale_w, s.outputs, "scale_w");
    if (largest < 1 || largest > 127 || lowest > 0 || lowest < -largest)
        throw std::invalid_argument("codes do not fit a byte");
    const std::vector<float> ones(s.inputs, 1.0f);
    const std::vector<uint8_t> none(s.inputs);
    Rounding how{ones.data(), none.data(), 0, float(lowest), float(largest), nullptr};
    how.rows = rows.data();
    convolve_forward(threads, s, reals(x), how, bits, weights.data(), {0, scale.data(), scale_w.data()}, reals(y),
                     saved.data());
}

// Codes of dy are dy * inverse * rows, for dx and for dw; dx is the sums times scale.
void multiply_rows_backward(int threads, RealArray dy, Array<const float> inverse, Array<const float> rows,
                            Array<const float> inverse_w, Array<const float> rows_w, int largest,
                            std::optional<uint32_t> seed, unsigned bits, int lowest, Array<uint8_t> saved,
                            Array<const int8_t> weights, size_t columns, Array<const float> scale, RealArray dx,
                            bool wanted, std::optional<Array<int64_t>> dw) {
    const Shape s = lines_of(dx, dy, columns, weights);
    check_saved(s, bits, saved), expect(scale, dy.shape(0), "scale");
    expect(inverse, s.outputs, "inverse"), expect(inverse_w, s.outputs, "inverse_w");
    expect(rows, dy.shape(0), "rows"), expect(rows_w, dy.shape(0), "rows_w");
    if (dw) expect(*dw, weights.size(), "dw");
    if (largest < 1 || largest > 127) throw std::invalid_argument("codes do not fit a byte");
    const std::vector<uint8_t> none(s.outputs);
    const float most = float(largest);
    Rounding for_dx{inverse.data(), none.data(), 0, -most, most, seed ? &*seed : nullptr}, for_dw = for_dx;
    for_dx.rows = rows.data(), for_dw.inverse = inverse_w.data(), for_dw.rows = rows_w.data();
    Reals to = reals(dx);
    if (!wanted) to.data = nullptr;
    convolve_backward(threads, s, reals(dy), for_dx, &for_dw, bits, lowest, saved.data(), weights.data(), scale.data(),
                      to, dw ? dw->data() : nullptr);
}

// inverse_w and shifts_w: for the gradient of the weights, where that has codes of its own. of_rows: groups of
// positions in place of shifts, or 0.
void backward(int threads, RealArray dy, Array<const float> inverse, Array<const uint8_t> shifts,
              std::optional<Array<const float>> inverse_w, std::optional<Array<const uint8_t>> shifts_w, int of_rows,
              float range, int largest, std::optional<uint32_t> seed, unsigned bits, int lowest, Array<uint8_t> saved,
              Array<const int8_t> weights, size_t groups, size_t stride, size_t padding, Array<const float> scales,
              RealArray dx, bool wanted, std::optional<Array<int64_t>> dw) {
    const Shape s = shape_of(dx, dy, weights, groups, stride, padding);
    check_saved(s, bits, saved), expect(scales, s.images, "scales");
    if (s.rows * s.columns > kMostPositions) throw std::invalid_argument("pictures above 133,000 positions");
    if (dw) expect(*dw, weights.size(), "dw");
    Rounding for_dx = rounding(s.images, s.outputs, inverse, shifts, -largest, largest, seed);
    if (of_rows < 0 || of_rows > 7 || (of_rows > 0 && (largest << (of_rows - 1)) > 127))
        throw std::invalid_argument("shifted codes do not fit a byte");
    for_dx.groups = of_rows, for_dx.range = range;
    std::optional<Rounding> for_dw;
    if (inverse_w && shifts_w) for_dw = rounding(s.images, s.outputs, *inverse_w, *shifts_w, -largest, largest, seed);
    Reals to = reals(dx);
    if (!wanted) to.data = nullptr;
    convolve_backward(threads, s, reals(dy), for_dx, for_dw ? &*for_dw : nullptr, bits, lowest, saved.data(),
                      weights.data(), scales.data(), to, dw ? dw->data() : nullptr);
}

std::pair<size_t, size_t> rows_of_channels(const RealArray& x) {
    if (x.ndim() < 2 || x.size() == 0) throw std::invalid_argument("batch norms take (..., channels), and not nothing");
    const size_t c = x.shape(x.ndim() - 1);
    return {x.size() / c, c};
}

// x and z (..., channels), statistics (channels, kStatistics); the rest has a number for each channel.
bool normalize_batch(int threads, RealArray x, Array<const float> gamma, Array<const float> beta, double eps,
                     RealArray z, Array<uint8_t> kept, Array<double> statistics, Array<float> mean,
                     Array<float> scale) {
    const auto [rows, c] = rows_of_channels(x);
    if (rows > size_t(1) << 40) throw std::invalid_argument("too many rows");
    expect(gamma, c, "gamma"), expect(beta, c, "beta"), expect(z, rows * c, "z");
    expect(mean, c, "mean"), expect(scale, c, "scale");
    expect(kept, kept_bytes(rows, c), "kept"), expect(statistics, kStatistics * c, "statistics");
    static_assert(sizeof(ChannelStatistics) == kStatistics * sizeof(double));
    return normalize(threads, rows, c, reals(x), gamma.data(), beta.data(), eps, reals(z), kept.data(),
                     reinterpret_cast<ChannelStatistics*>(statistics.data()), mean.data(), scale.data());
}

bool normalize_batch_backward(int threads, RealArray dz, Array<const float> gamma, Array<const uint8_t> kept,
                              Array<const double> statistics, RealArray dx, Array<float> dgamma, Array<float> dbeta) {
    const auto [rows, c] = rows_of_channels(dz);
    expect(gamma, c, "gamma"), expect(kept, kept_bytes(rows, c), "kept"),
        expect(statistics, kStatistics * c, "statistics");
    expect(dx, rows * c, "dx"), expect(dgamma, c, "dgamma"), expect(dbeta, c, "dbeta");
    return normalize_backward(threads, rows, c, reals(dz), gamma.data(), kept.data(),
                              reinterpret_cast<const ChannelStatistics*>(statistics.data()), reals(dx), dgamma.data(),
                              dbeta.data());
}

bool normalize_rows(int threads, RealArray x, Array<const float> gamma, Array<const float> beta, double eps,
                    RealArray z, Array<uint8_t> kept, Array<double> statistics) {
    if (x.ndim() != 2) throw std::invalid_argument("x must be (rows, length)");
    const size_t rows = x.shape(0), length = x.shape(1);
    if (length > kLongestRow) throw std::invalid_argument("rows above 65,536 numbers");
    expect(gamma, length, "gamma"), expect(beta, length, "beta"), expect(z, rows * length, "z");
    expect(kept, rows * kept_line(length), "kept"), expect(statistics, kStatistics * rows, "statistics");
    return normalize_layer(threads, rows, length, reals(x), gamma.data(), beta.data(), eps, reals(z), kept.data(),
                           reinterpret_cast<ChannelStatistics*>(statistics.data()));
}

bool normalize_rows_backward(int threads, RealArray dz, Array<const float> gamma, Array<const uint8_t> kept,
                             Array<const double> statistics, RealArray dx, Array<float> dgamma, Array<float> dbeta) {
    if (dz.ndim() != 2) throw std::invalid_argument("dz must be (rows, length)");
    const size_t rows = dz.shape(0), length = dz.shape(1);
    expect(gamma, length, "gamma"), expect(kept, rows * kept_line(length), "kept");
    expect(statistics, kStatistics * rows, "statistics"), expect(dx, rows * length, "dx");
    expect(dgamma, length, "dgamma"), expect(dbeta, length, "dbeta");
    return normalize_layer_backward(threads, rows, length, reals(dz), gamma.data(), kept.data(),
                                    reinterpret_cast<const ChannelStatistics*>(statistics.data()), reals(dx),
                                    dgamma.data(), dbeta.data());
}

void relu_of(int threads, RealArray x, RealArray y, Array<uint8_t> bits) {
    const Reals from = reals(x), to = reals(y);
    if (from.type != to.type) throw std::invalid_argument("x and y are of one type");
    expect(y, x.size(), "y"), expect(bits, (x.size() + kSigns - 1) / kSigns * (kSigns / 8), "bits");
    deal(threads, x.size(), kSigns, x.size(),
         [&](size_t first, size_t last) { quantize().relu(from.type, first, last, from.data, to.data, bits.data()); });
}

void relu_back(int threads, RealArray dy, Array<const uint8_t> bits, RealArray dx) {
    const Reals from = reals(dy), to = reals(dx);
    if (from.type != to.type) throw std::invalid_argument("dy and dx are of one type");
    expect(dx, dy.size(), "dx"), expect(bits, (dy.size() + kSigns - 1) / kSigns * (kSigns / 8), "bits");
    deal(threads, dy.size(), kSigns, dy.size(), [&](size_t first, size_t last) {
        quantize().relu_backward(from.type, first, last, from.data, bits.data(), to.data);
    });
}

}  // namespace

NB_MODULE(_gemm, m) {
    const auto release = nb::call_guard<nb::gil_scoped_release>();
    m.attr("COLUMNS") = kColumns;
    m.def("isa", [] { return gemm().name; });
    m.def("pack", &pack, "b"_a, "panels"_a, "corrections"_a, release);
    m.def("multiply", &multiply_arrays, "threads"_a, "a"_a, "panels"_a, "corrections"_a, "c"_a.noconvert(), release);
    m.def("ranges", &ranges_of, "threads"_a, "x"_a, "bits"_a.noconvert(), release);
    m.def("row_ranges", &row_ranges_of, "threads"_a, "x"_a, "factors"_a, "bits"_a.noconvert(), release);
    m.def("scaled_ranges", &scaled_ranges_of, "threads"_a, "x"_a, "factors"_a, "sizes"_a.noconvert(), release);
    m.def("rows", &rows_of, "threads"_a, "x"_a, "inverse"_a, "shifts"_a, "lowest"_a, "largest"_a, "seed"_a.none(),
          "bytes"_a.noconvert(), release);
    m.attr("LINE") = kLine;
    m.def("normalize", &normalize_batch, "threads"_a, "x"_a, "gamma"_a, "beta"_a, "eps"_a, "z"_a.noconvert(),
          "kept"_a.noconvert(), "statistics"_a.noconvert(), "mean"_a.noconvert(), "scale"_a.noconvert(), release);
    m.def("normalize_backward", &normalize_batch_backward, "threads"_a, "dz"_a, "gamma"_a, "kept"_a.noconvert(),
          "statistics"_a.noconvert(), "dx"_a.noconvert(), "dgamma"_a.noconvert(), "dbeta"_a.noconvert(), release);
    m.attr("STATISTICS") = kStatistics;
    m.def("normalize_rows", &normalize_rows, "threads"_a, "x"_a, "gamma"_a, "beta"_a, "eps"_a, "z"_a.noconvert(),
          "kept"_a.noconvert(), "statistics"_a.noconvert(), release);
    m.def("normalize_rows_backward", &normalize_rows_backward, "threads"_a, "dz"_a, "gamma"_a, "kept"_a.noconvert(),
          "statistics"_a.noconvert(), "dx"_a.noconvert(), "dgamma"_a.noconvert(), "dbeta"_a.noconvert(), release);
    m.attr("SIGNS") = kSigns;
    m.attr("MOST_POSITIONS") = kMostPositions;
    m.def("relu", &relu_of, "threads"_a, "x"_a, "y"_a.noconvert(), "bits"_a.noconvert(), release);
    m.def("relu_backward", &relu_back, "threads"_a, "dy"_a, "bits"_a.noconvert(), "dx"_a.noconvert(), release);
    m.def("saved_size", &saved_size, "images"_a, "height"_a, "width"_a, "inputs"_a, "groups"_a, "bits"_a.noconvert());
    m.def("convolve_forward", &forward, "threads"_a, "x"_a, "inverse"_a, "shifts"_a, "lowest"_a, "largest"_a,
          "bits"_a.noconvert(), "weights"_a, "groups"_a, "stride"_a, "padding"_a, "scale"_a, "y"_a.noconvert(),
          "saved"_a.noconvert(), release);
    m.def("multiply_rows", &multiply_rows, "threads"_a, "x"_a, "rows"_a, "lowest"_a, "largest"_a, "bits"_a.noconvert(),
          "weights"_a, "columns"_a, "scale"_a, "scale_w"_a, "y"_a.noconvert(), "saved"_a.noconvert(), release);
    m.def("multiply_rows_backward", &multiply_rows_backward, "threads"_a, "dy"_a, "inverse"_a, "rows"_a, "inverse_w"_a,
          "rows_w"_a, "largest"_a, "seed"_a.none(), "bits"_a.noconvert(), "lowest"_a, "saved"_a.noconvert(),
          "weights"_a, "columns"_a, "scale"_a, "dx"_a.noconvert(), "wanted"_a, "dw"_a.none(), release);
    m.def("convolve_backward", &backward, "threads"_a, "dy"_a, "inverse"_a, "shifts"_a, "inverse_w"_a.none(),
          "shifts_w"_a.none(), "of_rows"_a, "range"_a, "largest"_a, "seed"_a.none(), "bits"_a.noconvert(), "lowest"_a,
          "saved"_a.noconvert(), "weights"_a, "groups"_a, "stride"_a, "padding"_a, "scales"_a, "dx"_a.noconvert(),
          "wanted"_a, "dw"_a.none(), release);
}
