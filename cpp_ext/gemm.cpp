#include "gemm.hpp"

#include <algorithm>
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

namespace {

constexpr size_t kStretch = 512;  // fours: what is left over is a product of its own
constexpr size_t kRows = 120;     // that stay near while the columns pass by

// Rows of c, k4 fours each.
struct Plain {
    size_t n, k4;
    std::vector<size_t> at_a, at_b;

    Plain(size_t n, size_t k4, Left a, Right b) : n(n), k4(k4) {
        for (size_t s = 0; s <= k4 / kStretch; ++s)
            at_a.push_back(s * kStretch * a.step), at_b.push_back(s * kStretch * b.step);
    }

    void multiply(const Gemm& g, size_t rows, Left a, Right b, int32_t* c) const {
        const size_t count = k4 / kStretch;
        if (count) g.multiply(0, rows, n, {count, kStretch, at_a.data(), at_b.data()}, a, b, c, n);
        if (k4 % kStretch == 0 && count) return;
        if (count) b.corrections = nullptr;
        g.multiply(0, rows, n, {1, k4 % kStretch, &at_a[count], &at_b[count]}, a, b, c, n);
    }
};

}  // namespace

void multiply(const Gemm& g, int threads, size_t m, size_t n, size_t k, Left a, Right b, int32_t* c) {
    const Plain plain(n, k / 4, a, b);
    deal(threads, m, kRows, m * n * k, [&](size_t first, size_t last) {
        for (; first < last; first += kRows)
            plain.multiply(g, std::min(kRows, last - first), {a.data + first * a.row, a.row, a.step}, b, c + first * n);
    });
}

}  // namespace narrowbit
