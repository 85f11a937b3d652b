// Vectors of 32 numbers, for loops that compilers turn into poor ones: Shorts, Ints and Floats; arrays elsewhere, and
// with NARROWBIT_PLAIN_VECTORS.
#pragma once

#include <algorithm>
#include <type_traits>

#include "norm.hpp"
#include "norm_numbers.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kLanes = 32;

}  // namespace
}  // namespace ISA
}  // namespace narrowbit

#if defined(__AVX512BW__) && !defined(NARROWBIT_PLAIN_VECTORS)
#include "norm_vectors_avx512.hpp"
#elif defined(__AVX2__) && !defined(NARROWBIT_PLAIN_VECTORS)
#include "norm_vectors_avx2.hpp"
#else
#include "norm_vectors_plain.hpp"
#endif

namespace narrowbit {
namespace ISA {
namespace {

// The sizes of real numbers in order, as unsigned numbers: bits without the sign.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
template <typename T>
inline Bits<T> size_bits(const T* x) {
    Bits<T> bits;
    std::memcpy(&bits, x, sizeof bits);
    return bits & Bits<T>(Bits<T>(~Bits<T>(0)) >> 1);
}

// What codes_of() adds to up to 32 numbers of type T, by the powers of two of their places: of bfloat16 those of even
// places come first, then those of odd ones, of kApart numbers at a time.
template <typename T>
struct Zeros {
    Floats all;
    Zeros(const float* power, size_t n) {
        float some[kLanes] = {};
        for (size_t k = 0; k < n; ++k) {
            const size_t apart = k / kApart * kApart + k % 2 * (kApart / 2) + k % kApart / 2;
            some[sizeof(T) == 2 ? apart : k] = zero_of(power[k]);
        }
        all = whole(some);
    }
};

// Brings near what will be read or written later, which need not be there: a line of the cache, 32 numbers.
template <bool kToWrite = false>
inline void fetch_line(const void* p) {
#ifdef __GNUC__
    __builtin_prefetch(p, kToWrite);
#else
    (void)p;
#endif
}
template <bool kToWrite = false, typename T>
inline void fetch(const T* p) {
    for (size_t i = 0; i < kLanes; i += 64 / sizeof(T)) fetch_line<kToWrite>(p + i);
}

inline Floats floats(const Shorts& a) { return floats(wider(a)); }

// n of the numbers at p, and what is not there; and back.
template <typename T>
inline auto take(const T* p, size_t n, T none = 0) {
    if (n == kLanes) return whole(p);
    T some[kLanes];
    std::fill_n(some, kLanes, none);
    std::copy_n(p, n, some);
    return whole(some);
}

// Of n numbers; 0 for those that are not there.
template <typename T>
inline Shorts take_codes(const T* p, size_t n, const Floats& zero) {
    if (n == kLanes) return codes_of(p, zero);
    T some[kLanes] = {};
    std::copy_n(p, n, some);
    return codes_of(some, zero);
}

template <typename V, typename T>
inline void put(const V& v, T* p, size_t n) {
    if (n == kLanes) return put_whole(v, p);
    T some[kLanes];
    put_whole(v, some);
    std::copy_n(some, n, p);
}

inline void put(const Levels& levels, uint8_t* p, size_t n) {
    uint8_t some[kLanes];
    levels.put_whole(n == kLanes ? p : some);
    if (n < kLanes) std::copy_n(some, n, p);
}

// Lambdas that a loop calls: inlined, they keep what the compiler knows of pointers.
#ifdef __GNUC__
#define INLINED __attribute__((always_inline))
#else
#define INLINED
#endif

constexpr size_t kBlock = kLine;  // places at a time, in two vectors

// work(first place, width) for the blocks of a line; the last one may be shorter.
template <typename Work>
INLINED inline void along(size_t length, Work work) {
    size_t from = 0;
    for (; from + kBlock <= length; from += kBlock) work(from, kBlock);
    if (from < length) work(from, length - from);
}

// work(number, first place, count) for the two vectors of a block, whose kept nibbles share bytes.
template <typename Work>
INLINED inline void both(size_t width, Work work) {
    const size_t half = (width + 1) / 2;
    if (width == kBlock)
        work(0, 0, kLanes), work(1, kLanes, kLanes);
    else
        work(0, 0, half), work(1, half, width - half);
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
