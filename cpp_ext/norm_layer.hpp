// Layer normalization, row by row: see norm.hpp.
#pragma once

#include <vector>

#include "norm_vectors.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kRowBlock = 64;  // sums of few numbers are soon together

inline uint32_t size_bits(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return bits & 0x7FFFFFFFu;
}

// The sum of what a row's vectors hold; four of them fit 32 bits.
inline int64_t all(const int32_t (&part)[kRowBlock]) {
    int32_t few[16] = {};
    for (size_t j = 0; j < kRowBlock; j += 16)
        for (size_t k = 0; k < 16; ++k) few[k] += part[j + k];
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

// The codes, and their sum.
template <typename T>
int64_t row_codes(size_t length, const T* __restrict x, float power, int16_t* __restrict codes) {
    int32_t sum[kRowBlock] = {};
    along<kRowBlock>(length, [&](size_t from, size_t width) INLINED {
        places<kRowBlock>(width, [&](size_t k) INLINED {
            const int32_t q = rounded(load(x + from + k) * power);
            sum[k] += q, codes[from + k] = int16_t(q);
        });
    });
    return all(sum);
}

struct RowSize {
    int64_t sum;
    int32_t largest;
};

// Codes become deviations from mu.
inline RowSize row_size(size_t length, int16_t* __restrict codes, int16_t mu) {
    int32_t sum[kRowBlock] = {};
    uint16_t peak[kRowBlock] = {}, most = 0;
    along<kRowBlock>(length, [&](size_t from, size_t width) INLINED {
        places<kRowBlock>(width, [&](size_t k) INLINED {
            const auto d = int16_t(codes[from + k] - mu);
            const auto size = uint16_t(d < 0 ? -d : d);
            codes[from + k] = d, sum[k] += size, peak[k] = std::max(peak[k], size);
        });
    });
    for (const uint16_t p : peak) most = std::max(most, p);
    return {all(sum), most};
}

// y = d * inverse of a row as codes: deviations go up to 15 bits, and are multiplied by factor / 2^15; a code is worth
// `unit`, and the lowest of the levels begins at the float exponent `bottom`.
struct RowAffine {
    int up = 0;
    int16_t factor = 0;
    float unit = 1;
    int32_t bottom = 127;

    RowAffine(int32_t peak, double inverse) {
        if (!peak || inverse == 0) return;
        up = std::max(14 - exponent_of(peak), 0);
        const double slope = inverse * two_to(-up);
        const int exponent = std::clamp(exponent_of(slope), -126, 126);
        factor = int16_t(std::clamp(nearest(slope * two_to(14 - exponent)), 0, 32767)),
        unit = float(two_to(exponent + 1));
        bottom += exponent_of(((peak << up) * factor + 0x4000) >> 15) - 7;
    }
};

struct RowLevels {
    int64_t negative, sizes;
};

// How many codes of y are below 0, and the sum of their levels. Deviations become those codes.
template <typename T>
RowLevels row_apply(size_t length, int16_t* __restrict codes, RowAffine how, const float* __restrict gamma,
                    const float* __restrict beta, T* __restrict z, uint8_t* __restrict kept) {
    for (size_t i = 0; i < length; ++i) {
        const auto d = int16_t(uint32_t(codes[i]) << how.up);
        codes[i] = int16_t((int32_t(d) * how.factor + 0x4000) >> 15);
    }
    I32 negative = {}, sizes = {};
    int64_t none = 0;  // places that are not there: their level is 1
    along<kRowBlock>(length, [&](size_t from, size_t width) INLINED {
        pairs<kRowBlock>(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
            const auto side = [&](size_t at, size_t count) INLINED {
                const F32 y = floats(codes_at(codes + at, count));
                put_reals(y * how.unit * take<F32>(gamma + at, count) + take<F32>(beta + at, count), z + at, count);
                const Levels levels(y, I32{} + how.bottom);
                negative -= as<I32>(y) >> 31, sizes += levels.size();
                return levels.kept;
            };
            const I32 first = side(from + low, n);
            put_pair(first, side(from + high, m), kept + from / 2 + byte, n);
            none += int64_t(2 * kLanes - n - m);
        });
    });
    return {all(negative), all(sizes) - none};
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
                          const uint8_t* __restrict kept, int16_t* __restrict codes, float* __restrict dgamma,
                          float* __restrict dbeta) {
    I32 sum = {};
    int64_t product = 0;
    along<kRowBlock>(length, [&](size_t from, size_t width) INLINED {
        I32 products = {};
        pairs<kRowBlock>(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
            const auto side = [&](size_t at, size_t count, I32 nibbles) INLINED {
                const I32 level = level_of(nibbles);
                const F32 v = reals(dz + at, count);
                const I32 g = rounded(v * take<F32>(gamma + at, count) * power);
                put_codes(g, codes + at, count);
                sum += g, products += g * level;
                put(take<F32>(dgamma + at, count) + v * (floats(level) * unit), dgamma + at, count);
                put(take<F32>(dbeta + at, count) + v, dbeta + at, count);
            };
            const I32 bytes = bytes_at(kept + from / 2 + byte, n);
            side(from + low, n, bytes & 15), side(from + high, m, bytes >> 4);
        });
        product += all(products);
    });
    return {all(sum), product};
}

