// Work dealt to OpenMP threads, where the compiler has them.
#pragma once

#include <cstddef>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace narrowbit {

// work(first, last) over 0..n in pieces of multiples of `whole`, to whichever thread is free; at most so many threads,
// 0 for as many as OpenMP would take, and one where `amount` of work is not worth more than that.
template <typename Work>
void deal(int threads, size_t n, size_t whole, size_t amount, Work work) {
#ifdef _OPENMP
    const int all = threads > 0 ? threads : omp_get_max_threads();
    if (all > 1 && amount > 1 << 16) {
        const size_t piece = (n + size_t(4 * all) * whole - 1) / (size_t(4 * all) * whole) * whole;
#pragma omp parallel for schedule(dynamic, 1) num_threads(all)
        for (size_t first = 0; first < n; first += piece) work(first, first + piece < n ? first + piece : n);
        return;
    }
#endif
    (void)threads, (void)whole, (void)amount;
    work(0, n);
}

}  // namespace narrowbit
