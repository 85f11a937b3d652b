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
constexpr size_t kLines = 4096;   // whose sums fit 32 bits: 2^12 numbers of 16 bits, or of 14 times 15

// Parameters of a block of a line, near and not in the way of what is written.
template <typename P>
struct Near {
    P at[kBlock] = {};
    Near(const P* from, size_t width) { std::copy_n(from, width, at); }
    P operator[](size_t i) const { return at[i]; }
};

// Lambdas that a loop calls: inlined, they keep what the compiler knows of pointers.
#ifdef __GNUC__
#define INLINED __attribute__((always_inline))
#else
#define INLINED
#endif

// work(first place, width) for the blocks of a line: of kBlock places, then one of half as many, then what is left.
template <typename Work>
inline void along(size_t length, Work work) {
    size_t from = 0;
    for (; from + kBlock <= length; from += kBlock) work(from, kBlock);
    if (from + kBlock / 2 <= length) work(from, kBlock / 2), from += kBlock / 2;
    if (from < length) work(from, length - from);
}

// one(i) for i below width, a loop of known length where that is kBlock or half of it.
template <typename One>
inline void places(size_t width, One one) {
    if (width == kBlock)
        for (size_t i = 0; i < kBlock; ++i) one(i);
    else if (width == kBlock / 2)
        for (size_t i = 0; i < kBlock / 2; ++i) one(i);
    else
        for (size_t i = 0; i < width; ++i) one(i);
}

// one(j) for the places of the first half of a block.
template <typename One>
inline void halves(size_t width, One one) {
    if (width == kBlock)
        for (size_t j = 0; j < kBlock / 2; ++j) one(j);
    else if (width == kBlock / 2)
        for (size_t j = 0; j < kBlock / 4; ++j) one(j);
    else
        for (size_t j = 0; j < std::min(width, kBlock) / 2; ++j) one(j);
}

// The levels of a block -> bytes, and back: the first half in the lower nibbles.
inline void join(size_t width, const uint8_t* levels, uint8_t* __restrict kept) {
    const size_t half = width / 2;
    halves(width, [&](size_t j) INLINED { kept[j] = uint8_t(levels[j] | levels[j + half] << 4); });
    if (width % 2) kept[half] = levels[width - 1];
}

inline void part(size_t width, const uint8_t* __restrict kept, uint8_t* __restrict levels) {
    const size_t half = width / 2;
    halves(width, [&](size_t j) INLINED { levels[j] = kept[j] & 15, levels[j + half] = kept[j] >> 4; });
    if (width % 2) levels[width - 1] = kept[half] & 15;
}

// work(first line, lines, first place, width): blocks of so many lines or fewer, kBlock places wide but for the last.
template <typename Work>
void blocks(size_t lines, size_t most, size_t length, Work work) {
    for (size_t line = 0; line < lines; line += most)
        along(length,
              [&](size_t from, size_t width) INLINED { work(line, std::min(most, lines - line), from, width); });
}

template <typename T>
void sums_of(size_t lines, size_t length, const T* __restrict x, const float* powers, int64_t* sums) {
    blocks(lines, kLines, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        uint32_t sum[kBlock] = {};
        for (const T* in = x + first * length + from, *end = in + count * length; in != end; in += length)
            places(width, [&](size_t k) INLINED { sum[k] += raw(load(in + k) * power[k]); });
        for (size_t k = 0; k < width; ++k) sums[from + k] += int32_t(sum[k] - uint32_t(count) * kRaw);
    });
}

void sums(Real type, size_t lines, size_t length, const void* x, const float* power, int64_t* to) {
    with_type(type, [&](auto t) { sums_of(lines, length, static_cast<const decltype(t)*>(x), power, to); });
}

// mu + kRaw: what raw numbers are less by.
inline void middles(Near<int32_t>& mu) {
    for (size_t k = 0; k < kBlock; ++k) mu.at[k] = int32_t(uint32_t(mu.at[k]) + kRaw);
}

