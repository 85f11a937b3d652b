#include "gemm.hpp"

#include <vector>

#include "cpu.hpp"
#include "threads.hpp"

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
    constexpr size_t kStretch = 256;  // fours: what is left over is a product of its own
    const size_t k4 = k / 4, count = k4 / kStretch;
    std::vector<size_t> at_a(count + 1), at_b(count + 1);
    for (size_t s = 0; s <= count; ++s) at_a[s] = s * kStretch * a.step, at_b[s] = s * kStretch * b.step;
    deal(threads, m, 6, m * n * k, [&](size_t first, size_t last) {
        if (count) g.multiply(first, last, n, {count, kStretch, at_a.data(), at_b.data()}, a, b, c, n);
        if (k4 % kStretch || !count) {
            Right rest = b;
            if (count) rest.corrections = nullptr;
            g.multiply(first, last, n, {1, k4 % kStretch, &at_a[count], &at_b[count]}, a, rest, c, n);
        }
    });
}

void convolve(const Gemm& g, int threads, Pictures p, Outputs o, size_t n, Stretches k, const uint8_t* a, Right b,
              int32_t* c) {
    const size_t line = p.width * p.channels;
    deal(threads, p.images * o.rows, 1, p.images * o.rows * o.columns * n * k.count * k.k4 * 4,
         [&](size_t first, size_t last) {
             for (size_t row = first; row < last; ++row) {
                 const uint8_t* from = a + (row / o.rows * p.height + row % o.rows * o.stride_y) * line;
                 g.multiply(0, o.columns, n, k, {from, o.stride_x * p.channels, 4}, b, c + row * o.columns * n, n);
             }
         });
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
