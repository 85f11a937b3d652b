// Layer normalization, row by row: see norm.hpp.
#pragma once

#include "norm_blocks.hpp"

namespace narrowbit {
namespace ISA {
namespace {

inline uint32_t size_bits(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return bits & 0x7FFFFFFFu;
}

// The sum of what a row's vectors hold.
template <typename Sum>
int64_t all(const Sum (&part)[kBlock]) {
    int64_t few[8] = {};
    for (size_t j = 0; j < kBlock; j += 8)
        for (size_t k = 0; k < 8; ++k) few[k] += part[j + k];
    int64_t sum = 0;
    for (const int64_t f : few) sum += f;
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
int64_t row_apply(size_t length, const T* __restrict x, float power, int32_t middle, Factor f, float unit,
                  int32_t bottom, const float* __restrict gamma, const float* __restrict beta, T* __restrict z,
                  uint8_t* kept) {
    uint16_t negative[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        uint8_t levels[kBlock];
        places(width, [&](size_t k) INLINED {
            const int32_t d = int32_t(raw(load(x + from + k) * power)) - middle;
            const float y = float((d * f.factor + f.half) >> f.shift) * unit;
            store(y * gamma[from + k] + beta[from + k], z + from + k);
            levels[k] = kept_of(d, bottom);
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

// The sum of the levels.
inline int64_t row_levels(size_t length, const uint8_t* kept) {
    int32_t sum[kBlock] = {};
    along(length, [&](size_t from, size_t width) INLINED {
        uint8_t levels[kBlock];
        part(width, kept + from / 2, levels);
        places(width, [&](size_t k) INLINED { sum[k] += 1 << (levels[k] & 7); });
    });
    return all(sum);
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
            const int32_t g = rounded(v * gamma[from + k] * power);
            sum[k] += g, product[k] += times_level(g, levels[k]);
            dgamma[from + k] += v * (float(times_level(1, levels[k])) * unit), dbeta[from + k] += v;
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
                          float(two_to(-bits)), s.bottom, gamma, beta, z + r * length, kept + r * kept_line(length));
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
            const int64_t sizes = row_levels(length, kept + r * line);
            const RowSums sums =
                row_gradient_sums(length, dz + r * length, gamma, power[r], float(s.sum / double(sizes) * s.inverse),
                                  kept + r * line, dgamma, dbeta);
            const Tilt tilt(sums.sum, sums.product, sizes, double(length), s);
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

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
