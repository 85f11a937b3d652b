#include "norm.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "cpu.hpp"
#include "norm_numbers.hpp"
#include "threads.hpp"

namespace narrowbit {

namespace generic {
extern const Norm kNorm;
}
#ifdef NARROWBIT_X86
namespace avx2 {
extern const Norm kNorm;
}
namespace avx512 {
extern const Norm kNorm;
}
#endif

const Norm& norm() {
    switch (isa()) {
#ifdef NARROWBIT_X86
        case Isa::avx512: return avx512::kNorm;
        case Isa::avx2: return avx2::kNorm;
#endif
        default: return generic::kNorm;
    }
}

namespace {

// Rows of few channels, so many to a line of up to kLine numbers.
size_t rows_of_line(size_t channels) { return channels < kLine ? kLine / std::max<size_t>(channels, 1) : 1; }

// Parameters of each channel, as many times as a line has rows.
template <typename T>
std::vector<T> repeated(const std::vector<T>& of_channel) {
    const size_t times = rows_of_line(of_channel.size());
    std::vector<T> made;
    for (size_t i = 0; i < times; ++i) made.insert(made.end(), of_channel.begin(), of_channel.end());
    return made;
}

void fold(const std::vector<int64_t>& of_place, std::vector<int64_t>& to) {
    for (size_t i = 0; i < of_place.size(); ++i) to[i % to.size()] += of_place[i];
}

// pass(first row, lines, length) over all rows, in lines, of whole blocks of kLines; the last line may be shorter. On
// several threads.
template <typename Pass>
void lines(int threads, size_t rows, size_t channels, Pass pass) {
    const size_t together = rows_of_line(channels), whole = rows / together;
    deal(threads, whole, kLines, rows * channels, [&](size_t first, size_t last) {
        if (last > first) pass(first * together, last - first, together * channels);
    });
    if (rows % together) pass(whole * together, 1, rows % together * channels);
}

// What a pass finds of each block of lines, one after the other, and at the end of the last line.
struct Blocks {
    size_t rows, length, whole;  // rows and places of a block, and how many blocks of whole lines
    std::vector<uint32_t> ranges;
    std::vector<int32_t> sums, products;

    Blocks(size_t all, size_t channels)
        : rows(rows_of_line(channels) * kLines),
          length(rows_of_line(channels) * channels),
          whole((all / rows_of_line(channels) + kLines - 1) / kLines),
          ranges((whole + 1) * length),
          sums(ranges.size()),
          products(ranges.size()) {}

    // Where the places are of the block that begins with a row.
    size_t at(size_t row) const { return (row % rows ? whole : row / rows) * length; }
};

// Of each channel: its range, and in real numbers the sums of codes of so many bits, in a fixed order.
struct Totals {
    std::vector<uint32_t> range;
    std::vector<double> sum, product;

    Totals(const Blocks& blocks, size_t channels, int bits) : range(channels), sum(channels), product(channels) {
        for (size_t i = 0; i < blocks.ranges.size(); ++i) {
            const double unit = 1 / double(power_of(blocks.ranges[i], bits));
            range[i % channels] = std::max(range[i % channels], blocks.ranges[i]);
            sum[i % channels] += blocks.sums[i] * unit, product[i % channels] += blocks.products[i] * unit;
        }
    }
    bool finite() const {
        return std::all_of(range.begin(), range.end(), [](uint32_t r) { return r < kTooLarge; });
    }
    std::vector<float> powers(int bits) const {
        std::vector<float> made;
        for (const uint32_t r : range) made.push_back(power_of(r, bits));
        return made;
    }
};

size_t kept_before(size_t row, size_t channels) {
    return row / rows_of_line(channels) * kept_line(rows_of_line(channels) * channels);
}

const void* at(Reals x, size_t element) { return static_cast<uint8_t*>(x.data) + element * size_of(x.type); }
void* to(Reals x, size_t element) { return static_cast<uint8_t*>(x.data) + element * size_of(x.type); }

}  // namespace

size_t kept_bytes(size_t rows, size_t channels) {
    const size_t together = rows_of_line(channels);
    return kept_before(rows, channels) + kept_line(rows % together * channels);
}

bool normalize(int threads, size_t rows, size_t channels, Reals x, const float* gamma, const float* beta, double eps,
               Reals z, uint8_t* kept, ChannelStatistics* statistics, float* mean, float* scale) {
    const Norm& n = norm();
    Blocks blocks(rows, channels);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        const size_t to = blocks.at(row);
        n.sums(x.type, count, length, at(x, row * channels), blocks.ranges.data() + to, blocks.sums.data() + to);
    });
    const Totals totals(blocks, channels, kCodeBits);
    if (!totals.finite()) return false;
    const std::vector<float> power = totals.powers(kCodeBits), powers = repeated(power);

    std::vector<int64_t> deviation(channels), negative(channels), size(channels);
    std::vector<int16_t> mu;
    std::vector<int32_t> peak(channels);
    const auto m = int64_t(rows);
    for (size_t c = 0; c < channels; ++c)
        mu.push_back(int16_t(std::floor(totals.sum[c] / double(m) * double(power[c]) + 0.5)));
    const auto mus = repeated(mu);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> own(length);
        std::vector<int32_t> largest(length);
        n.deviations(x.type, count, length, at(x, row * channels), powers.data(), mus.data(), own.data(),
                     largest.data());
