// Of norm_vectors.hpp: four registers or two.
#pragma once

#include <immintrin.h>

#include "norm.hpp"
#include "reals.hpp"

namespace narrowbit {
namespace ISA {
namespace {

struct Shorts {
    __m256i low = {}, high = {};
};
struct Ints {
    __m256i at[4];
};
struct Floats {
    __m256 at[4];
};

template <typename V, typename F>
inline V quarters(F f) {
    return {f(0), f(1), f(2), f(3)};
}

inline __m256i loaded(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i lower(__m256i v) { return _mm256_castsi256_si128(v); }
inline __m128i upper(__m256i v) { return _mm256_extracti128_si256(v, 1); }

inline Shorts whole(const int16_t* p) { return {loaded(p), loaded(p + 16)}; }
inline Ints whole(const int32_t* p) {
    return quarters<Ints>([=](int k) { return loaded(p + 8 * k); });
}
inline Floats whole(const float* p) {
    return quarters<Floats>([=](int k) { return _mm256_loadu_ps(p + 8 * k); });
}
inline Floats whole(const bf16* p) {
    return quarters<Floats>([=](int k) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * k));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
    });
}
inline void put_whole(Shorts a, int16_t* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16), a.high);
}
inline void put_whole(Floats a, float* p) {
    for (int k = 0; k < 4; ++k) _mm256_storeu_ps(p + 8 * k, a.at[k]);
}

// Integers of 16 bits without a sign, side by side.
inline __m256i together(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
}

inline void put_whole(Floats a, bf16* p) {
    const auto up = [&](int k) {
        return _mm256_srli_epi32(_mm256_add_epi32(_mm256_castps_si256(a.at[k]), _mm256_set1_epi32(0x8000)), 16);
    };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), together(up(0), up(1)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16), together(up(2), up(3)));
}

inline Floats same(float v) {
    return quarters<Floats>([=](int) { return _mm256_set1_ps(v); });
}
inline Ints same(int32_t v) {
    return quarters<Ints>([=](int) { return _mm256_set1_epi32(v); });
}
inline Shorts same(int16_t v) { return {_mm256_set1_epi16(v), _mm256_set1_epi16(v)}; }
inline Floats operator*(Floats a, Floats b) {
    return quarters<Floats>([&](int k) { return _mm256_mul_ps(a.at[k], b.at[k]); });
}
inline Floats operator+(Floats a, Floats b) {
    return quarters<Floats>([&](int k) { return _mm256_add_ps(a.at[k], b.at[k]); });
}

// f of the halves.
template <typename F>
inline Shorts each(F f, Shorts a) {
    return {f(a.low), f(a.high)};
}
template <typename F>
inline Shorts each(F f, Shorts a, Shorts b) {
    return {f(a.low, b.low), f(a.high, b.high)};
}

inline Shorts operator*(Shorts a, Shorts b) {
    return each([](__m256i a, __m256i b) { return _mm256_mullo_epi16(a, b); }, a, b);
}
inline Shorts operator+(Shorts a, Shorts b) {
    return each([](__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }, a, b);
}

inline Shorts codes_of(Floats a, Floats zero) {
    const auto part = [&](int k) {
        const __m256i sum = _mm256_castps_si256(_mm256_add_ps(a.at[k], zero.at[k]));
        return _mm256_blend_epi16(sum, _mm256_setzero_si256(), 0xAA);
    };
    return {together(part(0), part(1)), together(part(2), part(3))};
}
inline Shorts codes_of(const float* p, Floats zero) { return codes_of(whole(p), zero); }

inline Shorts codes_of(const bf16* p, Floats zero) {
    const auto half = [&](int k) {
        const __m256i all = loaded(p + 8 * k), upper = _mm256_set1_epi32(int(0xFFFF0000));
        const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(all, 16));
        const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(all, upper));
        const __m256i low = _mm256_castps_si256(_mm256_add_ps(even, zero.at[k]));
        const __m256i high = _mm256_castps_si256(_mm256_add_ps(odd, zero.at[k + 1]));
        return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
    };
    return {half(0), half(2)};
}
constexpr size_t kApart = 16;

inline Ints wider(Shorts a) {
    return {_mm256_cvtepi16_epi32(lower(a.low)), _mm256_cvtepi16_epi32(upper(a.low)),
            _mm256_cvtepi16_epi32(lower(a.high)), _mm256_cvtepi16_epi32(upper(a.high))};
}
inline Floats floats(Ints a) {
    return quarters<Floats>([&](int k) { return _mm256_cvtepi32_ps(a.at[k]); });
}

inline Shorts less(Shorts a, Shorts b) {
    const auto one = [](__m256i a, __m256i b) {
        return _mm256_max_epi16(_mm256_subs_epi16(a, b), _mm256_set1_epi16(-32767));
    };
    return each(one, a, b);
}
inline Shorts part(Shorts a, Shorts b) {
    return each([](__m256i a, __m256i b) { return _mm256_mulhrs_epi16(a, b); }, a, b);
}
inline Shorts size_of(Shorts a) {
    return each([](__m256i a) { return _mm256_abs_epi16(a); }, a);
}
inline Shorts larger(Shorts a, Shorts b) {
    return each([](__m256i a, __m256i b) { return _mm256_max_epi16(a, b); }, a, b);
}
inline Shorts one_below(Shorts a) {
    return each([](__m256i a) { return _mm256_srli_epi16(a, 15); }, a);
}

inline __m256i sixteen(__m128i table) { return _mm256_broadcastsi128_si256(table); }

inline __m256i sizes_of(__m256i octaves) {
    return _mm256_shuffle_epi8(
        sixteen(_mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, char(128), 1, 2, 4, 8, 16, 32, 64, char(128))), octaves);
}

