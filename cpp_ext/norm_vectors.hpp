// Vectors of sixteen numbers, for loops that compilers turn into poor ones: GCC's and Clang's extension, which they
// lower to what an instruction set has; elsewhere, and with NARROWBIT_PLAIN_VECTORS, arrays.
#pragma once

#include <cstring>
#include <type_traits>

#include "norm_blocks.hpp"
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kLanes = 16;

#if defined(__GNUC__) && !defined(NARROWBIT_PLAIN_VECTORS)
using I32 = int32_t __attribute__((vector_size(64)));
using U32 = uint32_t __attribute__((vector_size(64)));
using F32 = float __attribute__((vector_size(64)));
using I16 = int16_t __attribute__((vector_size(32)));
using U16 = uint16_t __attribute__((vector_size(32)));
using U8 = uint8_t __attribute__((vector_size(16)));

template <typename To, typename From>
inline To converted(From v) {
    return __builtin_convertvector(v, To);
}

inline I32 choose(I32 mask, I32 a, I32 b) { return mask ? a : b; }
inline I32 larger(I32 a, I32 b) { return a > b ? a : b; }  // which `choose` would take for two operations
#else
template <typename T>
struct Vector {
    T at[kLanes];
    T operator[](size_t k) const { return at[k]; }
};
using I32 = Vector<int32_t>;
using U32 = Vector<uint32_t>;
using F32 = Vector<float>;
using I16 = Vector<int16_t>;
using U16 = Vector<uint16_t>;
using U8 = Vector<uint8_t>;

template <typename To, typename From>
inline To converted(const From& v) {
    To made;
    for (size_t k = 0; k < kLanes; ++k) made.at[k] = decltype(made[0])(v[k]);
    return made;
}

inline I32 choose(const I32& mask, const I32& a, const I32& b) {
    I32 made;
    for (size_t k = 0; k < kLanes; ++k) made.at[k] = mask[k] ? a[k] : b[k];
    return made;
}

#define NARROWBIT_OPERATOR(made_of, op, sign)                                         \
    template <typename T>                                                             \
    inline Vector<made_of> operator op(const Vector<T>& a, const Vector<T>& b) {      \
        Vector<made_of> made;                                                         \
        for (size_t k = 0; k < kLanes; ++k) made.at[k] = made_of(sign(a[k] op b[k])); \
        return made;                                                                  \
    }                                                                                 \
    template <typename T, typename S>                                                 \
    inline Vector<made_of> operator op(const Vector<T>& a, S b) {                     \
        Vector<T> all;                                                                \
        for (T& v : all.at) v = T(b);                                                 \
        return a op all;                                                              \
    }
NARROWBIT_OPERATOR(T, +, )
NARROWBIT_OPERATOR(T, -, )
NARROWBIT_OPERATOR(T, *, )
NARROWBIT_OPERATOR(T, &, )
NARROWBIT_OPERATOR(T, |, )
NARROWBIT_OPERATOR(T, <<, )
NARROWBIT_OPERATOR(T, >>, )
NARROWBIT_OPERATOR(int32_t, <, -int32_t)
NARROWBIT_OPERATOR(int32_t, >, -int32_t)
#undef NARROWBIT_OPERATOR

template <typename T>
inline Vector<T>& operator+=(Vector<T>& a, const Vector<T>& b) {
    return a = a + b;
}
template <typename T>
inline Vector<T>& operator-=(Vector<T>& a, const Vector<T>& b) {
    return a = a - b;
}
inline I32 larger(const I32& a, const I32& b) { return choose(a > b, a, b); }
inline I32 operator-(const I32& a) { return I32{} - a; }
inline U32 operator~(const U32& a) { return U32{} - a - 1u; }
#endif

template <typename To, typename From>
inline To as(From v) {
    To made;
    static_assert(sizeof made == sizeof v);
    std::memcpy(&made, &v, sizeof v);
    return made;
}

