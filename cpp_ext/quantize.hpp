// Real numbers -> shifted codes, in one pass: what quant.shift defines, bit for bit; and sums of products -> real
// numbers.
//
// x (n, c) is float32 or bfloat16. A code is x * inverse[c], clamped to lowest..largest and rounded to the nearest,
// ties to even, or where there is a seed floor(x * inverse + u) with quant.random_bits's u of its place; then shifted
// left by shifts[c]. With `groups` a row has an exponent e of its own instead, the largest below `groups` for which its
// largest |x| * 2^e is within `range`: codes are of x * 2^e, and shifted by groups - 1 - e. With `rows` it has a factor
// of its own: codes are of x * (inverse[c] * rows[row]). Compiled without fused multiply-adds, which would round
// otherwise. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrowbit {

enum class Real { f32, bf16 };

constexpr size_t size_of(Real type) { return type == Real::f32 ? 4 : 2; }

// What makes codes of c channels, all of which share `lowest`, `largest` and the seed of chance, which may be null.
// Pictures have inverse and shifts `step` apart: 0 where they share them, or c. groups: 0, or of rows, which then share
// the first inverse.
struct Rounding {
    const float* inverse;
    const uint8_t* shifts;
    size_t step;
    float lowest, largest;
    const uint32_t* seed;
    int groups = 0;
    float range = 0;
    const float* rows = nullptr;
};

// Where bytes of rows lie: row i is `stride` after row i - 1, but that a new line begins every `width` rows.
struct Bytes {
    uint8_t* data;
    size_t stride, width, line;
};

struct Quantize {
    const char* name;
    // The largest |x| of each channel, as the bits of a float (NaN and infinity are at least 0x7F800000), then the size
    // of the most negative x of each, 0 where none is.
    void (*ranges)(Real type, size_t first, size_t last, size_t c, const void* x, uint32_t* bits);
    // The same of each row, of x * factors[c]: sizes[row] and negative[row].
    void (*row_ranges)(Real type, size_t first, size_t last, size_t c, const void* x, const float* factors,
                       uint32_t* sizes, uint32_t* negative);
    // To sizes (c): the largest |x| * factors[row] of each channel.
    void (*scaled_ranges)(Real type, size_t first, size_t last, size_t c, const void* x, const float* factors,
                          uint32_t* sizes);
    // Rows first..last of x -> bytes of a product's left side: codes + 128, and 128 beyond c.
    void (*rows)(Real type, size_t first, size_t last, size_t c, const void* x, Rounding how, Bytes to);
    // n sums times a scale -> real numbers.
    void (*scaled)(Real type, size_t n, const int32_t* sums, float scale, void* x);
    // The same, times a factor of each.
    void (*scaled_by)(Real type, size_t n, const int32_t* sums, float scale, const float* factors, void* x);
    // n bytes, codes + 128, of `bits` (4, 6 or 8) bits from `lowest` on -> as many bits each, and back. n a multiple
    // of 4: what is packed takes n * bits / 8 bytes.
    void (*pack)(size_t n, unsigned bits, int lowest, const uint8_t* bytes, uint8_t* packed);
    void (*unpack)(size_t n, unsigned bits, int lowest, const uint8_t* packed, uint8_t* bytes);
    // Rows of c bytes, `step` apart -> four of them side by side (c, 4), one such after the other `made_step` apart,
    // each byte ^ flip.
    void (*interleave)(size_t fours, size_t c, const uint8_t* bytes, size_t step, uint8_t flip, uint8_t* made,
                       size_t made_step);
    // sums (c) += the codes of rows, `step` apart.
    void (*totals)(size_t rows, size_t c, const uint8_t* bytes, size_t step, int32_t* sums);
    // Numbers first..last, first a multiple of kSigns: y = max(x, 0) and a bit for each of whether x > 0, in pieces of
    // kSigns numbers: number 64 k + j of them is bit k of byte j. And the way back: dx = dy where the bit is set, or 0.
    void (*relu)(Real type, size_t first, size_t last, const void* x, void* y, uint8_t* bits);
    void (*relu_backward)(Real type, size_t first, size_t last, const void* dy, const uint8_t* bits, void* dx);
};

constexpr size_t kSigns = 512;

constexpr uint32_t kRaw = 0x4B400000;  // integers lie above it in the bits of floats from 1.5 * 2^23 on

// For this machine, or for the instruction set that MLIC_CPU names.
const Quantize& quantize();

// All rows, split over OpenMP threads.
void ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, uint32_t* bits);
void row_ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, const float* factors,
                uint32_t* bits);
void scaled_ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, const float* factors,
                   uint32_t* sizes);
void rows(const Quantize& q, int threads, Real type, size_t n, size_t c, size_t stride, const void* x, Rounding how,
          uint8_t* bytes);

}  // namespace narrowbit
