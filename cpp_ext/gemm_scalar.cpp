#include "gemm.hpp"

#define ISA scalar
#define ISA_NAME "scalar"

namespace narrowbit {
namespace scalar {
namespace {

constexpr size_t kSums = 4, kWidth = kColumns;

template <size_t kRows, size_t kVectors>
void tile(size_t k4, const uint8_t* a, size_t row, size_t step, const int8_t* b, size_t step_b, const int32_t* start,
          int32_t* c, size_t stride, size_t columns) {
    for (size_t r = 0; r < kRows; ++r)
        for (size_t j = 0; j < columns; ++j) {
            auto sum = uint32_t(start ? start[j] : c[r * stride + j]);  // on the way it may go around
            for (size_t k = 0; k < 4 * k4; ++k)
                sum += uint32_t(a[r * row + k / 4 * step + k % 4] * b[k / 4 * step_b + 4 * j + k % 4]);
            c[r * stride + j] = int32_t(sum);
        }
}

}  // namespace
}  // namespace scalar
}  // namespace narrowbit

#include "gemm_kernels.hpp"
