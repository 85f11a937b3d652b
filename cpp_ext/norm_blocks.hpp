// Loops over blocks of numbers whose length the compiler knows, and the levels that are kept of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "norm.hpp"
#include "norm_numbers.hpp"
#include "reals.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kBlock = kLine;        // places at a time
constexpr size_t kLines = 4096;         // whose sums of numbers of 17 bits fit 32
constexpr size_t kGradientLines = 512;  // and of products of 22

// Parameters of a block of a line, near and not in the way of what is written.
template <typename P>
struct Near {
    P at[kBlock] = {};
    Near(const P* from, size_t width) { std::copy_n(from, width, at); }
    P operator[](size_t i) const { return at[i]; }
};

// Lambdas that a loop calls: inlined, they keep what the compiler knows of pointers.
#ifdef __GNUC__
#define INLINED __attribute__((always_inline))
#else
#define INLINED
#endif

// work(first place, width) for the blocks of a line: of kBlock places, then one of half as many, then what is left.
template <typename Work>
inline void along(size_t length, Work work) {
    size_t from = 0;
    for (; from + kBlock <= length; from += kBlock) work(from, kBlock);
    if (from + kBlock / 2 <= length) work(from, kBlock / 2), from += kBlock / 2;
    if (from < length) work(from, length - from);
}

// one(i) for i below width, a loop of known length where that is kBlock or half of it.
template <typename One>
inline void places(size_t width, One one) {
    if (width == kBlock)
        for (size_t i = 0; i < kBlock; ++i) one(i);
    else if (width == kBlock / 2)
        for (size_t i = 0; i < kBlock / 2; ++i) one(i);
    else
        for (size_t i = 0; i < width; ++i) one(i);
}

// one(j) for the places of the first half of a block.
template <typename One>
inline void halves(size_t width, One one) {
    if (width == kBlock)
        for (size_t j = 0; j < kBlock / 2; ++j) one(j);
    else if (width == kBlock / 2)
        for (size_t j = 0; j < kBlock / 4; ++j) one(j);
    else
        for (size_t j = 0; j < std::min(width, kBlock) / 2; ++j) one(j);
}

// What is kept of a deviation: its octave above the bottom, 0..7, by the exponent of a float; and 8 where d >= 0.
inline uint8_t kept_of(int32_t d, int32_t bottom) {
    const auto size = float(std::abs(d));
    int32_t bits;
    std::memcpy(&bits, &size, 4);
    return uint8_t(std::max((bits >> 23) - bottom, 0) | (8 & ~(d >> 31)));
}

// g, of 15 bits, times the level of what is kept: a number of 22 bits.
inline int32_t times_level(int32_t g, uint8_t kept) {
    const int32_t product = int32_t(uint32_t(g) << (kept & 7));
    return kept < 8 ? -product : product;
}

// What is kept of a block -> bytes, and back: the first half in the lower nibbles.
inline void join(size_t width, const uint8_t* levels, uint8_t* __restrict kept) {
    const size_t half = width / 2;
    halves(width, [&](size_t j) INLINED { kept[j] = uint8_t(levels[j] | levels[j + half] << 4); });
    if (width % 2) kept[half] = levels[width - 1];
}

inline void part(size_t width, const uint8_t* __restrict kept, uint8_t* __restrict levels) {
    const size_t half = width / 2;
    halves(width, [&](size_t j) INLINED { levels[j] = kept[j] & 15, levels[j + half] = kept[j] >> 4; });
    if (width % 2) levels[width - 1] = kept[half] & 15;
}

// work(first line, lines, first place, width): blocks of so many lines or fewer, kBlock places wide but for the last.
template <typename Work>
void blocks(size_t lines, size_t most, size_t length, Work work) {
    for (size_t line = 0; line < lines; line += most)
        along(length,
              [&](size_t from, size_t width) INLINED { work(line, std::min(most, lines - line), from, width); });
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