template <typename T>
void deviations_of(size_t lines, size_t length, const T* __restrict x, const float* powers, const int32_t* mu,
                   int64_t* sums, int32_t* largest) {
    blocks(lines, kLines, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        Near<int32_t> middle(mu + from, width);
        middles(middle);
        int32_t sum[kBlock] = {}, peak[kBlock] = {};
        for (const T* in = x + first * length + from, *end = in + count * length; in != end; in += length)
            places(width, [&](size_t k) INLINED {
                const int32_t size = std::abs(int32_t(raw(load(in + k) * power[k])) - middle[k]);
                sum[k] += size, peak[k] = std::max(peak[k], size);
            });
        for (size_t k = 0; k < width; ++k)
            sums[from + k] += sum[k], largest[from + k] = std::max(largest[from + k], peak[k]);
    });
}

void deviations(Real type, size_t lines, size_t length, const void* x, const float* power, const int32_t* mu,
                int64_t* to, int32_t* largest) {
    with_type(type, [&](auto t) {
        deviations_of(lines, length, static_cast<const decltype(t)*>(x), power, mu, to, largest);
    });
}

// The level of a deviation, 0..15: 8 and more where d >= 0.
inline uint8_t level_of(int32_t d, float step) { return uint8_t(int32_t(float(d) * step + 8.0f)); }

template <typename T>
void apply_to(size_t lines, size_t length, const T* __restrict x, Norm::Affine how, T* __restrict z, uint8_t* kept,
              int64_t* negatives) {
    const size_t line = kept_line(length);
    blocks(lines, 255, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(how.power + from, width), step(how.step + from, width);
        Near<int32_t> middle(how.mu + from, width);
        middles(middle);
        const Near<int32_t> factor(how.factor + from, width), half(how.half + from, width);
        const Near<int32_t> shift(how.shift + from, width), offset(how.offset + from, width);
        uint8_t levels[kBlock], negative[kBlock] = {};
        for (size_t i = first; i < first + count; ++i) {
            const T* in = x + i * length + from;
            T* out = z + i * length + from;
            places(width, [&](size_t k) INLINED {
                const int32_t d = int32_t(raw(load(in + k) * power[k])) - middle[k];
                store(float(((d * factor[k] + half[k]) >> shift[k]) + offset[k]) * how.unit, out + k);
                levels[k] = level_of(d, step[k]);
            });
            places(width, [&](size_t k) INLINED { negative[k] = uint8_t(negative[k] + (levels[k] < 8)); });
            join(width, levels, kept + i * line + from / 2);
        }
        for (size_t k = 0; k < width; ++k) negatives[from + k] += negative[k];
    });
}

void apply(Real type, size_t lines, size_t length, const void* x, Norm::Affine how, void* z, uint8_t* kept,
           int64_t* negatives) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        apply_to(lines, length, static_cast<const T*>(x), how, static_cast<T*>(z), kept, negatives);
    });
}

