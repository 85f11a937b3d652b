// The loops of quantize.hpp, compiled once for each instruction set: plain C++ that the compiler turns into vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantize.hpp"
#include "reals.hpp"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kBlock = 64;  // channels at a time

// quant.random_bits: 16 bits of a hash that two numbers share, 16 places from each other in a stretch of 32.
inline uint32_t hash(uint32_t i, uint32_t seed) {
    uint32_t x = i * 0x9E3779B1u + seed;
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

inline uint32_t random_bits(uint32_t place, uint32_t seed) {
    const uint32_t both = hash(place / 32 * 16 + place % 16, seed);
    return place & 16 ? both >> 16 : both & 0xFFFF;
}

// Of kBlock places, the first a multiple of 32.
inline void random_block(uint32_t place, uint32_t seed, uint32_t* __restrict bits) {
    for (uint32_t part = 0; part < kBlock; part += 32)
        for (uint32_t i = 0; i < 16; ++i) {
            const uint32_t both = hash((place + part) / 2 + i, seed);
            bits[part + i] = both & 0xFFFF, bits[part + 16 + i] = both >> 16;
        }
}

// As unsigned numbers: of sizes in order, but for the sign.
inline uint32_t bits_of(const float* x) {
    uint32_t bits;
    std::memcpy(&bits, x, 4);
    return bits;
}
inline uint16_t bits_of(const bf16* x) { return *x; }

// kBlock channels or fewer of some rows: to the largest size, and that of the most negative number.
template <typename T>
void ranges_of(size_t count, size_t c, size_t width, const T* __restrict x, uint32_t* __restrict sizes,
               uint32_t* __restrict negative) {
    using Bits = decltype(bits_of(x));
    constexpr unsigned kUp = 32 - 8 * sizeof(Bits);
    constexpr auto kSize = Bits(~Bits(0)) >> 1;
    Bits peak[kBlock] = {}, signs[kBlock] = {};
    const auto see = [&](const T* at, size_t i) {
        const Bits u = bits_of(at + i);
        peak[i] = std::max(peak[i], Bits(u & kSize));
        signs[i] = std::max(signs[i], u);
    };
    if (width == kBlock)
        for (size_t row = 0; row < count; ++row)
            for (size_t i = 0; i < kBlock; ++i) see(x + row * c, i);
    else
        for (size_t row = 0; row < count; ++row)
            for (size_t i = 0; i < width; ++i) see(x + row * c, i);
    for (size_t i = 0; i < width; ++i) {
        // The largest of all bits has the sign of any, and then is the most negative number's: -0 is size 0.
        const uint32_t largest = uint32_t(signs[i]) << kUp;
        sizes[i] = std::max(sizes[i], uint32_t(peak[i]) << kUp);
        negative[i] = std::max(negative[i], largest >> 31 ? largest & 0x7FFFFFFFu : 0);
    }
}

template <typename T>
void ranges_as(size_t first, size_t last, size_t c, const T* x, uint32_t* bits) {
    x += first * c;
    size_t count = last - first;
    if (c && c < kBlock && kBlock % c == 0) {  // several rows side by side are as one of kBlock channels
        const size_t rows = kBlock / c;
        uint32_t sizes[kBlock] = {}, negative[kBlock] = {};
        ranges_of(count / rows, kBlock, kBlock, x, sizes, negative);
        for (size_t i = 0; i < kBlock; ++i) {
            bits[i % c] = std::max(bits[i % c], sizes[i]);
            bits[c + i % c] = std::max(bits[c + i % c], negative[i]);
        }
        x += count / rows * kBlock, count %= rows;
    }
    for (size_t from = 0; from < c; from += kBlock)
        ranges_of(count, c, std::min(kBlock, c - from), x + from, bits + from, bits + c + from);
}

void ranges(Real type, size_t first, size_t last, size_t c, const void* x, uint32_t* bits) {
    with_type(type, [&](auto t) { ranges_as(first, last, c, static_cast<const decltype(t)*>(x), bits); });
}

template <typename T>
void row_ranges_as(size_t first, size_t last, size_t c, const T* __restrict x, const float* __restrict factors,
                   uint32_t* __restrict sizes, uint32_t* __restrict negative) {
    for (size_t row = first; row < last; ++row) {
        uint32_t peak = 0, signs = 0;
        for (size_t i = 0; i < c; ++i) {
            const float v = load(x + row * c + i) * factors[i];
            const uint32_t u = bits_of(&v);
            peak = std::max(peak, u & 0x7FFFFFFFu), signs = std::max(signs, u);
        }
        sizes[row] = peak, negative[row] = signs >> 31 ? signs & 0x7FFFFFFFu : 0;
    }
}

void row_ranges(Real type, size_t first, size_t last, size_t c, const void* x, const float* factors, uint32_t* sizes,
                uint32_t* negative) {
    with_type(type, [&](auto t) {
        row_ranges_as(first, last, c, static_cast<const decltype(t)*>(x), factors, sizes, negative);
    });
}

template <typename T>
void scaled_ranges_as(size_t first, size_t last, size_t c, const T* __restrict x, const float* __restrict factors,
                      uint32_t* __restrict sizes) {
    for (size_t row = first; row < last; ++row)
        for (size_t i = 0; i < c; ++i) {
            const float v = load(x + row * c + i) * factors[row];
            sizes[i] = std::max(sizes[i], bits_of(&v) & 0x7FFFFFFFu);
        }
}

void scaled_ranges(Real type, size_t first, size_t last, size_t c, const void* x, const float* factors,
                   uint32_t* sizes) {
    with_type(type,
              [&](auto t) { scaled_ranges_as(first, last, c, static_cast<const decltype(t)*>(x), factors, sizes); });
}

template <bool kChance, typename T>
inline void code(const T* from, const float* inverse, const uint8_t* shifts, const Rounding& how, uint32_t bits,
                 uint8_t* to) {
    float v = load(from) * *inverse;
    if constexpr (kChance) v = std::floor(v + (float(bits) + 0.5f) * 0x1p-16f);
    v = std::min(std::max(v, how.lowest), how.largest);
    const int32_t found = kChance ? int32_t(v) : rounded(v);
    *to = uint8_t((uint32_t(found) << *shifts) + 128);
}

// kStep: 1, or 0 where all share the first inverse and shift.
template <bool kChance, size_t kStep = 1, typename T>
void codes(size_t count, const T* __restrict x, const float* inverse, const uint8_t* shifts, const Rounding& how,
           uint32_t place, uint32_t seed, uint8_t* __restrict bytes) {
    size_t i = 0;
    uint32_t bits[kBlock] = {};
    if (!kChance || place % 32 == 0)
        for (; i + kBlock <= count; i += kBlock) {
            if constexpr (kChance) random_block(place + uint32_t(i), seed, bits);
            for (size_t k = 0; k < kBlock; ++k)
                code<kChance>(x + i + k, inverse + kStep * (i + k), shifts + kStep * (i + k), how, bits[k],
                              bytes + i + k);
        }
    for (; i < count; ++i)
        code<kChance>(x + i, inverse + kStep * i, shifts + kStep * i, how,
                      kChance ? random_bits(place + uint32_t(i), seed) : 0, bytes + i);
}

// Inverse and shift of a row by its largest number.
struct OfRow {
    float inverse;
    uint8_t shift;
};

template <typename T>
inline OfRow of_row(size_t c, const T* __restrict x, const Rounding& how) {
    using Bits = decltype(bits_of(x));
    Bits peak = 0;
    for (size_t i = 0; i < c; ++i) peak = std::max(peak, Bits(bits_of(x + i) & (Bits(~Bits(0)) >> 1)));
    const uint32_t bits = uint32_t(peak) << (32 - 8 * sizeof(Bits));
    float largest, inverse = *how.inverse;
    std::memcpy(&largest, &bits, 4);
    int shift = how.groups - 1;
    for (; shift > 0 && largest * 2 <= how.range; --shift) largest *= 2, inverse *= 2;
    return {inverse, uint8_t(shift)};
}

template <bool kChance, typename T>
void rows_as(size_t first, size_t last, size_t c, const T* __restrict x, Rounding how, Bytes to) {
    const uint32_t seed = kChance ? *how.seed : 0;
    const size_t together = c && c < kBlock && kBlock % c == 0 && to.stride == c ? kBlock / c : 0;
    float inverse[kBlock];
    uint8_t shifts[kBlock];
    std::vector<float> scaled(how.rows ? c : 0);
    for (size_t row = 0; !how.groups && row < together; ++row)
        std::copy_n(how.inverse, c, inverse + row * c), std::copy_n(how.shifts, c, shifts + row * c);
    for (; first < last; first += to.width, to.data += to.line) {
        uint8_t* bytes = to.data;
        const size_t end = std::min(last, first + to.width);
        size_t row = first;
        if (together)
            for (; row + together <= end; row += together, bytes += kBlock) {
                for (size_t r = 0; how.groups && r < together; ++r) {
                    const OfRow own = of_row(c, x + (row + r) * c, how);
                    std::fill_n(inverse + r * c, c, own.inverse), std::fill_n(shifts + r * c, c, own.shift);
                }
                for (size_t r = 0; how.rows && r < together; ++r)
                    for (size_t i = 0; i < c; ++i) inverse[r * c + i] = how.inverse[i] * how.rows[row + r];
                codes<kChance>(kBlock, x + row * c, inverse, shifts, how, uint32_t(row * c), seed, bytes);
            }
        for (; row < end; ++row, bytes += to.stride) {
            if (how.groups) {
                const OfRow own = of_row(c, x + row * c, how);
                codes<kChance, 0>(c, x + row * c, &own.inverse, &own.shift, how, uint32_t(row * c), seed, bytes);
            } else {
                for (size_t i = 0; i < scaled.size(); ++i) scaled[i] = how.inverse[i] * how.rows[row];
                codes<kChance>(c, x + row * c, how.rows ? scaled.data() : how.inverse, how.shifts, how,
                               uint32_t(row * c), seed, bytes);
            }
            std::fill(bytes + c, bytes + to.stride, uint8_t(128));
        }
    }
}

void rows(Real type, size_t first, size_t last, size_t c, const void* x, Rounding how, Bytes to) {
    with_type(type, [&](auto t) {
        const auto* from = static_cast<const decltype(t)*>(x);
        if (how.seed)
            rows_as<true>(first, last, c, from, how, to);
        else
            rows_as<false>(first, last, c, from, how, to);
    });
}

template <typename T>
void scaled_as(size_t n, const int32_t* __restrict sums, float scale, T* __restrict x) {
    for (size_t i = 0; i < n; ++i) store(float(sums[i]) * scale, x + i);
}

void scaled(Real type, size_t n, const int32_t* sums, float scale, void* x) {
    with_type(type, [&](auto t) { scaled_as(n, sums, scale, static_cast<decltype(t)*>(x)); });
}

template <typename T>
void scaled_by_as(size_t n, const int32_t* __restrict sums, float scale, const float* __restrict factors,
                  T* __restrict x) {
    for (size_t i = 0; i < n; ++i) store(float(sums[i]) * scale * factors[i], x + i);
}

void scaled_by(Real type, size_t n, const int32_t* sums, float scale, const float* factors, void* x) {
    with_type(type, [&](auto t) { scaled_by_as(n, sums, scale, factors, static_cast<decltype(t)*>(x)); });
}

// Halves, quarters lie side by side, so that loops are vectors: the first n / 2 codes are in the low nibbles. Of six
// bits the upper two follow the nibbles, four codes to a byte.
void pack(size_t n, unsigned bits, int lowest, const uint8_t* __restrict bytes, uint8_t* __restrict packed) {
    const auto base = uint8_t(128 + lowest);
    if (bits == 8) {
        std::memcpy(packed, bytes, n);
        return;
    }
    for (size_t i = 0; i < n / 2; ++i)
        packed[i] = uint8_t((uint8_t(bytes[i] - base) & 15) | uint8_t(bytes[i + n / 2] - base) << 4);
    if (bits == 6)
        for (size_t i = 0; i < n / 4; ++i) {
            const auto upper = [&](size_t k) { return uint8_t(bytes[i + k * (n / 4)] - base) >> 4; };
            packed[n / 2 + i] = uint8_t(upper(0) | upper(1) << 2 | upper(2) << 4 | upper(3) << 6);
        }
}

void unpack(size_t n, unsigned bits, int lowest, const uint8_t* __restrict packed, uint8_t* __restrict bytes) {
    const auto base = uint8_t(128 + lowest);
    if (bits == 8) {
        std::memcpy(bytes, packed, n);
        return;
    }
    for (size_t i = 0; i < n / 2; ++i) bytes[i] = uint8_t((packed[i] & 15) + base);
    for (size_t i = 0; i < n / 2; ++i) bytes[i + n / 2] = uint8_t((packed[i] >> 4) + base);
    if (bits == 6)
        for (size_t k = 0; k < 4; ++k)
            for (size_t i = 0; i < n / 4; ++i)
                bytes[i + k * (n / 4)] = uint8_t(bytes[i + k * (n / 4)] + ((packed[n / 2 + i] >> 2 * k & 3) << 4));
}

void interleave(size_t fours, size_t c, const uint8_t* bytes, size_t step, uint8_t flip, uint8_t* made,
                size_t made_step) {
    for (; fours-- > 0; bytes += 4 * step, made += made_step) {
        size_t i = 0;
#ifdef __SSE2__
        const __m128i flips = _mm_set1_epi8(char(flip));
        const auto load = [&](size_t row) {
            return _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + row * step + i)), flips);
        };
        for (; i + 16 <= c; i += 16) {
            const __m128i a = load(0), b = load(1), d = load(2), e = load(3);
            const __m128i ab[2] = {_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)};
            const __m128i de[2] = {_mm_unpacklo_epi8(d, e), _mm_unpackhi_epi8(d, e)};
            auto* to = reinterpret_cast<__m128i*>(made + 4 * i);
            for (size_t half = 0; half < 2; ++half) {
                _mm_storeu_si128(to + 2 * half, _mm_unpacklo_epi16(ab[half], de[half]));
                _mm_storeu_si128(to + 2 * half + 1, _mm_unpackhi_epi16(ab[half], de[half]));
            }
        }
