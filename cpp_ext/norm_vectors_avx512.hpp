// Of norm_vectors.hpp: two registers or one.
#pragma once

#include <immintrin.h>

#include <array>

#include "norm.hpp"
#include "reals.hpp"

namespace narrowbit {
namespace ISA {
namespace {

struct Shorts {
    __m512i v = {};
};
struct Ints {
    __m512i low, high;
};
struct Floats {
    __m512 low, high;
};

inline Shorts whole(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline Ints whole(const int32_t* p) { return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 16)}; }
inline Floats whole(const float* p) { return {_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16)}; }
inline Floats whole(const bf16* p) {
    const __m512i all = _mm512_loadu_si512(p);
    const auto wide = [](__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); };
    return {wide(_mm512_castsi512_si256(all)), wide(_mm512_extracti64x4_epi64(all, 1))};
}
inline void put_whole(Shorts a, int16_t* p) { _mm512_storeu_si512(p, a.v); }
inline void put_whole(Floats a, float* p) { _mm512_storeu_ps(p, a.low), _mm512_storeu_ps(p + 16, a.high); }

// The lower or upper halves of 32 integers.
template <int kUpper>
inline __m512i halves(__m512i low, __m512i high) {
    alignas(64) static constexpr auto kPick = [] {
        std::array<uint16_t, kLanes> pick{};
        for (size_t k = 0; k < kLanes; ++k) pick[k] = uint16_t(2 * k + kUpper);
        return pick;
    }();
    return _mm512_permutex2var_epi16(low, _mm512_load_si512(kPick.data()), high);
}

inline void put_whole(Floats a, bf16* p) {
    const auto up = [](__m512 v) { return _mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x8000)); };
    _mm512_storeu_si512(p, halves<1>(up(a.low), up(a.high)));
}

inline Floats same(float v) { return {_mm512_set1_ps(v), _mm512_set1_ps(v)}; }
inline Shorts same(int16_t v) { return {_mm512_set1_epi16(v)}; }
inline Ints same(int32_t v) { return {_mm512_set1_epi32(v), _mm512_set1_epi32(v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.low, b.low), _mm512_mul_ps(a.high, b.high)}; }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)}; }
inline Shorts operator*(Shorts a, Shorts b) { return {_mm512_mullo_epi16(a.v, b.v)}; }
inline Shorts operator+(Shorts a, Shorts b) { return {_mm512_add_epi16(a.v, b.v)}; }

// To the nearest, ties to even, for sizes below 2^15: what is added leaves no bits for a fraction (zero_of).
inline Shorts codes_of(Floats a, Floats zero) {
    const Floats sum = a + zero;
    return {halves<0>(_mm512_castps_si512(sum.low), _mm512_castps_si512(sum.high))};
}
inline Shorts codes_of(const float* p, Floats zero) { return codes_of(whole(p), zero); }

// Even places and odd ones apart, as in zero, so that no number changes its lane.
inline Shorts codes_of(const bf16* p, Floats zero) {
    const __m512i all = _mm512_loadu_si512(p);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(all, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(all, _mm512_set1_epi32(int(0xFFFF0000))));
    const __m512i low = _mm512_castps_si512(_mm512_add_ps(even, zero.low));
    const __m512i high = _mm512_castps_si512(_mm512_add_ps(odd, zero.high));
    return {_mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16))};
}
constexpr size_t kApart = 32;

inline Ints wider(Shorts a) {
    return {_mm512_cvtepi16_epi32(_mm512_castsi512_si256(a.v)),
            _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(a.v, 1))};
}
inline Floats floats(Ints a) { return {_mm512_cvtepi32_ps(a.low), _mm512_cvtepi32_ps(a.high)}; }

// a - b, at most 32767 in size.
inline Shorts less(Shorts a, Shorts b) {
    return {_mm512_max_epi16(_mm512_subs_epi16(a.v, b.v), _mm512_set1_epi16(-32767))};
}
// a * b / 2^15, halves up.
inline Shorts part(Shorts a, Shorts b) { return {_mm512_mulhrs_epi16(a.v, b.v)}; }
inline Shorts size_of(Shorts a) { return {_mm512_abs_epi16(a.v)}; }
inline Shorts larger(Shorts a, Shorts b) { return {_mm512_max_epi16(a.v, b.v)}; }
// 1 where a < 0.
inline Shorts one_below(Shorts a) { return {_mm512_srli_epi16(a.v, 15)}; }

inline __m512i sixteen(__m128i table) { return _mm512_broadcast_i32x4(table); }

// Of the bytes of octaves, also with 8 more: 2^octave.
inline __m512i sizes_of(__m512i octaves) {
    return _mm512_shuffle_epi8(
        sixteen(_mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, char(128), 1, 2, 4, 8, 16, 32, 64, char(128))), octaves);
}

// Of each number of two vectors: its octave, how often 256 can be halved until it is not above its size, from 0 to 7,
// counted from below; and whether it is below 0. Eight bytes of the first, eight of the second, and so on.
struct Levels {
    __m512i octaves;
    __mmask64 minus;

