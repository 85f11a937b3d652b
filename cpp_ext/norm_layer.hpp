// Layer normalization, row by row: see norm.hpp.
#pragma once

#include <vector>

#include "norm_vectors.hpp"

namespace narrowbit {
namespace ISA {
namespace {

// The passes over one row.
template <typename T>
uint32_t row_range(size_t length, const T* __restrict x) {
    Bits<T> range = 0;
    for (size_t i = 0; i < length; ++i) range = std::max(range, size_bits(x + i));
    return uint32_t(range) << 8 * (sizeof(float) - sizeof(T));
}

// The codes, and their sum. Here and below: the row that comes `ahead` numbers later is asked for, a fifth less time.
template <typename T>
int64_t row_codes(size_t length, const T* __restrict x, float power, int16_t* __restrict codes, size_t ahead) {
    const Floats zero = same(zero_of(power));
    Sum sum;
    along(length, [&](size_t from, size_t width) INLINED {
        both(width, [&](size_t, size_t k, size_t n) INLINED {
            const Shorts q = take_codes(x + from + k, n, zero);
            put(q, codes + from + k, n);
            fetch(x + from + k + ahead);
            sum.add(q, same(int16_t(1)));
        });
    });
    return sum.all();
}

struct RowSize {
    int64_t sum;
    int32_t largest;
};

inline RowSize row_size(size_t length, const int16_t* __restrict codes, int16_t mu) {
    Sum sum;
    Shorts peak;
    along(length, [&](size_t from, size_t width) INLINED {
        both(width, [&](size_t, size_t k, size_t n) INLINED {
            const Shorts size = size_of(less(take(codes + from + k, n, mu), same(mu)));
            sum.add(size, same(int16_t(1)));
            peak = larger(peak, size);
        });
    });
    return {sum.all(), largest_of(peak)};
}

// y = d * inverse as codes part(d * 2^up, factor), each worth `unit`.
struct RowAffine {
    int16_t mu, up = 1, factor = 0;
    float unit = 1;