template <typename T>
void gradient_sums_of(size_t lines, size_t length, const T* __restrict dz, const float* powers, const uint8_t* kept,
                      int64_t* sums, int64_t* products) {
    blocks(lines, kLines, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        int32_t sum[kBlock] = {}, product[kBlock] = {};
        uint8_t levels[kBlock];
        for (size_t i = first; i < first + count; ++i) {
            part(width, kept + i * kept_line(length) + from / 2, levels);
            const T* in = dz + i * length + from;
            places(width, [&](size_t k) INLINED {
                const int32_t g = rounded(load(in + k) * power[k]);
                sum[k] += g, product[k] += g * int32_t(levels[k]);
            });
        }
        for (size_t k = 0; k < width; ++k)  // of odd numbers, 2 level - 15
            sums[from + k] += sum[k], products[from + k] += 2 * int64_t(product[k]) - 15 * int64_t(sum[k]);
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
    along(length, [&](size_t from, size_t width) INLINED {
        const Near<float> power(how.power + from, width), factor(how.factor + from, width);
        const Near<int32_t> below(how.below + from, width), above(how.above + from, width);
        uint8_t levels[kBlock];
        for (size_t i = 0; i < lines; ++i) {
            part(width, kept + i * kept_line(length) + from / 2, levels);
            const T* in = dz + i * length + from;
            T* out = dx + i * length + from;
            places(width, [&](size_t k) INLINED {
                const uint32_t g = raw(load(in + k) * power[k]) << 8;
                store(float(int32_t(g) - (levels[k] < 8 ? below[k] : above[k])) * factor[k], out + k);
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

// The sum of what a row's vectors hold; of kLongestRow numbers a sixteenth of them fits 32 bits.
template <typename Sum>
int64_t all(const Sum (&part)[kBlock]) {
    int32_t few[kBlock / 8] = {};
    for (size_t j = 0; j < kBlock; j += kBlock / 8)
        for (size_t k = 0; k < kBlock / 8; ++k) few[k] += part[j + k];
    int64_t sum = 0;
    for (const int32_t f : few) sum += f;
    return sum;
}

// The passes over one row.
template <typename T>
uint32_t row_range(size_t length, const T* __restrict x) {
    uint32_t range = 0;
    for (size_t i = 0; i < length; ++i) range = std::max(range, size_bits(load(x + i)));
    return range;
}

template <typename T>
int64_t row_sum(size_t length, const T* __restrict x, float power) {
    int32_t sum[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        const T* at = x + from;
        places(width, [&](size_t k) INLINED { sum[k] += rounded(load(at + k) * power); });
    });
    return all(sum);
}

struct RowSize {
    int64_t sum;
    int32_t largest;
};

template <typename T>
RowSize row_size(size_t length, const T* __restrict x, float power, int32_t middle) {
    int32_t sum[kBlock] = {}, peak[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        const T* at = x + from;
        places(width, [&](size_t k) INLINED {
            const int32_t size = std::abs(int32_t(raw(load(at + k) * power)) - middle);
            sum[k] += size, peak[k] = std::max(peak[k], size);
        });
    });
    int32_t largest[kBlock / 8] = {}, most = 0;
    for (size_t j = 0; j < kBlock; j += kBlock / 8)
        for (size_t k = 0; k < kBlock / 8; ++k) largest[k] = std::max(largest[k], peak[j + k]);
    for (const int32_t l : largest) most = std::max(most, l);
    return {all(sum), most};
}

// How many deviations are below 0.
template <typename T>
int64_t row_apply(size_t length, const T* __restrict x, float power, int32_t middle, Factor f, float unit, float step,
                  const float* __restrict gamma, const float* __restrict beta, T* __restrict z, uint8_t* kept) {
    uint16_t negative[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        uint8_t levels[kBlock];
        places(width, [&](size_t k) INLINED {
            const int32_t d = int32_t(raw(load(x + from + k) * power)) - middle;
            const float y = float((d * f.factor + f.half) >> f.shift) * unit;
            store(y * gamma[from + k] + beta[from + k], z + from + k);
            levels[k] = level_of(d, step);
        });
        places(width, [&](size_t k) INLINED { negative[k] = uint16_t(negative[k] + (levels[k] < 8)); });
        join(width, levels, kept + from / 2);
    });
    return all(negative);
}

template <typename T>
uint32_t row_range(size_t length, const T* __restrict x, const float* __restrict gamma) {
    uint32_t range = 0;
    for (size_t i = 0; i < length; ++i) range = std::max(range, size_bits(load(x + i) * gamma[i]));
    return range;
}

struct RowSums {
    int64_t sum, product;
};

template <typename T>
RowSums row_gradient_sums(size_t length, const T* __restrict dz, const float* __restrict gamma, float power, float unit,
                          const uint8_t* kept, float* __restrict dgamma, float* __restrict dbeta) {
    int32_t sum[kBlock] = {}, product[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        uint8_t levels[kBlock];
        part(width, kept + from / 2, levels);
        places(width, [&](size_t k) INLINED {
            const float v = load(dz + from + k);
            const int32_t g = rounded(v * gamma[from + k] * power), level = 2 * int32_t(levels[k]) - 15;
            sum[k] += g, product[k] += g * level;
            dgamma[from + k] += v * (float(level) * unit), dbeta[from + k] += v;
        });
    });
    return {all(sum), all(product)};
}

template <typename T>
void row_gradient(size_t length, const T* __restrict dz, const float* __restrict gamma, float power, int32_t below,
                  int32_t above, float factor, const uint8_t* kept, T* __restrict dx) {
    along(length, [&](size_t from, size_t width) INLINED {
        uint8_t levels[kBlock];
        part(width, kept + from / 2, levels);
        places(width, [&](size_t k) INLINED {
            const uint32_t g = raw(load(dz + from + k) * gamma[from + k] * power) << 8;
            store(float(int32_t(g) - (levels[k] < 8 ? below : above)) * factor, dx + from + k);
        });
    });
}

constexpr size_t kRows = 8;  // taken together, pass by pass, so that none waits for its own sums

template <typename T>
bool layer_of(size_t rows, size_t length, const T* x, const float* gamma, const float* beta, double eps, T* z,
              uint8_t* kept, ChannelStatistics* statistics) {
    const auto m = int64_t(length);
    for (; rows > 0; x += kRows * length, z += kRows * length, kept += kRows * kept_line(length), statistics += kRows) {
        const size_t count = std::min(kRows, rows);
        float power[kRows];
        int32_t middle[kRows];
        Scale scale[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, x + r * length);
            if (range >= 0x7F800000u) return false;
            power[r] = power_of(range, kCodeBits);
        }
        for (size_t r = 0; r < count; ++r) {
            middle[r] = int32_t(uint32_t(mean_of(row_sum(length, x + r * length, power[r]), m)) + kRaw);
        }
        for (size_t r = 0; r < count; ++r) {
            const RowSize size = row_size(length, x + r * length, power[r], middle[r]);
            scale[r] = scale_of(size.sum, m, size.largest, power[r], eps);
        }
        for (size_t r = 0; r < count; ++r) {
            const Scale s = scale[r];
            const int bits = s.peak ? std::clamp(13 - exponent_of(s.peak * s.inverse), -126, 126) : 0;
            const int64_t negatives =
                row_apply(length, x + r * length, power[r], middle[r], factor_of(s.inverse * two_to(bits)),
                          float(two_to(-bits)), s.step, gamma, beta, z + r * length, kept + r * kept_line(length));
            statistics[r] = s.statistics(negatives, m, power[r]);
        }
        rows -= count;
    }
    return true;
}

template <typename T>
bool layer_gradient_of(size_t rows, size_t length, const T* dz, const float* gamma, const uint8_t* kept,
                       const ChannelStatistics* statistics, T* dx, float* dgamma, float* dbeta) {
    const size_t line = kept_line(length);
    for (; rows > 0; dz += kRows * length, dx += kRows * length, kept += kRows * line, statistics += kRows) {
        const size_t count = std::min(kRows, rows);
        float power[kRows], factor[kRows];
        int32_t below[kRows], above[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, dz + r * length, gamma);
            if (range >= 0x7F800000u) return false;
            power[r] = power_of(range, kGradientBits);
        }
        for (size_t r = 0; r < count; ++r) {
            const ChannelStatistics s = statistics[r];
            const RowSums sums = row_gradient_sums(length, dz + r * length, gamma, power[r], float(s.level * s.inverse),
                                                   kept + r * line, dgamma, dbeta);
            const Tilt tilt(sums.sum, sums.product, double(length), s);
            below[r] = tilt.below(kRaw), above[r] = tilt.above(kRaw);
            factor[r] = float(s.inverse_x / (256 * double(power[r])));
        }
        for (size_t r = 0; r < count; ++r)
            row_gradient(length, dz + r * length, gamma, power[r], below[r], above[r], factor[r], kept + r * line,
                         dx + r * length);
        rows -= count;
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

#undef INLINED

}  // namespace

extern const Norm kNorm;
const Norm kNorm = {ISA_NAME, sums, deviations, apply, gradient_sums, gradient, layer, layer_gradient};

}  // namespace ISA
}  // namespace narrowbit