#endif
        for (; i < c; ++i)
            for (size_t r = 0; r < 4; ++r) made[4 * i + r] = uint8_t(bytes[r * step + i] ^ flip);
    }
}

void totals(size_t rows, size_t c, const uint8_t* bytes, size_t step, int32_t* sums) {
    if (c && c < kBlock && kBlock % c == 0 && step == c) {
        int32_t many[kBlock] = {};
        const size_t together = kBlock / c;
        for (; rows >= together; rows -= together, bytes += kBlock)
            for (size_t i = 0; i < kBlock; ++i) many[i] += int32_t(bytes[i]) - 128;
        for (size_t row = 0; row < together; ++row)
            for (size_t i = 0; i < c; ++i) sums[i] += many[row * c + i];
    }
    for (; rows-- > 0; bytes += step)
        for (size_t i = 0; i < c; ++i) sums[i] += int32_t(bytes[i]) - 128;
}

// see(place, byte, bit) for numbers first..last, whole pieces by loops of known length.
template <typename See>
void signs(size_t first, size_t last, See see) {
    for (; first < last; first += kSigns)
        for (size_t k = 0; k < 8; ++k) {
            const size_t from = first + 64 * k, byte = first / 8;
            if (from + 64 <= last)
                for (size_t j = 0; j < 64; ++j) see(from + j, byte + j, k);
            else
                for (size_t j = 0; from + j < last; ++j) see(from + j, byte + j, k);
        }
}