#pragma omp critical
        {
            fold(own, deviation);
            for (size_t i = 0; i < length; ++i) peak[i % channels] = std::max(peak[i % channels], largest[i]);
        }
    });

    std::vector<Scale> scales;
    std::vector<int16_t> up, factor, offset;
    std::vector<float> unit;
    for (size_t c = 0; c < channels; ++c) {
        const Scale s = scale_of(deviation[c], m, peak[c], power[c], eps);
        const double slope = double(gamma[c]) * s.inverse, middle = double(beta[c]);
        const double most = std::fabs(slope) * s.peak + std::fabs(middle);
        if (!std::isfinite(most)) return false;
        // Codes of z below 2^14.
        const int bits = most > 0 ? std::clamp(13 - exponent_of(most), -126, 126) : 0;
        scales.push_back(s), up.push_back(int16_t(1 << s.up)), factor.push_back(s.factor(slope * two_to(bits)));
        offset.push_back(int16_t(nearest(middle * two_to(bits)))), unit.push_back(float(two_to(-bits)));
        mean[c] = float(totals.sum[c] / double(m)), scale[c] = float(s.size / double(power[c]));
    }
    const auto ups = repeated(up), factors = repeated(factor), offsets = repeated(offset);
    const auto units = repeated(unit);
    const Norm::Affine how = {powers.data(), mus.data(), ups.data(), factors.data(), offsets.data(), units.data()};
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> own(length), sizes(length);
        n.apply(x.type, count, length, at(x, row * channels), how, to(z, row * channels),
                kept + kept_before(row, channels), own.data(), sizes.data());
#pragma omp critical
        fold(own, negative), fold(sizes, size);
    });
    for (size_t c = 0; c < channels; ++c) statistics[c] = scales[c].statistics(negative[c], size[c], m, power[c]);
    return true;
}

bool normalize_backward(int threads, size_t rows, size_t channels, Reals dz, const float* gamma, const uint8_t* kept,
                        const ChannelStatistics* statistics, Reals dx, float* dgamma, float* dbeta) {
    const Norm& n = norm();
    Blocks blocks(rows, channels);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        const size_t to = blocks.at(row);
        n.gradient_sums(dz.type, count, length, at(dz, row * channels), kept + kept_before(row, channels),
                        blocks.ranges.data() + to, blocks.sums.data() + to, blocks.products.data() + to);
    });
    const Totals totals(blocks, channels, kGradientBits);
    if (!totals.finite()) return false;
    const std::vector<float> power = totals.powers(kGradientBits), powers = repeated(power);
    std::vector<int32_t> below, above;
    std::vector<float> factor;
    for (size_t c = 0; c < channels; ++c) {
        const double unit = double(power[c]);
        const Tilt tilt(totals.sum[c] * unit, totals.product[c] * unit, double(rows), statistics[c]);
        dgamma[c] = float(tilt.along / unit), dbeta[c] = float(totals.sum[c]);
        below.push_back(tilt.below()), above.push_back(tilt.above());
        factor.push_back(float(double(gamma[c]) * statistics[c].inverse_x / (256 * unit)));
    }
    const auto belows = repeated(below), aboves = repeated(above);
    const auto factors = repeated(factor);
    const Norm::Slope how = {powers.data(), belows.data(), aboves.data(), factors.data()};
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        n.gradient(dz.type, count, length, at(dz, row * channels), how, kept + kept_before(row, channels),
                   to(dx, row * channels));
    });
    return true;
}

bool normalize_layer(int threads, size_t rows, size_t length, Reals x, const float* gamma, const float* beta,
                     double eps, Reals z, uint8_t* kept, ChannelStatistics* statistics) {
    const Norm& n = norm();
    std::atomic<bool> finite{true};
    deal(threads, rows, 1, rows * length, [&](size_t first, size_t last) {
        if (!n.layer(x.type, last - first, length, at(x, first * length), gamma, beta, eps, to(z, first * length),
                     kept + first * kept_line(length), statistics + first))
            finite = false;
    });
    return finite;
}

bool normalize_layer_backward(int threads, size_t rows, size_t length, Reals dz, const float* gamma,
                              const uint8_t* kept, const ChannelStatistics* statistics, Reals dx, float* dgamma,
                              float* dbeta) {
    constexpr size_t kRows = 256;  // whose sums are float32, in order; their sums are double
    const Norm& n = norm();
    std::atomic<bool> finite{true};
    const size_t pieces = (rows + kRows - 1) / kRows;
    std::vector<float> sums(pieces * 2 * length);
    deal(threads, rows, kRows, rows * length, [&](size_t first, size_t last) {
        for (; first < last; first += kRows) {
            float* own = sums.data() + first / kRows * 2 * length;
            if (!n.layer_gradient(dz.type, std::min(kRows, last - first), length, at(dz, first * length), gamma,
                                  kept + first * kept_line(length), statistics + first, to(dx, first * length), own,
                                  own + length))
                finite = false;
        }
    });
    for (size_t i = 0; i < 2 * length; ++i) {
        double sum = 0;
        for (size_t piece = 0; piece < pieces; ++piece) sum += double(sums[piece * 2 * length + i]);
        (i < length ? dgamma[i] : dbeta[i - length]) = float(sum);
    }
    return finite;
}

}  // namespace narrowbit