// Bytes of the lower halves of both vectors, and of the upper.
struct Levels {
    __m256i octaves[2], signs[2];

    Levels(Shorts a, Shorts b) : signs{_mm256_packs_epi16(a.low, b.low), _mm256_packs_epi16(a.high, b.high)} {
        const __m256i upper = sixteen(_mm_setr_epi8(0, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7));
        const __m256i lower = sixteen(_mm_setr_epi8(0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
        const auto part = [](__m256i v) { return _mm256_srli_epi16(_mm256_abs_epi16(v), 7); };
        const auto of = [&](__m256i a, __m256i b) {
            const __m256i byte = _mm256_packus_epi16(part(a), part(b)), four = _mm256_set1_epi8(15);
            return _mm256_max_epu8(_mm256_shuffle_epi8(upper, _mm256_and_si256(_mm256_srli_epi16(byte, 4), four)),
                                   _mm256_shuffle_epi8(lower, _mm256_and_si256(byte, four)));
        };
        octaves[0] = of(a.low, b.low), octaves[1] = of(a.high, b.high);
    }

    template <int kSecond>
    Shorts sizes() const {
        const auto wide = [](__m256i octaves) {
            const __m256i all = sizes_of(octaves), zero = _mm256_setzero_si256();
            return kSecond ? _mm256_unpackhi_epi8(all, zero) : _mm256_unpacklo_epi8(all, zero);
        };
        return {wide(octaves[0]), wide(octaves[1])};
    }

    void put_whole(uint8_t* p) const {
        const auto both = [&](int k) {
            const __m256i below = _mm256_cmpgt_epi8(_mm256_setzero_si256(), signs[k]);
            const __m256i nibbles = _mm256_or_si256(octaves[k], _mm256_andnot_si256(below, _mm256_set1_epi8(8)));
            return _mm256_or_si256(nibbles, _mm256_slli_epi16(_mm256_bsrli_epi128(nibbles, 8), 4));
        };
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                            _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(both(0), both(1)), 0xD8));
    }
};

struct LevelSums {
    int64_t minus = 0;
    __m256i part = {};
    void add(const Levels& levels) {
        for (int k = 0; k < 2; ++k) {
            minus += __builtin_popcount(unsigned(_mm256_movemask_epi8(levels.signs[k])));
            const __m256i sizes = _mm256_sad_epu8(sizes_of(levels.octaves[k]), _mm256_setzero_si256());
            part = _mm256_add_epi64(part, sizes);
        }
    }
    int64_t sizes() const {
        const __m128i two = _mm_add_epi64(lower(part), upper(part));
        return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
    }
};

inline Shorts levels(Shorts nibbles) {
    const auto one = [](__m256i nibbles) {
        const __m256i size = _mm256_and_si256(sizes_of(nibbles), _mm256_set1_epi16(255));
        return _mm256_sign_epi16(size, _mm256_sub_epi16(_mm256_add_epi16(nibbles, nibbles), _mm256_set1_epi16(15)));
    };
    return each(one, nibbles);
}
struct Pair {
    Shorts low, high;
};
inline Pair whole(const uint8_t* p) {
    const __m256i all = loaded(p);
    const Shorts v = {_mm256_cvtepu8_epi16(lower(all)), _mm256_cvtepu8_epi16(upper(all))};
    return {each([](__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi16(15)); }, v),
            each([](__m256i v) { return _mm256_srli_epi16(v, 4); }, v)};
}

inline Ints off(Shorts a, Shorts nibbles, Ints minus, Ints plus) {
    const Ints is = wider(each([](__m256i v) { return _mm256_cmpgt_epi16(_mm256_set1_epi16(8), v); }, nibbles));
    const Ints wide = wider(a);
    return quarters<Ints>([&](int k) {
        return _mm256_sub_epi32(_mm256_slli_epi32(wide.at[k], 8),
                                _mm256_blendv_epi8(plus.at[k], minus.at[k], is.at[k]));
    });
}

inline int64_t total(__m256i v) {
    const __m256i four = _mm256_add_epi64(_mm256_cvtepi32_epi64(lower(v)), _mm256_cvtepi32_epi64(upper(v)));
    const __m128i two = _mm_add_epi64(lower(four), upper(four));
    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

struct Sums {
    __m256i even[2] = {}, odd[2] = {};
    void add(Shorts a, Shorts b) {
        const auto one = [](__m256i& even, __m256i& odd, __m256i a, __m256i b) {
            const __m256i lower = _mm256_set1_epi32(0xFFFF);
            even = _mm256_add_epi32(even, _mm256_madd_epi16(a, _mm256_and_si256(b, lower)));
            odd = _mm256_add_epi32(odd, _mm256_madd_epi16(a, _mm256_andnot_si256(lower, b)));
        };
        one(even[0], odd[0], a.low, b.low), one(even[1], odd[1], a.high, b.high);
    }
    void to(int32_t* sums) const {
        int32_t some[2][kLanes / 2];
        std::memcpy(some[0], even, sizeof even), std::memcpy(some[1], odd, sizeof odd);
        for (size_t k = 0; k < kLanes; ++k) sums[k] = some[k % 2][k / 2];
    }
};

struct Sum {
    __m256i part = {};
    void add(Shorts a, Shorts b) {
        const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high));
        part = _mm256_add_epi32(part, both);
    }
    int64_t all() const { return total(part); }
};

inline int16_t largest_of(Shorts sizes) {
    const __m256i half = _mm256_max_epi16(sizes.low, sizes.high);
    const __m128i eight = _mm_max_epi16(lower(half), upper(half));
    return int16_t(32767 - _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(32767), eight))) % 65536);
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