template <typename T>
void relu_as(size_t first, size_t last, const T* __restrict x, T* __restrict y, uint8_t* __restrict bits) {
    std::memset(bits + first / 8, 0, (last - first + kSigns - 1) / kSigns * (kSigns / 8));
    signs(first, last, [&](size_t at, size_t byte, size_t bit) {
        const float v = load(x + at);
        y[at] = v <= 0 ? T(0) : x[at];  // NaN stays
        bits[byte] = uint8_t(bits[byte] | uint8_t(v > 0) << bit);
    });
}

void relu(Real type, size_t first, size_t last, const void* x, void* y, uint8_t* bits) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        relu_as(first, last, static_cast<const T*>(x), static_cast<T*>(y), bits);
    });
}

template <typename T>
void relu_backward_as(size_t first, size_t last, const T* __restrict dy, const uint8_t* __restrict bits,
                      T* __restrict dx) {
    signs(first, last, [&](size_t at, size_t byte, size_t bit) { dx[at] = bits[byte] >> bit & 1 ? dy[at] : T(0); });
}

void relu_backward(Real type, size_t first, size_t last, const void* dy, const uint8_t* bits, void* dx) {
    with_type(type, [&](auto t) {
        using T = decltype(t);
        relu_backward_as(first, last, static_cast<const T*>(dy), bits, static_cast<T*>(dx));
    });
}

}  // namespace

extern const Quantize kQuantize;
const Quantize kQuantize = {ISA_NAME, ranges, row_ranges, scaled_ranges, rows, scaled,       scaled_by,
                            pack,     unpack, interleave, totals,        relu, relu_backward};

}  // namespace ISA
}  // namespace narrowbit
