// The passes of batch normalization: see norm.hpp.
#pragma once

#include "norm_vectors.hpp"

namespace narrowbit {
namespace ISA {
namespace {

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

template <typename T>
void apply_to(size_t lines, size_t length, const T* __restrict x, Norm::Affine how, T* __restrict z,
              uint8_t* __restrict kept, int64_t* negatives, int64_t* sizes) {
    const size_t line = kept_line(length);
    blocks(lines, kLines, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(how.power + from, width);
        const Near<int32_t> bottom(how.bottom + from, width);
        Near<int32_t> middle(how.mu + from, width);
        middles(middle);
        const Near<int32_t> factor(how.factor + from, width), half(how.half + from, width);
        const Near<int32_t> shift(how.shift + from, width), offset(how.offset + from, width);
        int32_t negative[kBlock] = {}, size[kBlock] = {};
        for (size_t i = first; i < first + count; ++i) {
            const T* in = x + i * length + from;
            T* out = z + i * length + from;
            pairs(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
                const auto side = [&](size_t at, size_t places) INLINED {
                    const I32 d = raw(reals(in + at, places) * power.vector(at)) - middle.vector(at);
                    const I32 code =
                        ((d * factor.vector(at) + half.vector(at)) >> shift.vector(at)) + offset.vector(at);
                    put_reals(floats(code) * how.unit, out + at, places);
                    const Levels levels(floats(d), bottom.vector(at));
                    put(take<I32>(negative + at, places) - (d >> 31), negative + at, places);
                    put(take<I32>(size + at, places) + levels.size(), size + at, places);
                    return levels.kept;
                };
                const I32 kept_low = side(low, n);
                put_pair(kept_low, side(high, m), kept + i * line + from / 2 + byte, n);
            });
        }
        for (size_t k = 0; k < width; ++k) negatives[from + k] += negative[k], sizes[from + k] += size[k];
    });
}

void apply(Real type, size_t lines, size_t length, const void* x, Norm::Affine how, void* z, uint8_t* kept,
           int64_t* negatives, int64_t* sizes) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        apply_to(lines, length, static_cast<const T*>(x), how, static_cast<T*>(z), kept, negatives, sizes);
    });
}

template <typename T>
void gradient_sums_of(size_t lines, size_t length, const T* __restrict dz, const float* powers,
                      const uint8_t* __restrict kept, int64_t* sums, int64_t* products) {
    blocks(lines, kGradientLines, length, [&](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        int32_t sum[kBlock] = {}, product[kBlock] = {};
        for (size_t i = first; i < first + count; ++i) {
            const T* in = dz + i * length + from;
            pairs(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
                const auto side = [&](size_t at, size_t places, I32 nibbles) INLINED {
                    const I32 g = rounded(reals(in + at, places) * power.vector(at));
                    put(take<I32>(sum + at, places) + g, sum + at, places);
                    put(take<I32>(product + at, places) + g * level_of(nibbles), product + at, places);
                };
                const I32 bytes = bytes_at(kept + i * kept_line(length) + from / 2 + byte, n);
                side(low, n, bytes & 15), side(high, m, bytes >> 4);
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
void gradient_of(size_t lines, size_t length, const T* __restrict dz, Norm::Slope how, const uint8_t* __restrict kept,
                 T* __restrict dx) {
    along(length, [&](size_t from, size_t width) INLINED {
        const Near<float> power(how.power + from, width), factor(how.factor + from, width);
        const Near<int32_t> below(how.below + from, width), above(how.above + from, width);
        for (size_t i = 0; i < lines; ++i) {
            const T* in = dz + i * length + from;
            T* out = dx + i * length + from;
            pairs(width, [&](size_t byte, size_t low, size_t n, size_t high, size_t m) INLINED {
                const auto side = [&](size_t at, size_t places, I32 nibbles) INLINED {
                    const I32 g = raw(reals(in + at, places) * power.vector(at)) << 8;
                    const I32 off = g - choose(nibbles < 8, below.vector(at), above.vector(at));
                    put_reals(floats(off) * factor.vector(at), out + at, places);
                };
                const I32 bytes = bytes_at(kept + i * kept_line(length) + from / 2 + byte, n);
                side(low, n, bytes & 15), side(high, m, bytes >> 4);
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

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