template <typename T>
void row_gradient(size_t length, const int16_t* __restrict codes, int32_t below, int32_t above, float factor,
                  const uint8_t* __restrict kept, T* __restrict dx) {
    along<kRowBlock>(length, [&](size_t from, size_t width) INLINED {
        pairs<kRowBlock>(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
            const auto side = [&](size_t at, size_t count, I32 nibbles) INLINED {
                const I32 by = choose(nibbles < 8, I32{} + below, I32{} + above);
                put_reals(floats((codes_at(codes + at, count) << 8) - by) * factor, dx + at, count);
            };
            const I32 bytes = bytes_at(kept + from / 2 + byte, n);
            side(from + low, n, bytes & 15), side(from + high, m, bytes >> 4);
        });
    });
}

// Rows that are taken together, pass by pass, so that none waits for its own sums; long ones go by themselves.
constexpr size_t kRows = 8;
inline size_t together(size_t length) { return length > 2048 ? 1 : kRows; }

template <typename T>
bool layer_of(size_t rows, size_t length, const T* x, const float* gamma, const float* beta, double eps, T* z,
              uint8_t* kept, ChannelStatistics* statistics) {
    const auto m = int64_t(length);
    const size_t most = together(length);
    std::vector<int16_t> codes(most * length);
    for (; rows > 0; x += most * length, z += most * length, kept += most * kept_line(length), statistics += most) {
        const size_t count = std::min(most, rows);
        float power[kRows];
        int16_t mu[kRows];
        Scale scale[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, x + r * length);
            if (range >= 0x7F800000u) return false;
            power[r] = power_of(range, kRowBits);
        }
        for (size_t r = 0; r < count; ++r)
            mu[r] = int16_t(mean_of(row_codes(length, x + r * length, power[r], codes.data() + r * length), m));
        for (size_t r = 0; r < count; ++r) {
            const RowSize size = row_size(length, codes.data() + r * length, mu[r]);
            scale[r] = scale_of(size.sum, m, size.largest, power[r], eps);
        }
        for (size_t r = 0; r < count; ++r) {
            const RowAffine how(scale[r].peak, scale[r].inverse);
            const RowLevels levels = row_apply(length, codes.data() + r * length, how, gamma, beta, z + r * length,
                                               kept + r * kept_line(length));
            statistics[r] = scale[r].statistics(levels.negative, levels.sizes, m, power[r]);
        }
        rows -= count;
    }
    return true;
}

template <typename T>
bool layer_gradient_of(size_t rows, size_t length, const T* dz, const float* gamma, const uint8_t* kept,
                       const ChannelStatistics* statistics, T* dx, float* dgamma, float* dbeta) {
    const size_t line = kept_line(length), most = together(length);
    std::vector<int16_t> codes(most * length);
    for (; rows > 0; dz += most * length, dx += most * length, kept += most * line, statistics += most) {
        const size_t count = std::min(most, rows);
        float power[kRows], factor[kRows];
        int32_t below[kRows], above[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, dz + r * length, gamma);
            if (range >= 0x7F800000u) return false;
            power[r] = power_of(range, kGradientBits);
        }
        for (size_t r = 0; r < count; ++r) {
            const ChannelStatistics s = statistics[r];
            const RowSums sums =
                row_gradient_sums(length, dz + r * length, gamma, power[r], float(s.lowest * s.inverse),
                                  kept + r * line, codes.data() + r * length, dgamma, dbeta);
            const Tilt tilt(sums.sum, sums.product, double(length), s);
            below[r] = tilt.below(0), above[r] = tilt.above(0);
            factor[r] = float(s.inverse_x / (256 * double(power[r])));
        }
        for (size_t r = 0; r < count; ++r)
            row_gradient(length, codes.data() + r * length, below[r], above[r], factor[r], kept + r * line,
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

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
