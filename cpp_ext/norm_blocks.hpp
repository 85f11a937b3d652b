// Loops over blocks of numbers whose length the compiler knows.
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

// Lambdas that a loop calls: inlined, they keep what the compiler knows of pointers.
#ifdef __GNUC__
#define INLINED __attribute__((always_inline))
#else
#define INLINED
#endif

// work(first place, width) for the blocks of a line: of Block places, then one of half as many, then what is left.
template <size_t Block = kBlock, typename Work>
inline void along(size_t length, Work work) {
    size_t from = 0;
    for (; from + Block <= length; from += Block) work(from, Block);
    if (from + Block / 2 <= length) work(from, Block / 2), from += Block / 2;
    if (from < length) work(from, length - from);
}

// one(i) for i below width, a loop of known length where that is Block or half of it.
template <size_t Block = kBlock, typename One>
inline void places(size_t width, One one) {
    if (width == Block)
        for (size_t i = 0; i < Block; ++i) one(i);
    else if (width == Block / 2)
        for (size_t i = 0; i < Block / 2; ++i) one(i);
    else
        for (size_t i = 0; i < width; ++i) one(i);
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
