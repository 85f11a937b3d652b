// The passes of batch normalization: see norm.hpp.
#pragma once

#include "norm_vectors.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kLines = 256;  // whose sums of levels fit 16 bits, and of products 32

// work(first line, lines, first place, width): blocks of so many lines or fewer.
template <typename Work>
INLINED inline void blocks(size_t lines, size_t length, Work work) {
    for (size_t line = 0; line < lines; line += kLines)
        along(length,
              [&](size_t from, size_t width) INLINED { work(line, std::min(kLines, lines - line), from, width); });
}

// Parameters of a block of a line, near and not in the way of what is written.
template <typename P>
struct Near {
    P at[kBlock + kLanes] = {};
    Near(const P* from, size_t width) { std::copy_n(from, width, at); }
    auto operator[](size_t i) const { return whole(at + i); }
};

// Sums and levels of 16 bits of a block to those of its places.
INLINED inline void add(const Sums& sums, int64_t* to, size_t n) {
    int32_t some[kLanes];
    sums.to(some);
    for (size_t i = 0; i < n; ++i) to[i] += some[i];
}

INLINED inline void add(const Shorts& sums, int64_t* to, size_t n) {
    int16_t some[kLanes];
    put_whole(sums, some);
    for (size_t i = 0; i < n; ++i) to[i] += uint16_t(some[i]);
}

template <typename T>
void codes_of(size_t lines, size_t length, const T* __restrict x, const float* powers, int16_t* __restrict codes,
              int64_t* sums) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        Sums sum[2];
        for (size_t at = first * length + from; count--; at += length)
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const Shorts q = rounded(take(x + at + k, n) * power[k]);
                put(q, codes + at + k, n);
                sum[v].add(q, same(int16_t(1)));
            });
        both(width, [&](size_t v, size_t k, size_t n) INLINED { add(sum[v], sums + from + k, n); });
    });
}

void codes(Real type, size_t lines, size_t length, const void* x, const float* power, int16_t* to, int64_t* sums) {
    with_type(type, [&](auto t) { codes_of(lines, length, static_cast<const decltype(t)*>(x), power, to, sums); });
}

void deviations(size_t lines, size_t length, const int16_t* codes, const int16_t* mu, int64_t* sums, int32_t* largest) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<int16_t> middle(mu + from, width);
        Sums sum[2];
        Shorts peak[2];
        for (size_t at = first * length + from; count--; at += length)
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const Shorts size = size_of(less(take(codes + at + k, n), middle[k]));
                sum[v].add(size, same(int16_t(1)));
                peak[v] = larger(peak[v], size);
            });
        both(width, [&](size_t v, size_t k, size_t n) INLINED {
            int16_t most[kLanes];
            put_whole(peak[v], most);
            add(sum[v], sums + from + k, n);
            for (size_t i = 0; i < n; ++i) largest[from + k + i] = std::max<int32_t>(largest[from + k + i], most[i]);
        });
    });
}

template <typename T>
void apply_to(size_t lines, size_t length, const int16_t* codes, Norm::Affine how, T* z, uint8_t* __restrict kept,
              int64_t* negatives, int64_t* sizes) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<int16_t> middle(how.mu + from, width), up(how.up + from, width);
        const Near<int16_t> factor(how.factor + from, width), offset(how.offset + from, width);
        const Near<float> unit(how.unit + from, width);
        Shorts negative[2], size[2];
        for (size_t i = first; i < first + count; ++i) {
            Shorts keep[2];
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = i * length + from + k;
                const Shorts d = less(take(codes + at, n), middle[k]) * up[k], level = octave(d);
                put(floats(part(d, factor[k]) + offset[k]) * unit[k], z + at, n);
                negative[v] = negative[v] + one_below(d), size[v] = size[v] + level_sizes(level);
                keep[v] = nibbles(level, d);
            });
            put_pair(keep[0], keep[1], kept + i * kept_line(length) + from / 2, (width + 1) / 2);
        }
        both(width, [&](size_t v, size_t k, size_t n)
                        INLINED { add(negative[v], negatives + from + k, n), add(size[v], sizes + from + k, n); });
    });
}

void apply(Real type, size_t lines, size_t length, const int16_t* codes, Norm::Affine how, void* z, uint8_t* kept,
           int64_t* negatives, int64_t* sizes) {
    with_type(type, [&](auto t) {
        apply_to(lines, length, codes, how, static_cast<decltype(t)*>(z), kept, negatives, sizes);
    });
}

template <typename T>
void gradient_codes_of(size_t lines, size_t length, const T* __restrict dz, const float* powers,
                       const uint8_t* __restrict kept, int16_t* __restrict codes, int64_t* sums, int64_t* products) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<float> power(powers + from, width);
        Sums sum[2], product[2];
        for (size_t i = first; i < first + count; ++i) {
            const Pair was = take(kept + i * kept_line(length) + from / 2, (width + 1) / 2);
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = i * length + from + k;
                const Shorts g = rounded(take(dz + at, n) * power[k]);
                put(g, codes + at, n);
                sum[v].add(g, same(int16_t(1))), product[v].add(g, levels(v ? was.high : was.low));
            });
        }
        both(width, [&](size_t v, size_t k, size_t n)
                        INLINED { add(sum[v], sums + from + k, n), add(product[v], products + from + k, n); });
    });
}

void gradient_codes(Real type, size_t lines, size_t length, const void* dz, const float* power, const uint8_t* kept,
                    int16_t* to, int64_t* sums, int64_t* products) {
    with_type(type, [&](auto t) {
        gradient_codes_of(lines, length, static_cast<const decltype(t)*>(dz), power, kept, to, sums, products);
    });
}

template <typename T>
void gradient_of(size_t lines, size_t length, const int16_t* codes, Norm::Slope how, const uint8_t* __restrict kept,
                 T* dx) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<int32_t> minus(how.below + from, width), plus(how.above + from, width);
        const Near<float> factor(how.factor + from, width);
        for (size_t i = first; i < first + count; ++i) {
            const Pair was = take(kept + i * kept_line(length) + from / 2, (width + 1) / 2);
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = i * length + from + k;
                const Ints g = off(take(codes + at, n), v ? was.high : was.low, minus[k], plus[k]);
                put(floats(g) * factor[k], dx + at, n);
            });
        }
    });
}

void gradient(Real type, size_t lines, size_t length, const int16_t* codes, Norm::Slope how, const uint8_t* kept,
              void* dx) {
    with_type(type, [&](auto t) { gradient_of(lines, length, codes, how, kept, static_cast<decltype(t)*>(dx)); });
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
