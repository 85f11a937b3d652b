// The loops of norm.hpp, compiled once for each instruction set: plain C++ that the compiler turns into vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "norm.hpp"
#include "norm_numbers.hpp"
#include "reals.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kBlock = kLine;  // places at a time
constexpr size_t kLines = 4096;   // whose sums fit 32 bits

// work(first line, lines, first place, width): blocks whose sums fit, kBlock places wide but for the last.
template <typename Work>
void blocks(size_t lines, size_t length, Work work) {
    for (size_t line = 0; line < lines; line += kLines)
        for (size_t from = 0; from < length; from += kBlock)
            work(line, std::min(kLines, lines - line), from, std::min(kBlock, length - from));
}

// see(at, i) for every number of a block: its place in the tensor, and in the block.
template <typename See>
inline void every(size_t line, size_t lines, size_t length, size_t from, size_t width, See see) {
    for (size_t end = line + lines; line < end; ++line) {
        const size_t at = line * length + from;
        if (width == kBlock)
            for (size_t i = 0; i < kBlock; ++i) see(at + i, i);
        else
            for (size_t i = 0; i < width; ++i) see(at + i, i);
    }
}

template <typename T>
void sums_of(size_t lines, size_t length, const T* __restrict x, const float* power, int64_t* sums) {
    blocks(lines, length, [&](size_t line, size_t count, size_t from, size_t width) {
        int32_t sum[kBlock] = {};
        float by[kBlock] = {};
        std::copy_n(power + from, width, by);
        every(line, count, length, from, width, [&](size_t at, size_t i) { sum[i] += rounded(load(x + at) * by[i]); });
        for (size_t i = 0; i < width; ++i) sums[from + i] += sum[i];
    });
}

void sums(Real type, size_t lines, size_t length, const void* x, const float* power, int64_t* to) {
    with_type(type, [&](auto t) { sums_of(lines, length, static_cast<const decltype(t)*>(x), power, to); });
}

template <typename T>
void deviations_of(size_t lines, size_t length, const T* __restrict x, const float* power, const int32_t* mu,
                   int64_t* sums, int64_t* negatives, int32_t* largest) {
    blocks(lines, length, [&](size_t line, size_t count, size_t from, size_t width) {
        int32_t sum[kBlock] = {}, negative[kBlock] = {}, peak[kBlock] = {}, middle[kBlock] = {};
        float by[kBlock] = {};
        std::copy_n(power + from, width, by), std::copy_n(mu + from, width, middle);
        every(line, count, length, from, width, [&](size_t at, size_t i) {
            const int32_t d = rounded(load(x + at) * by[i]) - middle[i], size = std::abs(d);
            sum[i] += size, negative[i] -= d >> 31, peak[i] = std::max(peak[i], size);
        });
        for (size_t i = 0; i < width; ++i) {
            sums[from + i] += sum[i], negatives[from + i] += negative[i];
            largest[from + i] = std::max(largest[from + i], peak[i]);
        }
    });
}

void deviations(Real type, size_t lines, size_t length, const void* x, const float* power, const int32_t* mu,
                int64_t* to, int64_t* negatives, int32_t* largest) {
    with_type(type, [&](auto t) {
        deviations_of(lines, length, static_cast<const decltype(t)*>(x), power, mu, to, negatives, largest);
    });
}

// Parameters of a block of a line, near and not in the way of what is written.
template <typename P>
struct Near {
    P at[kBlock] = {};
    Near(const P* from, size_t width) { std::copy_n(from, width, at); }
    P operator[](size_t i) const { return at[i]; }
};

// work(first place, width) for the blocks of a line.
template <typename Work>
void along(size_t length, Work work) {
    for (size_t from = 0; from < length; from += kBlock) work(from, std::min(kBlock, length - from));
}

// one(i) for i below width, a loop of known length where that is kBlock.
template <typename One>
inline void places(size_t width, One one) {
    if (width == kBlock)
        for (size_t i = 0; i < kBlock; ++i) one(i);
    else
        for (size_t i = 0; i < width; ++i) one(i);
}

// The nibbles of a block -> bytes, and back.
inline void join(size_t width, const uint8_t* nibbles, uint8_t* __restrict kept) {
    const size_t half = (width + 1) / 2;
    if (width == kBlock)
        for (size_t j = 0; j < kBlock / 2; ++j) kept[j] = uint8_t(nibbles[j] | nibbles[j + kBlock / 2] << 4);
    else
        for (size_t j = 0; j < half; ++j)
            kept[j] = uint8_t(nibbles[j] | (j + half < width ? nibbles[j + half] << 4 : 0));
}

inline void part(size_t width, const uint8_t* __restrict kept, uint8_t* __restrict nibbles) {
    const size_t half = (width + 1) / 2;
    if (width == kBlock)
        for (size_t j = 0; j < kBlock / 2; ++j) nibbles[j] = kept[j] & 15, nibbles[j + kBlock / 2] = kept[j] >> 4;
    else
        for (size_t j = 0; j < half; ++j) nibbles[j] = kept[j] & 15, nibbles[j + half] = kept[j] >> 4;
}