// Wider and narrower integers. GCC 12 makes two or more steps of what is one of AVX-512's.
#if defined(__AVX512BW__) && !defined(NARROWBIT_PLAIN_VECTORS)
inline I32 wider(I16 v) { return (I32)_mm512_cvtepi16_epi32((__m256i)v); }
inline U32 wider(U16 v) { return (U32)_mm512_cvtepu16_epi32((__m256i)v); }
inline I32 wider(U8 v) { return (I32)_mm512_cvtepu8_epi32((__m128i)v); }
inline U16 narrower(U32 v) { return (U16)_mm512_cvtepi32_epi16((__m512i)v); }
inline U8 narrowest(I32 v) { return (U8)_mm512_cvtepi32_epi8((__m512i)v); }
#else
inline I32 wider(I16 v) { return converted<I32>(v); }
inline U32 wider(U16 v) { return converted<U32>(v); }
inline I32 wider(U8 v) { return converted<I32>(converted<U16>(v)); }
inline U16 narrower(U32 v) { return converted<U16>(v); }
inline U8 narrowest(I32 v) { return converted<U8>(converted<U16>(v)); }
#endif

// n of the numbers at p, or all that a vector holds; zeros after them.
template <typename V, typename T>
inline V take(const T* p, size_t n) {
    V v{};
    std::memcpy(&v, p, n == kLanes ? sizeof v : n * sizeof(T));
    return v;
}

template <typename V, typename T>
inline void put(V v, T* p, size_t n) {
    std::memcpy(p, &v, n == kLanes ? sizeof v : n * sizeof(T));
}

inline F32 reals(const float* p, size_t n) { return take<F32>(p, n); }
inline F32 reals(const bf16* p, size_t n) { return as<F32>(wider(take<U16>(p, n)) << 16); }
inline void put_reals(F32 v, float* p, size_t n) { put(v, p, n); }
inline void put_reals(F32 v, bf16* p, size_t n) { put(narrower((as<U32>(v) + 0x8000) >> 16), p, n); }
inline I32 codes_at(const int16_t* p, size_t n) { return wider(take<I16>(p, n)); }

// As of numbers.
inline I32 raw(F32 v) { return as<I32>(v + kRawZero); }
inline I32 rounded(F32 v) { return raw(v) - int32_t(kRaw); }
inline F32 floats(I32 v) { return converted<F32>(v); }

// What is kept of a deviation: its octave above the lowest, whose exponent as a float is `bottom`, 0..7; and 8 where it
// is not below 0.
struct Levels {
    I32 octave, kept;
    Levels(F32 d, I32 bottom) {
        const U32 bits = as<U32>(d);
        const I32 above = as<I32>(bits >> 23 & 255) - bottom;
        octave = larger(above, I32{});
        kept = octave | as<I32>(~(bits >> 28) & 8);
    }
    I32 size() const { return (I32{} + 1) << octave; }
};

// +-1, 2, .. 128.
inline I32 level_of(I32 kept) {
    const I32 size = (I32{} + 1) << (kept & 7);
    return choose(kept < 8, -size, size);
}

// Parameters of a block of a line, near and not in the way of what is written.
template <typename P>
struct Near {
    P at[kBlock + kLanes] = {};
    Near(const P* from, size_t width) { std::copy_n(from, width, at); }
    P operator[](size_t i) const { return at[i]; }
    auto vector(size_t i) const {
        std::conditional_t<std::is_same_v<P, float>, F32, I32> v;
        std::memcpy(&v, at + i, sizeof v);
        return v;
    }
};

// work(byte, first place, count, second place, count) for the halves of a block of so many places, whose kept nibbles
// share bytes, kLanes or fewer at a time.
template <size_t Block = kBlock, typename Work>
inline void pairs(size_t width, Work work) {
    if (width == Block) {
        for (size_t j = 0; j < Block / 2; j += kLanes) work(j, j, kLanes, Block / 2 + j, kLanes);
    } else if (width == Block / 2) {
        for (size_t j = 0; j < Block / 4; j += kLanes) work(j, j, kLanes, Block / 4 + j, kLanes);
    } else {
        const size_t half = (width + 1) / 2, rest = width / 2;
        for (size_t j = 0; j < half; j += kLanes)
            work(j, j, std::min(kLanes, half - j), half + j, std::min(kLanes, rest - std::min(rest, j)));
    }
}

inline void put_codes(I32 v, int16_t* p, size_t n) { put(narrower(as<U32>(v)), p, n); }
inline void put_pair(I32 low, I32 high, uint8_t* kept, size_t n) { put(narrowest(low | high << 4), kept, n); }
inline I32 bytes_at(const uint8_t* kept, size_t n) { return wider(take<U8>(kept, n)); }

inline int64_t all(I32 v) {
    int64_t sum = 0;
    for (size_t k = 0; k < kLanes; ++k) sum += v[k];
    return sum;
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
