// Products of 8-bit integers with 32-bit sums: what a matrix product of shifted sub-8-bit codes is.
//
// a (m, k) holds codes + 128 as unsigned bytes, row after row, k a multiple of 4 (fill with 128, which is code 0). b
// (n, k) are signed codes, made into panels of kColumns columns whose bytes lie as the kernels read them: panel, k / 4,
// column, k mod 4. c (m, n) = a * b^T in int32, in whatever order the sums are taken: they are exact. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrowbit {

constexpr size_t kColumns = 64, kOffset = 128;

// Bytes of the panels of b.
constexpr size_t panel_bytes(size_t n, size_t k) { return (n + kColumns - 1) / kColumns * kColumns * k; }

struct Gemm {
    const char* name;
    // corrections (n rounded up to kColumns): kOffset times the sums over k, which c starts from, negative
    void (*pack)(size_t n, size_t k, const int8_t* b, int8_t* panels, int32_t* corrections);
    // Rows first..last of c, whose rows are `stride` apart.
    void (*multiply)(size_t first, size_t last, size_t n, size_t k, const uint8_t* a, const int8_t* panels,
                     const int32_t* corrections, int32_t* c, size_t stride);
};

// For this machine, or for the instruction set that MLIC_CPU names (avx512 stands for its VNNI part, else avx2).
const Gemm& gemm();

// The whole product, its rows split over OpenMP threads; 0 for as many as OpenMP would take.
void multiply(const Gemm& g, int threads, size_t m, size_t n, size_t k, const uint8_t* a, const int8_t* panels,
              const int32_t* corrections, int32_t* c);

}  // namespace narrowbit