template <typename T>
void apply_to(size_t lines, size_t length, const T* __restrict x, Norm::Affine how, T* __restrict z, uint8_t* kept) {
    const size_t line = kept_line(length);
    along(length, [&](size_t from, size_t width) {
        const Near<float> power(how.power + from, width), step(how.step + from, width);
        const Near<int32_t> mu(how.mu + from, width), factor(how.factor + from, width);
        const Near<int32_t> half(how.half + from, width), shift(how.shift + from, width),
            offset(how.offset + from, width);
        uint8_t nibbles[kBlock];
        for (size_t i = 0; i < lines; ++i) {
            const T* in = x + i * length + from;
            T* out = z + i * length + from;
            places(width, [&](size_t k) {
                const int32_t d = rounded(load(in + k) * power[k]) - mu[k];
                store(float(((d * factor[k] + half[k]) >> shift[k]) + offset[k]) * how.unit, out + k);
                const auto size = int32_t(float(std::abs(d)) * step[k]);
                nibbles[k] = uint8_t(uint32_t(size) | (uint32_t(d) >> 31 << 3));
            });
            if (kept) join(width, nibbles, kept + i * line + from / 2);
        }
    });
}

void apply(Real type, size_t lines, size_t length, const void* x, Norm::Affine how, void* z, uint8_t* kept) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        apply_to(lines, length, static_cast<const T*>(x), how, static_cast<T*>(z), kept);
    });
}

inline int32_t sign_of(uint32_t nibble) { return 1 - int32_t(nibble >> 2 & 2); }
inline int32_t level_of(uint32_t nibble) { return sign_of(nibble) * int32_t(2 * (nibble & 7) + 1); }

template <typename T>
void gradient_sums_of(size_t lines, size_t length, const T* __restrict dz, const float* powers, const uint8_t* kept,
                      int64_t* sums, int64_t* products) {
    blocks(lines, length, [&](size_t first, size_t count, size_t from, size_t width) {
        const Near<float> power(powers + from, width);
        int32_t sum[kBlock] = {}, product[kBlock] = {};
        uint8_t nibbles[kBlock];
        for (size_t i = first; i < first + count; ++i) {
            part(width, kept + i * kept_line(length) + from / 2, nibbles);
            const T* in = dz + i * length + from;
            places(width, [&](size_t k) {
                const int32_t g = rounded(load(in + k) * power[k]);
                sum[k] += g, product[k] += g * level_of(nibbles[k]);
            });
        }
        for (size_t k = 0; k < width; ++k) sums[from + k] += sum[k], products[from + k] += product[k];
    });
}

void gradient_sums(Real type, size_t lines, size_t length, const void* dz, const float* power, const uint8_t* kept,
                   int64_t* to, int64_t* products) {
    with_type(type, [&](auto t) {
        gradient_sums_of(lines, length, static_cast<const decltype(t)*>(dz), power, kept, to, products);
    });
}

template <typename T>
void gradient_of(size_t lines, size_t length, const T* __restrict dz, Norm::Slope how, const uint8_t* kept,
                 T* __restrict dx) {
    along(length, [&](size_t from, size_t width) {
        const Near<float> power(how.power + from, width), factor(how.factor + from, width);
        const Near<int32_t> mean(how.mean + from, width), slope(how.slope + from, width);
        uint8_t nibbles[kBlock];
        for (size_t i = 0; i < lines; ++i) {
            part(width, kept + i * kept_line(length) + from / 2, nibbles);
            const T* in = dz + i * length + from;
            T* out = dx + i * length + from;
            places(width, [&](size_t k) {
                const int32_t g = rounded(load(in + k) * power[k]);
                store(float(g * 256 - mean[k] - sign_of(nibbles[k]) * slope[k]) * factor[k], out + k);
            });
        }
    });
}

void gradient(Real type, size_t lines, size_t length, const void* dz, Norm::Slope how, const uint8_t* kept, void* dx) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        gradient_of(lines, length, static_cast<const T*>(dz), how, kept, static_cast<T*>(dx));
    });
}

inline uint32_t size_bits(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return bits & 0x7FFFFFFFu;
}

