#include "gemm.hpp"

#define ISA scalar
#define ISA_NAME "scalar"

namespace narrowbit {
namespace scalar {
namespace {

constexpr size_t kTile = 4;

template <size_t kRows>
void tile(size_t k4, const uint8_t* a, size_t stride_a, const int8_t* b, const int32_t* start, int32_t* c,
          size_t stride, size_t columns) {
    for (size_t r = 0; r < kRows; ++r)
        for (size_t j = 0; j < columns; ++j) {
            int32_t sum = start ? start[j] : c[r * stride + j];
            for (size_t k = 0; k < 4 * k4; ++k) sum += a[r * stride_a + k] * b[k / 4 * 4 * kColumns + 4 * j + k % 4];
            c[r * stride + j] = sum;
        }
}

}  // namespace
}  // namespace scalar
}  // namespace narrowbit

#include "gemm_kernels.hpp"
