#include "norm.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
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

// pass(first row, lines, length) over all rows, in lines; the last may be shorter. On several threads.
template <typename Pass>
void lines(int threads, size_t rows, size_t channels, Pass pass) {
    const size_t together = rows_of_line(channels), whole = rows / together;
    deal(threads, whole, 1, rows * channels, [&](size_t first, size_t last) {
        if (last > first) pass(first * together, last - first, together * channels);
    });
    if (rows % together) pass(whole * together, 1, rows % together * channels);
}

size_t kept_before(size_t row, size_t channels) {
    return row / rows_of_line(channels) * kept_line(rows_of_line(channels) * channels);
}

const void* at(Reals x, size_t element) { return static_cast<uint8_t*>(x.data) + element * size_of(x.type); }
void* to(Reals x, size_t element) { return static_cast<uint8_t*>(x.data) + element * size_of(x.type); }

// Codes of 16 bits between two passes: where the results of the second go, if those have as many.
class Codes {
   public:
    Codes(Reals results, size_t count)
        : own_(results.type == Real::bf16 ? nullptr : new int16_t[count]),
          first_(own_ ? own_.get() : static_cast<int16_t*>(results.data)) {}
    int16_t* at(size_t element) const { return first_ + element; }

   private:
    std::unique_ptr<int16_t[]> own_;
    int16_t* first_;
};

std::vector<float> powers(const std::vector<uint32_t>& ranges, int bits) {
    std::vector<float> made;
    for (const uint32_t r : ranges) made.push_back(power_of(r & 0x7FFFFFFFu, bits));
    return made;
}

bool finite(const std::vector<uint32_t>& ranges) {
    return std::all_of(ranges.begin(), ranges.end(), [](uint32_t r) { return (r & 0x7FFFFFFFu) < 0x7F800000u; });
}

}  // namespace

size_t kept_bytes(size_t rows, size_t channels) {
    const size_t together = rows_of_line(channels);
    return kept_before(rows, channels) + kept_line(rows % together * channels);
}

bool normalize(int threads, size_t rows, size_t channels, Reals x, const float* gamma, const float* beta, double eps,
               Reals z, uint8_t* kept, ChannelStatistics* statistics, float* mean, float* scale) {
    const Norm& n = norm();
    std::vector<uint32_t> range(channels);
    ranges(quantize(), threads, x.type, rows, channels, x.data, range.data());
    if (!finite(range)) return false;
    const std::vector<float> power = powers(range, kCodeBits), powers_of_line = repeated(power);

    const Codes codes(z, rows * channels);
    std::vector<int64_t> sum(channels), deviation(channels), negative(channels), size(channels);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> own(length);
        n.codes(x.type, count, length, at(x, row * channels), powers_of_line.data(), codes.at(row * channels),
                own.data());
#pragma omp critical
        fold(own, sum);
    });
    std::vector<int16_t> mu;
    std::vector<int32_t> peak(channels);
    const auto m = int64_t(rows);
    for (const int64_t s : sum) mu.push_back(int16_t(mean_of(s, m)));
    const auto mus = repeated(mu);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> own(length);
        std::vector<int32_t> largest(length);
        n.deviations(count, length, codes.at(row * channels), mus.data(), own.data(), largest.data());
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
        mean[c] = float(mu[c] / double(power[c])), scale[c] = float(s.size / double(power[c]));
    }
    const auto ups = repeated(up), factors = repeated(factor), offsets = repeated(offset);
    const auto units = repeated(unit);
    const Norm::Affine how = {mus.data(), ups.data(), factors.data(), offsets.data(), units.data()};
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> own(length), sizes(length);
        n.apply(x.type, count, length, codes.at(row * channels), how, to(z, row * channels),
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
    std::vector<uint32_t> range(channels);
    ranges(quantize(), threads, dz.type, rows, channels, dz.data, range.data());
    if (!finite(range)) return false;
    const std::vector<float> power = powers(range, kGradientBits), powers_of_line = repeated(power);
    const Codes codes(dx, rows * channels);
    std::vector<int64_t> sum(channels), product(channels);
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        std::vector<int64_t> sums(length), products(length);
        n.gradient_codes(dz.type, count, length, at(dz, row * channels), powers_of_line.data(),
                         kept + kept_before(row, channels), codes.at(row * channels), sums.data(), products.data());
#pragma omp critical
        fold(sums, sum), fold(products, product);
    });
    std::vector<int32_t> below, above;
    std::vector<float> factor;
    for (size_t c = 0; c < channels; ++c) {
        const Tilt tilt(sum[c], product[c], double(rows), statistics[c]);
        dgamma[c] = float(tilt.along / double(power[c])), dbeta[c] = float(double(sum[c]) / double(power[c]));
        below.push_back(tilt.below()), above.push_back(tilt.above());
        factor.push_back(float(double(gamma[c]) * statistics[c].inverse_x / (256 * double(power[c]))));
    }
    const auto belows = repeated(below), aboves = repeated(above);
    const auto factors = repeated(factor);
    const Norm::Slope how = {belows.data(), aboves.data(), factors.data()};
    lines(threads, rows, channels, [&](size_t row, size_t count, size_t length) {
        n.gradient(dz.type, count, length, codes.at(row * channels), how, kept + kept_before(row, channels),
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
