// Bytes are widened to 16 bits: the instruction that multiplies bytes would saturate its sums of two.
#include <immintrin.h>

#include <cstring>

#include "gemm.hpp"

#define ISA avx2
#define ISA_NAME "avx2"

namespace narrowbit {
namespace avx2 {
namespace {

constexpr size_t kSums = 4, kWidth = kColumns, kTogether = 1;

template <size_t kRows, size_t kVectors>
void tile(Stretches k, const uint8_t* a, size_t row, size_t step, const int8_t* b, size_t step_b, const int32_t* start,
          int32_t* c, size_t stride, size_t columns) {
    // Eight columns at a time: 32 bytes of b are two vectors of 16-bit numbers, four of each column side by side.
    for (size_t j = 0; j < columns; j += 8) {
        __m256i sums[kRows][2];
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        for (size_t s = 0; s < k.count; ++s) {
            const uint8_t* x = a + k.a[s];
            const int8_t* w = b + k.b[s] + 4 * j;
            for (size_t i = 0; i < k.k4; ++i, x += step, w += step_b) {
                const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
                const __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16)));
#pragma GCC unroll 8
                for (size_t r = 0; r < kRows; ++r) {
                    int32_t four;
                    std::memcpy(&four, x + r * row, 4);
                    const __m256i v = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
                    sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(v, low));
                    sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(v, high));
                }
            }
        }
        for (size_t r = 0; r < kRows; ++r) {
            int32_t found[8];
            const __m256i sum =
                _mm256_permute4x64_epi64(_mm256_hadd_epi32(sums[r][0], sums[r][1]), 0xD8);  // columns in order
            std::memcpy(found, &sum, 32);
            for (size_t i = 0; i < 8 && j + i < columns; ++i)
                c[r * stride + j + i] =
                    int32_t(uint32_t(start ? start[j + i] : c[r * stride + j + i]) + uint32_t(found[i]));
        }
    }
}

}  // namespace
}  // namespace avx2
}  // namespace narrowbit

#include "gemm_kernels.hpp"
