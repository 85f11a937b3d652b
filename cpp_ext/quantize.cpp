#include "quantize.hpp"

#include <algorithm>
#include <vector>

#include "cpu.hpp"
#include "threads.hpp"

namespace narrowbit {

namespace generic {
extern const Quantize kQuantize;
}
#ifdef NARROWBIT_X86
namespace avx2 {
extern const Quantize kQuantize;
}
namespace avx512 {
extern const Quantize kQuantize;
}
#endif

const Quantize& quantize() {
    switch (isa()) {
#ifdef NARROWBIT_X86
        case Isa::avx512: return avx512::kQuantize;
        case Isa::avx2: return avx2::kQuantize;
#endif
        default: return generic::kQuantize;
    }
}

void ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, uint32_t* bits) {
    std::fill_n(bits, 2 * c, 0u);
    deal(threads, n, 1, n * c, [&](size_t first, size_t last) {
        std::vector<uint32_t> own(2 * c);
        q.ranges(type, first, last, c, x, own.data());
#pragma omp critical
        for (size_t i = 0; i < own.size(); ++i) bits[i] = std::max(bits[i], own[i]);
    });
}

void row_ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, const float* factors,
                uint32_t* bits) {
    deal(threads, n, 1, n * c,
         [&](size_t first, size_t last) { q.row_ranges(type, first, last, c, x, factors, bits, bits + n); });
}

void scaled_ranges(const Quantize& q, int threads, Real type, size_t n, size_t c, const void* x, const float* factors,
                   uint32_t* sizes) {
    std::fill_n(sizes, c, 0u);
    deal(threads, n, 1, n * c, [&](size_t first, size_t last) {
        std::vector<uint32_t> own(c);
        q.scaled_ranges(type, first, last, c, x, factors, own.data());
#pragma omp critical
        for (size_t i = 0; i < c; ++i) sizes[i] = std::max(sizes[i], own[i]);
    });
}

void rows(const Quantize& q, int threads, Real type, size_t n, size_t c, size_t stride, const void* x, Rounding how,
          uint8_t* bytes) {
    deal(threads, n, 1, n * c, [&](size_t first, size_t last) {
        q.rows(type, first, last, c, x, how, {bytes + first * stride, stride, last - first, 0});
    });
}

}  // namespace narrowbit
