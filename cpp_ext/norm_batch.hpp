// The passes of batch normalization: see norm.hpp.
#pragma once

#include "norm_vectors.hpp"

namespace narrowbit {
namespace ISA {
namespace {

// How many lines ahead a pass asks for what it will read and write: 128x32x32x16 and 32x28x28x128 numbers take 15 %
// less.
constexpr size_t kAhead = 16;

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

INLINED inline void put(const Sums& sums, int32_t* to, size_t n) {
    int32_t some[kLanes];
    sums.to(some);
    std::copy_n(some, n, to);
}

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

// The largest sizes of a block's places, as bits of floats.
template <typename T>
INLINED inline void peaks(size_t lines, size_t length, size_t width, const T* __restrict x,
                          uint32_t* __restrict range) {
    Bits<T> peak[kBlock] = {};
    if (width == kBlock)
        for (size_t line = 0; line < lines; ++line)
            for (size_t i = 0; i < kBlock; ++i) peak[i] = std::max(peak[i], size_bits(x + line * length + i));
    else
        for (size_t line = 0; line < lines; ++line)
            for (size_t i = 0; i < width; ++i) peak[i] = std::max(peak[i], size_bits(x + line * length + i));
    for (size_t i = 0; i < width; ++i) range[i] = uint32_t(peak[i]) << 8 * (sizeof(float) - sizeof(T));
}

// Of the two vectors of a block.
template <typename T>
struct BlockZeros {
    Zeros<T> at[2];
    BlockZeros(const float* power, size_t width) : at{{power, 0}, {power, 0}} {
        both(width, [&](size_t v, size_t k, size_t n) { at[v] = {power + k, n}; });
    }
    const Floats& operator[](size_t v) const { return at[v].all; }
};

// By the largest sizes of the block itself, for codes of so many bits.
template <typename T>
INLINED inline BlockZeros<T> own_zeros(size_t lines, size_t length, size_t width, const T* x, int bits,
                                       uint32_t* range) {
    peaks(lines, length, width, x, range);
    float power[kBlock];
    for (size_t i = 0; i < width; ++i) power[i] = power_of(range[i], bits);
    return {power, width};
}

template <typename T>
void sums_of(size_t lines, size_t length, const T* __restrict x, uint32_t* ranges, int32_t* sums) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const size_t to = first / kLines * length + from;
        size_t at = first * length + from;
        const BlockZeros<T> zero = own_zeros(count, length, width, x + at, kCodeBits, ranges + to);
        Sums sum[2];
        for (; count--; at += length)
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                sum[v].add(take_codes(x + at + k, n, zero[v]), same(int16_t(1)));
                fetch(x + at + k + kLines * length);
            });
        both(width, [&](size_t v, size_t k, size_t n) INLINED { put(sum[v], sums + to + k, n); });
    });
}

void sums(Real type, size_t lines, size_t length, const void* x, uint32_t* ranges, int32_t* sums) {
    with_type(type, [&](auto t) { sums_of(lines, length, static_cast<const decltype(t)*>(x), ranges, sums); });
}

template <typename T>
void deviations_of(size_t lines, size_t length, const T* __restrict x, const float* powers, const int16_t* mu,
                   int64_t* sums, int32_t* largest) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const BlockZeros<T> zero(powers + from, width);
        const Near<int16_t> middle(mu + from, width);
        Sums sum[2];
        Shorts peak[2];
        for (size_t at = first * length + from; count--; at += length)
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const Shorts size = size_of(less(take_codes(x + at + k, n, zero[v]), middle[k]));
                fetch(x + at + k + kAhead * length);
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

void deviations(Real type, size_t lines, size_t length, const void* x, const float* power, const int16_t* mu,
                int64_t* sums, int32_t* largest) {
    with_type(type, [&](auto t) {
        deviations_of(lines, length, static_cast<const decltype(t)*>(x), power, mu, sums, largest);
    });
}

