#include "gemm.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

#include "cpu.hpp"

namespace narrowbit {

namespace scalar {
extern const Gemm kGemm;
}
#ifdef NARROWBIT_X86
namespace avx2 {
extern const Gemm kGemm;
}
namespace vnni {
extern const Gemm kGemm;
}
#endif

const Gemm& gemm() {
#ifdef NARROWBIT_X86
    switch (isa()) {
        case Isa::avx512:
            if (__builtin_cpu_supports("avx512vnni")) return vnni::kGemm;
            [[fallthrough]];
        case Isa::avx2: return avx2::kGemm;
        default: break;
    }
#endif
    return scalar::kGemm;
}

void multiply(const Gemm& g, int threads, size_t m, size_t n, size_t k, Left a, Right b, int32_t* c) {
#ifdef _OPENMP
    const int all = threads > 0 ? threads : omp_get_max_threads();
    if (all > 1 && m * n * k > 1 << 16) {
        const size_t piece = (m + size_t(4 * all) * 6 - 1) / (size_t(4 * all) * 6) * 6;  // in whole tiles
#pragma omp parallel for schedule(dynamic, 1) num_threads(all)
        for (size_t first = 0; first < m; first += piece)
            g.multiply(first, first + piece < m ? first + piece : m, n, k, a, b, c, n);
        return;
    }
#else
    (void)threads;
#endif
    g.multiply(0, m, n, k, a, b, c, n);
}

void interleave(size_t k, size_t c, const uint8_t* bytes, uint8_t flip, uint8_t* made, int32_t* corrections) {
    for (size_t from = 0; from < k; from += 4) {
        const size_t rows = k - from < 4 ? k - from : 4;
        for (size_t i = 0; i < c; ++i)
            for (size_t r = 0; r < 4; ++r)
                made[(from / 4 * c + i) * 4 + r] = uint8_t((r < rows ? bytes[(from + r) * c + i] : kOffset) ^ flip);
    }
    if (!flip) return;
    for (size_t i = 0; i < c; ++i) corrections[i] = 0;
    for (size_t row = 0; row < k; ++row)
        for (size_t i = 0; i < c; ++i) corrections[i] -= int32_t(kOffset) * (int32_t(bytes[row * c + i]) - 128);
    for (size_t i = c; i < (c + kColumns - 1) / kColumns * kColumns; ++i) corrections[i] = 0;
}

}  // namespace narrowbit
