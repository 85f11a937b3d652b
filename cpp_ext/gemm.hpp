// Products of 8-bit integers with 32-bit sums: what a matrix product of shifted sub-8-bit codes is.
//
// a (m, k) holds codes + 128 as unsigned bytes, k a multiple of 4 (fill with 128, which is code 0); b (n, k) are signed
// codes. Four neighbours along k lie side by side; from one four to the next it is a step, and for a it is a row from
// one to the next. So a may lie row after row, or interleaved as four rows of its transpose: (k / 4, m, 4). b lies in
// panels of kColumns columns, (k / 4, column, 4) each with a step of its own, packed or interleaved too.
// c (m, n) = a * b^T in int32, in whatever order the sums are taken: they are exact. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize.hpp"

namespace narrowbit {

constexpr size_t kColumns = 64, kOffset = 128;

// Bytes of the panels of b.
constexpr size_t panel_bytes(size_t n, size_t k) { return (n + kColumns - 1) / kColumns * kColumns * k; }

struct Left {
    const uint8_t* data;
    size_t row, step;
};

// The inner dimension: `count` stretches of k4 fours each, which begin so many bytes into a and b. A plain product has
// one, a convolution one for each tap, the gradient of its weights one for each row of the picture.
struct Stretches {
    size_t count, k4;
    const size_t *a, *b;
};

struct Right {
    const int8_t* data;
    size_t panel, step;
    const int32_t* corrections;  // (n rounded up to kColumns): -kOffset times the sums over k, which c starts from;
                                 // null: c goes on
};

struct Gemm {
    const char* name;
    void (*pack)(size_t n, size_t k, const int8_t* b, int8_t* panels, int32_t* corrections);
    // Rows first..last of c, whose rows are `stride` apart.
    void (*multiply)(size_t first, size_t last, size_t n, Stretches k, Left a, Right b, int32_t* c, size_t stride);
};

// For this machine, or for the instruction set that MLIC_CPU names (avx512 stands for its VNNI part, else avx2).
const Gemm& gemm();

// The whole plain product, its rows split over OpenMP threads; 0 for as many as OpenMP would take.
void multiply(const Gemm& g, int threads, size_t m, size_t n, size_t k, Left a, Right b, int32_t* c);

}  // namespace narrowbit
