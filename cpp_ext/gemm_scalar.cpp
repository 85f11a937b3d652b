#include "gemm.hpp"

#define ISA scalar
#define ISA_NAME "scalar"

namespace narrowbit {
namespace scalar {
namespace {

constexpr size_t kSums = 4, kWidth = kColumns, kTogether = 1;

template <size_t kRows, size_t kVectors>
void tile(Stretches k, const uint8_t* a, size_t row, size_t step, const int8_t* b, size_t step_b, const int32_t* start,
          int32_t* c, size_t stride, size_t columns) {
    for (size_t r = 0; r < kRows; ++r)
        for (size_t j = 0; j < columns; ++j) {
            auto sum = uint32_t(start ? start[j] : c[r * stride + j]);  // on the way it may go around
            for (size_t s = 0; s < k.count; ++s) {
                const uint8_t* x = a + k.a[s] + r * row;
                const int8_t* w = b + k.b[s] + 4 * j;
                for (size_t i = 0; i < 4 * k.k4; ++i)
                    sum += uint32_t(x[i / 4 * step + i % 4] * w[i / 4 * step_b + i % 4]);
            }
            c[r * stride + j] = int32_t(sum);
        }
}

}  // namespace
}  // namespace scalar
}  // namespace narrowbit

#include "gemm_kernels.hpp"
