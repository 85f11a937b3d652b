// Sixteen columns of four products each to an instruction.
#include <immintrin.h>

#include <cstring>

#include "gemm.hpp"

#define ISA vnni
#define ISA_NAME "avx512"

namespace narrowbit {
namespace vnni {
namespace {

constexpr size_t kSums = 24, kWidth = 16, kTogether = 2;  // registers of sums; besides them one of a and two of b

// _mm512_dpbusd_epi32, whose sums GCC 12 keeps in memory, at half the speed.
inline void add_products(__m512i& sum, __m512i x, __m512i w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
}

// Loops over registers are unrolled by order.
template <size_t kRows, size_t kVectors>
__attribute__((noinline)) void tile(Stretches k, const uint8_t* a, size_t row, size_t step, const int8_t* b,
                                    size_t step_b, const int32_t* start, int32_t* c, size_t stride, size_t columns) {
    __mmask16 masks[kVectors];
    __m512i sums[kRows][kVectors];
#pragma GCC unroll 24
    for (size_t v = 0; v < kVectors; ++v) {
        const size_t left = columns > 16 * v ? columns - 16 * v : 0;
        masks[v] = __mmask16(left < 16 ? (1u << left) - 1 : 0xFFFFu);
#pragma GCC unroll 24
        for (size_t r = 0; r < kRows; ++r)
            sums[r][v] = start ? _mm512_loadu_si512(start + 16 * v)
                               : _mm512_maskz_loadu_epi32(masks[v], c + r * stride + 16 * v);
    }
    for (size_t s = 0; s < k.count; ++s) {
        const uint8_t* x = a + k.a[s];
        const int8_t* from = b + k.b[s];
        for (size_t i = 0; i < k.k4; ++i, x += step, from += step_b) {
            __m512i w[kVectors];
#pragma GCC unroll 24
            for (size_t v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(from + 64 * v);
#pragma GCC unroll 24
            for (size_t r = 0; r < kRows; ++r) {
                int32_t four;
                std::memcpy(&four, x + r * row, 4);
                const __m512i codes = _mm512_set1_epi32(four);
#pragma GCC unroll 24
                for (size_t v = 0; v < kVectors; ++v) add_products(sums[r][v], codes, w[v]);
            }
        }
    }
#pragma GCC unroll 24
    for (size_t v = 0; v < kVectors; ++v)
#pragma GCC unroll 24
        for (size_t r = 0; r < kRows; ++r) _mm512_mask_storeu_epi32(c + r * stride + 16 * v, masks[v], sums[r][v]);
}

}  // namespace
}  // namespace vnni
}  // namespace narrowbit

#include "gemm_kernels.hpp"
