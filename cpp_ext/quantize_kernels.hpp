// The loops of quantize.hpp, compiled once for each instruction set: plain C++ that the compiler turns into vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantize.hpp"

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kBlock = 64;  // channels at a time

// quant.random_bits: 16 bits of a hash that two neighbours share.
inline uint32_t random_bits(uint32_t place, uint32_t seed) {
    uint32_t x = (place >> 1) * 0x9E3779B1u + seed;
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    x ^= x >> 16;
    return (x >> (16 * (place & 1))) & 0xFFFF;
}

void ranges(size_t first, size_t last, size_t c, const float* __restrict x, uint32_t* __restrict bits) {
    for (size_t from = 0; from < c; from += kBlock) {
        const size_t width = std::min(kBlock, c - from);
        uint32_t peak[kBlock];
        std::copy_n(bits + from, width, peak);
        for (size_t row = first; row < last; ++row) {
            const float* at = x + row * c + from;
            for (size_t i = 0; i < width; ++i) {
                uint32_t u;
                std::memcpy(&u, at + i, 4);
                peak[i] = std::max(peak[i], u & 0x7FFFFFFFu);
            }
        }
        std::copy_n(peak, width, bits + from);
    }
}

template <bool kChance>
void rows_as(size_t first, size_t last, size_t c, size_t stride, const float* __restrict x,
             const float* __restrict inverse, const uint8_t* __restrict shifts, float largest, uint32_t seed,
             uint8_t* __restrict bytes) {
    for (size_t row = first; row < last; ++row) {
        const float* from = x + row * c;
        uint8_t* to = bytes + row * stride;
        const auto place = uint32_t(row * c);
        for (size_t i = 0; i < c; ++i) {
            float v = from[i] * inverse[i];
            if constexpr (kChance)
                v = std::floor(v + (float(random_bits(place + uint32_t(i), seed)) + 0.5f) * 0x1p-16f);
            else
                v = std::nearbyint(v);
            const auto code = int32_t(std::min(std::max(v, -largest), largest));
            to[i] = uint8_t((code << shifts[i]) + 128);
        }
        for (size_t i = c; i < stride; ++i) to[i] = 128;
    }
}

void rows(size_t first, size_t last, size_t c, size_t stride, const float* x, const float* inverse,
          const uint8_t* shifts, float largest, const uint32_t* seed, uint8_t* bytes) {
    if (seed)
        rows_as<true>(first, last, c, stride, x, inverse, shifts, largest, *seed, bytes);
    else
        rows_as<false>(first, last, c, stride, x, inverse, shifts, largest, 0, bytes);
}

}  // namespace

extern const Quantize kQuantize;
const Quantize kQuantize = {ISA_NAME, ranges, rows};

}  // namespace ISA
}  // namespace narrowbit
