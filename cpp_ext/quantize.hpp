// Real numbers -> shifted codes, in one pass: what quant.shift defines, bit for bit.
//
// x (n, c) float32. A code is x * inverse[c], clamped to +-largest and rounded to the nearest, ties to even, or where
// there is a seed floor(x * inverse + u) with quant.random_bits's u of its place; then shifted left by shifts[c].
// Compiled without fused multiply-adds, which would round otherwise. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrowbit {

struct Quantize {
    const char* name;
    // The largest |x| of each channel, as the bits of a float: NaN and infinity are at least 0x7F800000.
    void (*ranges)(size_t first, size_t last, size_t c, const float* x, uint32_t* bits);
    // Rows first..last -> bytes (n, stride) of a product's left side: codes + 128, and 128 beyond c.
    void (*rows)(size_t first, size_t last, size_t c, size_t stride, const float* x, const float* inverse,
                 const uint8_t* shifts, float largest, const uint32_t* seed, uint8_t* bytes);
};

// For this machine, or for the instruction set that MLIC_CPU names.
const Quantize& quantize();

// All rows, split over OpenMP threads.
void ranges(const Quantize& q, int threads, size_t n, size_t c, const float* x, uint32_t* bits);
void rows(const Quantize& q, int threads, size_t n, size_t c, size_t stride, const float* x, const float* inverse,
          const uint8_t* shifts, float largest, const uint32_t* seed, uint8_t* bytes);

}  // namespace narrowbit