template <typename T>
void apply_to(size_t lines, size_t length, const T* __restrict x, Norm::Affine how, T* __restrict z,
              uint8_t* __restrict kept, int64_t* negatives, int64_t* sizes) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<int16_t> middle(how.mu + from, width), up(how.up + from, width);
        const Near<int16_t> factor(how.factor + from, width), offset(how.offset + from, width);
        const Near<float> unit(how.unit + from, width);
        const BlockZeros<T> zero(how.power + from, width);
        Shorts negative[2], size[2];
        for (size_t i = first; i < first + count; ++i) {
            Shorts d[2];
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = i * length + from + k;
                d[v] = less(take_codes(x + at, n, zero[v]), middle[k]) * up[k];
                put(floats(part(d[v], factor[k]) + offset[k]) * unit[k], z + at, n);
                fetch(x + at + kAhead * length), fetch<true>(z + at + kAhead * length);
                negative[v] = negative[v] + one_below(d[v]);
            });
            const Levels levels(d[0], d[1]);
            size[0] = size[0] + levels.sizes<0>(), size[1] = size[1] + levels.sizes<1>();
            put(levels, kept + i * kept_line(length) + from / 2, (width + 1) / 2);
            fetch_line<true>(kept + (i + kAhead) * kept_line(length) + from / 2);
        }
        both(width, [&](size_t v, size_t k, size_t n)
                        INLINED { add(negative[v], negatives + from + k, n), add(size[v], sizes + from + k, n); });
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
void gradient_sums_of(size_t lines, size_t length, const T* __restrict dz, const uint8_t* __restrict kept,
                      uint32_t* ranges, int32_t* sums, int32_t* products) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const size_t to = first / kLines * length + from;
        const T* block = dz + first * length + from;
        const BlockZeros<T> zero = own_zeros(count, length, width, block, kGradientBits, ranges + to);
        Sums sum[2], product[2];
        for (size_t i = first; i < first + count; ++i, block += length) {
            const Pair was = take(kept + i * kept_line(length) + from / 2, (width + 1) / 2);
            fetch_line(kept + (i + kAhead) * kept_line(length) + from / 2);
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const Shorts g = take_codes(block + k, n, zero[v]);
                sum[v].add(g, same(int16_t(1))), product[v].add(g, levels(v ? was.high : was.low));
                fetch(block + k + kLines * length);
            });
        }
        both(width, [&](size_t v, size_t k, size_t n)
                        INLINED { put(sum[v], sums + to + k, n), put(product[v], products + to + k, n); });
    });
}

void gradient_sums(Real type, size_t lines, size_t length, const void* dz, const uint8_t* kept, uint32_t* ranges,
                   int32_t* sums, int32_t* products) {
    with_type(type, [&](auto t) {
        gradient_sums_of(lines, length, static_cast<const decltype(t)*>(dz), kept, ranges, sums, products);
    });
}

template <typename T>
void gradient_of(size_t lines, size_t length, const T* __restrict dz, Norm::Slope how, const uint8_t* __restrict kept,
                 T* __restrict dx) {
    blocks(lines, length, [=](size_t first, size_t count, size_t from, size_t width) INLINED {
        const Near<int32_t> minus(how.below + from, width), plus(how.above + from, width);
        const Near<float> factor(how.factor + from, width);
        const BlockZeros<T> zero(how.power + from, width);
        for (size_t i = first; i < first + count; ++i) {
            const Pair was = take(kept + i * kept_line(length) + from / 2, (width + 1) / 2);
            fetch_line(kept + (i + kAhead) * kept_line(length) + from / 2);
            both(width, [&](size_t v, size_t k, size_t n) INLINED {
                const size_t at = i * length + from + k;
                const Shorts g = take_codes(dz + at, n, zero[v]);
                put(floats(off(g, v ? was.high : was.low, minus[k], plus[k])) * factor[k], dx + at, n);
                fetch(dz + at + kAhead * length), fetch<true>(dx + at + kAhead * length);
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