template <typename T>
bool layer_of(size_t rows, size_t length, const T* __restrict x, const float* __restrict gamma,
              const float* __restrict beta, double eps, T* __restrict z, uint8_t* __restrict kept,
              ChannelStatistics* statistics) {
    const auto m = int64_t(length);
    for (size_t row = 0; row < rows; ++row, x += length, z += length, kept += kept_line(length)) {
        uint32_t range = 0;
        for (size_t i = 0; i < length; ++i) range = std::max(range, size_bits(load(x + i)));
        if (range >= 0x7F800000u) return false;
        const float power = power_of(range, kCodeBits);
        int64_t sum = 0, size_sum = 0, negatives = 0;
        int32_t peak = 0;
        along(length, [&](size_t from, size_t width) {
            int32_t part = 0;
            places(width, [&](size_t k) { part += rounded(load(x + from + k) * power); });
            sum += part;
        });
        const int32_t mu = mean_of(sum, m);
        along(length, [&](size_t from, size_t width) {
            int32_t part = 0, negative = 0;
            places(width, [&](size_t k) {
                const int32_t d = rounded(load(x + from + k) * power) - mu, size = std::abs(d);
                part += size, negative -= d >> 31, peak = std::max(peak, size);
            });
            size_sum += part, negatives += negative;
        });
        const double scale = kGaussian * (double(size_sum) / double(m)) + eps * double(power);
        const double inverse = scale > 0 ? 1 / scale : 0;
        const float step = step_of(peak);
        if (statistics)
            statistics[row] = {inverse, inverse * double(power), 0.5 / double(step),
                               1 - 2 * double(negatives) / double(m)};
        const int bits = peak ? std::clamp(13 - std::ilogb(peak * inverse), -126, 126) : 0;
        const double slope = std::ldexp(inverse, bits);
        const int up = slope != 0 ? std::clamp(13 - std::ilogb(slope), 0, 30) : 0;
        const auto factor = int32_t(std::nearbyint(std::ldexp(slope, up)));
        const int32_t half = (1 << up) >> 1;
        const float unit = std::ldexp(1.0f, -bits);
        along(length, [&](size_t from, size_t width) {
            uint8_t nibbles[kBlock];
            places(width, [&](size_t k) {
                const int32_t d = rounded(load(x + from + k) * power) - mu;
                const float y = float((d * factor + half) >> up) * unit;
                store(y * gamma[from + k] + beta[from + k], z + from + k);
                nibbles[k] = uint8_t(uint32_t(int32_t(float(std::abs(d)) * step)) | (uint32_t(d) >> 31 << 3));
            });
            join(width, nibbles, kept + from / 2);
        });
    }
    return true;
}

bool layer(Real type, size_t rows, size_t length, const void* x, const float* gamma, const float* beta, double eps,
           void* z, uint8_t* kept, ChannelStatistics* statistics) {
    bool finite = true;
    with_type(type, [&](auto t) {
        using T = decltype(t);
        finite =
            layer_of(rows, length, static_cast<const T*>(x), gamma, beta, eps, static_cast<T*>(z), kept, statistics);
    });
    return finite;
}

template <typename T>
bool layer_gradient_of(size_t rows, size_t length, const T* __restrict dz, const float* __restrict gamma,
                       const uint8_t* __restrict kept, const ChannelStatistics* statistics, T* __restrict dx,
                       float* __restrict dgamma, float* __restrict dbeta) {
    for (size_t row = 0; row < rows; ++row, dz += length, dx += length, kept += kept_line(length)) {
        const ChannelStatistics s = statistics[row];
        uint32_t range = 0;
        for (size_t i = 0; i < length; ++i) range = std::max(range, size_bits(load(dz + i) * gamma[i]));
        if (range >= 0x7F800000u) return false;
        const float power = power_of(range, kGradientBits), unit = float(s.level * s.inverse);
        int64_t sum = 0, product = 0;
        along(length, [&](size_t from, size_t width) {
            uint8_t nibbles[kBlock];
            part(width, kept + from / 2, nibbles);
            int32_t sums = 0, products = 0;
            places(width, [&](size_t k) {
                const float v = load(dz + from + k);
                const int32_t g = rounded(v * gamma[from + k] * power), level = level_of(nibbles[k]);
                sums += g, products += g * level;
                dgamma[from + k] += v * (float(level) * unit), dbeta[from + k] += v;
            });
            sum += sums, product += products;
        });
        const double tilt = 256 * kGaussian * (double(product) * s.level * s.inverse) / double(length);
        const int32_t slope = nearest(tilt), mean = nearest(256 * double(sum) / double(length) - tilt * s.sign);
        const auto factor = float(s.inverse_x / (256 * double(power)));
        along(length, [&](size_t from, size_t width) {
            uint8_t nibbles[kBlock];
            part(width, kept + from / 2, nibbles);
            places(width, [&](size_t k) {
                const int32_t g = rounded(load(dz + from + k) * gamma[from + k] * power);
                store(float(g * 256 - mean - sign_of(nibbles[k]) * slope) * factor, dx + from + k);
            });
        });
    }
    return true;
}

bool layer_gradient(Real type, size_t rows, size_t length, const void* dz, const float* gamma, const uint8_t* kept,
                    const ChannelStatistics* statistics, void* dx, float* dgamma, float* dbeta) {
    bool finite = true;
    with_type(type, [&](auto t) {
        using T = decltype(t);
        finite = layer_gradient_of(rows, length, static_cast<const T*>(dz), gamma, kept, statistics,
                                   static_cast<T*>(dx), dgamma, dbeta);
    });
    return finite;
}

}  // namespace

extern const Norm kNorm;
const Norm kNorm = {ISA_NAME, sums, deviations, apply, gradient_sums, gradient, layer, layer_gradient};

}  // namespace ISA
}  // namespace narrowbit