    RowAffine(int16_t mu, const Scale& s) : mu(mu) {
        if (!s.peak || s.inverse == 0) return;
        const double slope = s.inverse * two_to(-s.up);
        const int exponent = std::clamp(exponent_of(slope), -126, 126);
        up = int16_t(1 << s.up), factor = int16_t(std::clamp(nearest(slope * two_to(14 - exponent)), 0, 32767));
        unit = float(two_to(exponent + 1));
    }
};

struct RowLevels {
    int64_t negative, sizes;
};

// How many deviations are below 0, and the sum of their levels.
template <typename T>
RowLevels row_apply(size_t length, const int16_t* __restrict codes, RowAffine how, const float* __restrict gamma,
                    const float* __restrict beta, T* __restrict z, uint8_t* __restrict kept, size_t ahead) {
    LevelSums sums;
    along(length, [&](size_t from, size_t width) INLINED {
        Shorts d[2];
        both(width, [&](size_t v, size_t k, size_t n) INLINED {
            const size_t at = from + k;
            d[v] = less(take(codes + at, n, how.mu), same(how.mu)) * same(how.up);
            const Floats y = floats(part(d[v], same(how.factor))) * same(how.unit);
            put(y * take(gamma + at, n) + take(beta + at, n), z + at, n);
            fetch<true>(z + at + ahead);
        });
        const Levels levels(d[0], d[1]);
        sums.add(levels);
        put(levels, kept + from / 2, (width + 1) / 2);
        fetch_line<true>(kept + from / 2 + ahead / 2);
    });
    const size_t none = (kBlock - length % kBlock) % kBlock;  // places that are not there: their level is 1
    return {sums.minus, sums.sizes() - int64_t(none)};
}

template <typename T>
uint32_t row_range(size_t length, const T* __restrict x, const float* __restrict gamma) {
    uint32_t range = 0;
    for (size_t i = 0; i < length; ++i) {
        const float product = load(x + i) * gamma[i];
        range = std::max(range, size_bits(&product));
    }
    return range;
}

constexpr size_t kTogether = 2;
constexpr size_t kBlocks = 128;  // whose products fit 32 bits in each part of a sum

struct RowSums {
    int64_t sum, product;
};

// Of kCount rows, whose gradients of a place are added while they are in registers.
template <size_t kCount, typename T>
void gradient_sums_of_rows(size_t length, const T* __restrict dz, const float* __restrict gamma, const float* power,
                           const float* unit, const uint8_t* __restrict kept, int16_t* __restrict codes,
                           float* __restrict dgamma, float* __restrict dbeta, size_t ahead, RowSums* sums) {
    Floats zero[kCount], worth[kCount];
    Sum sum[kCount], products[kCount];
    for (size_t r = 0; r < kCount; ++r) zero[r] = same(zero_of(power[r])), worth[r] = same(unit[r]), sums[r] = {0, 0};
    along(length, [&](size_t from, size_t width) INLINED {
        Floats weight[2], of_weight[2], of_bias[2];
        both(width, [&](size_t v, size_t k, size_t n) INLINED {
            weight[v] = take(gamma + from + k, n);
            of_weight[v] = take(dgamma + from + k, n), of_bias[v] = take(dbeta + from + k, n);
        });
        for (size_t r = 0; r < kCount; ++r) {
            const Pair was = take(kept + r * kept_line(length) + from / 2, (width + 1) / 2);
            fetch_line(kept + r * kept_line(length) + from / 2 + ahead / 2);
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = r * length + from + k;
                const Shorts level = levels(v ? was.high : was.low);
                const Floats g = take(dz + at, n);
                const Shorts code = codes_of(g * weight[v], zero[r]);
                put(code, codes + at, n);
                fetch(dz + at + ahead);
                sum[r].add(code, same(int16_t(1))), products[r].add(code, level);
                of_weight[v] = of_weight[v] + g * (floats(level) * worth[r]), of_bias[v] = of_bias[v] + g;
            });
        }
        both(width, [&](size_t v, size_t k, size_t n)
                        INLINED { put(of_weight[v], dgamma + from + k, n), put(of_bias[v], dbeta + from + k, n); });
        if (from / kBlock % kBlocks == kBlocks - 1)
            for (size_t r = 0; r < kCount; ++r) sums[r].product += products[r].all(), products[r] = {};
    });
    for (size_t r = 0; r < kCount; ++r) sums[r].sum += sum[r].all(), sums[r].product += products[r].all();
}

template <typename T>
void row_gradient(size_t length, const int16_t* __restrict codes, int32_t below, int32_t above, float factor,
                  const uint8_t* __restrict kept, T* __restrict dx, size_t ahead) {
    along(length, [&](size_t from, size_t width) INLINED {
        const Pair was = take(kept + from / 2, (width + 1) / 2);
        both(width, [&](size_t v, size_t k, size_t n) INLINED {
            const size_t at = from + k;
            const Ints g = off(take(codes + at, n), v ? was.high : was.low, same(below), same(above));
            put(floats(g) * same(factor), dx + at, n);
            fetch<true>(dx + at + ahead);
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
    const size_t most = together(length), ahead = most * length;
    std::vector<int16_t> codes(ahead);
    for (; rows > 0; x += ahead, z += ahead, kept += most * kept_line(length), statistics += most) {
        const size_t count = std::min(most, rows);
        float power[kRows];
        int16_t mu[kRows];
        Scale scale[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, x + r * length);
            if (range >= kTooLarge) return false;
            power[r] = power_of(range, kCodeBits);
        }
        for (size_t r = 0; r < count; ++r)
            mu[r] = int16_t(mean_of(row_codes(length, x + r * length, power[r], codes.data() + r * length, ahead), m));
        for (size_t r = 0; r < count; ++r) {
            const RowSize size = row_size(length, codes.data() + r * length, mu[r]);
            scale[r] = scale_of(size.sum, m, size.largest, power[r], eps);
        }
        for (size_t r = 0; r < count; ++r) {
            const RowAffine how(mu[r], scale[r]);
            const RowLevels levels = row_apply(length, codes.data() + r * length, how, gamma, beta, z + r * length,
                                               kept + r * kept_line(length), ahead);
            statistics[r] = scale[r].statistics(levels.negative, levels.sizes, m, power[r]);
        }
        rows -= count;
    }
    return true;
}

template <typename T>
bool layer_gradient_of(size_t rows, size_t length, const T* dz, const float* gamma, const uint8_t* kept,
                       const ChannelStatistics* statistics, T* dx, float* dgamma, float* dbeta) {
    const size_t line = kept_line(length), most = together(length), ahead = most * length;
    std::vector<int16_t> codes(ahead);
    for (; rows > 0; dz += ahead, dx += ahead, kept += most * line, statistics += most) {
        const size_t count = std::min(most, rows);
        float power[kRows], factor[kRows];
        int32_t below[kRows], above[kRows];
        for (size_t r = 0; r < count; ++r) {
            const uint32_t range = row_range(length, dz + r * length, gamma);
            if (range >= kTooLarge) return false;
            power[r] = power_of(range, kGradientBits);
        }
        RowSums sums[kRows];
        float unit[kRows];
        for (size_t r = 0; r < count; ++r) unit[r] = float(statistics[r].lowest * statistics[r].inverse);
        for (size_t r = 0; r < count;) {
            const size_t some = count - r >= kTogether ? kTogether : 1;
            const auto work = some == 1 ? gradient_sums_of_rows<1, T> : gradient_sums_of_rows<kTogether, T>;
            work(length, dz + r * length, gamma, power + r, unit + r, kept + r * line, codes.data() + r * length,
                 dgamma, dbeta, ahead, sums + r);
            r += some;
        }
        for (size_t r = 0; r < count; ++r) {
            const ChannelStatistics s = statistics[r];
            const Tilt tilt(double(sums[r].sum), double(sums[r].product), double(length), s);
            below[r] = tilt.below(), above[r] = tilt.above();
            factor[r] = float(s.inverse_x / (256 * double(power[r])));
        }
        for (size_t r = 0; r < count; ++r)
            row_gradient(length, codes.data() + r * length, below[r], above[r], factor[r], kept + r * line,
                         dx + r * length, ahead);
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