    Levels(Shorts a, Shorts b) : minus(_mm512_movepi8_mask(_mm512_packs_epi16(a.v, b.v))) {
        const __m512i upper = sixteen(_mm_setr_epi8(0, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7));
        const __m512i lower = sixteen(_mm_setr_epi8(0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
        const auto part = [](Shorts v) { return _mm512_srli_epi16(_mm512_abs_epi16(v.v), 7); };
        const __m512i byte = _mm512_packus_epi16(part(a), part(b)), four = _mm512_set1_epi8(15);
        octaves = _mm512_max_epu8(_mm512_shuffle_epi8(upper, _mm512_and_si512(_mm512_srli_epi16(byte, 4), four)),
                                  _mm512_shuffle_epi8(lower, _mm512_and_si512(byte, four)));
    }

    // Of one of the vectors: 2^octave.
    template <int kSecond>
    Shorts sizes() const {
        const __m512i all = sizes_of(octaves), zero = _mm512_setzero_si512();
        return {kSecond ? _mm512_unpackhi_epi8(all, zero) : _mm512_unpacklo_epi8(all, zero)};
    }

    // As kept: the octave, and 8 where a number is not below 0; the first vector's in the lower halves of bytes.
    void put_whole(uint8_t* p) const {
        const __m512i nibbles = _mm512_mask_add_epi8(octaves, ~minus, octaves, _mm512_set1_epi8(8));
        const __m512i both = _mm512_or_si512(nibbles, _mm512_slli_epi16(_mm512_bsrli_epi128(nibbles, 8), 4));
        const __m512i pick = _mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6);
        _mm256_storeu_si256((__m256i*)p, _mm512_castsi512_si256(_mm512_permutexvar_epi64(pick, both)));
    }
};

// How many are below 0, and the sum of 2^octave.
struct LevelSums {
    int64_t minus = 0;
    __m512i part = {};
    void add(const Levels& levels) {
        minus += __builtin_popcountll(levels.minus);
        part = _mm512_add_epi64(part, _mm512_sad_epu8(sizes_of(levels.octaves), _mm512_setzero_si512()));
    }
    int64_t sizes() const { return _mm512_reduce_add_epi64(part); }
};

// Of nibbles: +-2^octave.
inline Shorts levels(Shorts nibbles) {
    const __m512i size = _mm512_and_si512(sizes_of(nibbles.v), _mm512_set1_epi16(255));
    const __mmask32 minus = _mm512_cmplt_epi16_mask(nibbles.v, _mm512_set1_epi16(8));
    return {_mm512_mask_sub_epi16(size, minus, _mm512_setzero_si512(), size)};
}
struct Pair {
    Shorts low, high;
};
inline Pair whole(const uint8_t* p) {
    const __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
    return {{_mm512_and_si512(v, _mm512_set1_epi16(15))}, {_mm512_srli_epi16(v, 4)}};
}

// 256 a - (minus or plus, by the sign that a nibble keeps).
inline Ints off(Shorts a, Shorts nibbles, Ints minus, Ints plus) {
    const __mmask32 is = _mm512_cmplt_epi16_mask(nibbles.v, _mm512_set1_epi16(8));
    const Ints wide = wider(a);
    const auto one = [](__m512i v, __mmask16 is, __m512i minus, __m512i plus) {
        return _mm512_sub_epi32(_mm512_slli_epi32(v, 8), _mm512_mask_blend_epi32(is, plus, minus));
    };
    return {one(wide.low, __mmask16(is), minus.low, plus.low),
            one(wide.high, __mmask16(is >> 16), minus.high, plus.high)};
}

// 32 sums of products.
struct Sums {
    __m512i even = {}, odd = {};
    void add(Shorts a, Shorts b) {
        even = _mm512_add_epi32(even, _mm512_madd_epi16(a.v, _mm512_and_si512(b.v, _mm512_set1_epi32(0xFFFF))));
        odd = _mm512_add_epi32(odd, _mm512_madd_epi16(a.v, _mm512_andnot_si512(_mm512_set1_epi32(0xFFFF), b.v)));
    }
    void to(int32_t* sums) const {
        int32_t some[2][kLanes / 2];
        _mm512_storeu_si512(some[0], even), _mm512_storeu_si512(some[1], odd);
        for (size_t k = 0; k < kLanes; ++k) sums[k] = some[k % 2][k / 2];
    }
};

// The sum of all, in 16 parts.
struct Sum {
    __m512i part = {};
    void add(Shorts a, Shorts b) { part = _mm512_add_epi32(part, _mm512_madd_epi16(a.v, b.v)); }
    int64_t all() const {
        const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(part));
        return _mm512_reduce_add_epi64(
            _mm512_add_epi64(low, _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(part, 1))));
    }
};

inline int16_t largest_of(Shorts sizes) {
    const __m512i even = _mm512_and_si512(sizes.v, _mm512_set1_epi32(0xFFFF)), odd = _mm512_srli_epi32(sizes.v, 16);
    return int16_t(_mm512_reduce_max_epi32(_mm512_max_epi32(even, odd)));
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
