// The depthwise 5x5 convolution. Part of layers_kernels.hpp, which says how it is compiled.
#pragma once

#include "layers_common.hpp"

namespace narrowbit {
namespace ISA {
namespace {

// Taps of one coordinate whose source lies inside: tap t reads position p + t - 2.
struct Taps {
    size_t begin, end;
    Taps(size_t p, size_t size) : begin(p < 2 ? 2 - p : 0), end(std::min<size_t>(5, size + 2 - p)) {}
};

// kBlock channels from `first` on, of one row of outputs.
template <int A, typename S>
inline void depthwise_row(Grid g, size_t row, size_t first, const float* RESTRICT x, const float* RESTRICT weights,
                          const float* RESTRICT bias, S* RESTRICT y) {
    const size_t c = g.channels;
    const Taps rows(row % g.height, g.height);
    for (size_t w = 0; w < g.width; ++w) {
        const Taps columns(w, g.width);
        Vector sum[kBlock / kLanes] = {};
        for (size_t i = rows.begin; i < rows.end; ++i)
            for (size_t j = columns.begin; j < columns.end; ++j) {
                const float* from = x + ((row + i - 2) * g.width + w + j - 2) * c + first;
                const float* tap = weights + (i * 5 + j) * c + first;
                for (size_t v = 0; v < kBlock / kLanes; ++v)
                    sum[v] += load(from + v * kLanes) * load(tap + v * kLanes);
            }
        float sums[kBlock];
        for (size_t v = 0; v < kBlock / kLanes; ++v) store(sums + v * kLanes, sum[v]);
        S* RESTRICT to = y + (row * g.width + w) * c + first;
        if (bias)
            for (size_t k = 0; k < kBlock; ++k) to[k] = S(fix<A>(sums[k] + bias[first + k], kNarrow));
        else
            for (size_t k = 0; k < kBlock; ++k) to[k] = S(sums[k]);
    }
}

// The channels from `first` to the last, where fewer than kBlock are left.
template <int A, typename S>
inline void depthwise_rest(Grid g, size_t row, size_t first, const float* RESTRICT x, const float* RESTRICT weights,
                           const float* RESTRICT bias, S* RESTRICT y) {
    const size_t c = g.channels;
    const Taps rows(row % g.height, g.height);
    for (size_t w = 0; w < g.width; ++w) {
        const Taps columns(w, g.width);
        for (size_t k = first; k < c; ++k) {
            float sum = 0.0f;
            for (size_t i = rows.begin; i < rows.end; ++i)
                for (size_t j = columns.begin; j < columns.end; ++j)
                    sum += x[((row + i - 2) * g.width + w + j - 2) * c + k] * weights[(i * 5 + j) * c + k];
            y[(row * g.width + w) * c + k] = S(bias ? fix<A>(sum + bias[k], kNarrow) : sum);
        }
    }
}

template <int A, typename S>
void depthwise(How how, Grid g, const float* x, const float* weights, const float* bias, S* y) {
    const size_t c = g.channels;
    split(g.batch * g.height, threads_for(how, g.positions() * c), [=](size_t begin, size_t end, size_t) {
        for (size_t first = 0; first < c; first += kBlock)
            for (size_t row = begin; row < end; ++row) {
                if (c - first >= kBlock)
                    depthwise_row<A>(g, row, first, x, weights, bias, y);
                else
                    depthwise_rest<A>(g, row, first, x, weights, bias, y);
            }
    });
}

// Adds the gradients of one row of outputs to sums (25, kBlock) of the taps and to `total` (kBlock) of the bias.
template <size_t kWidth>
inline void tap_row(Grid g, size_t row, size_t first, size_t width, const float* RESTRICT x, const float* RESTRICT dy,
                    float* RESTRICT sums, float* RESTRICT total) {
    const size_t c = g.channels, m = kWidth ? kWidth : width, h = row % g.height;
    const Taps rows(h, g.height);
    for (size_t w = 0; w < g.width; ++w) {
        const Taps columns(w, g.width);
        const float* RESTRICT d = dy + (row * g.width + w) * c + first;
        for (size_t k = 0; k < m; ++k) total[k] += d[k];
        for (size_t i = rows.begin; i < rows.end; ++i)
            for (size_t j = columns.begin; j < columns.end; ++j) {
                const float* RESTRICT from = x + ((row + i - 2) * g.width + w + j - 2) * c + first;
                float* RESTRICT sum = sums + (i * 5 + j) * kBlock;
                for (size_t k = 0; k < m; ++k) sum[k] += from[k] * d[k];
            }
    }
}

template <int A, typename S>
void depthwise_back(How how, Grid g, const float* x, const float* weights, const S* y, const S* dy, float* passed,
                    float* dx, float* dweights, float* dbias) {
    const size_t c = g.channels, n = g.positions() * c;
    if (A > 0 || static_cast<const void*>(passed) != dy)
        split(n, threads_for(how, n), [=](size_t begin, size_t end, size_t) {
#pragma GCC ivdep
            for (size_t i = begin; i < end; ++i) passed[i] = dy[i] * passes<A>(y[i], kNarrow);
        });
    const Floats flipped(25 * c);
    for (size_t t = 0; t < 25; ++t) std::copy_n(weights + (24 - t) * c, c, flipped.data + t * c);
    depthwise<0>(how, g, passed, flipped.data, nullptr, dx);
    if (!dweights) return;
    const Floats sums(26 * c);
    split_with_sums(g.batch * g.height, threads_for(how, n), 26 * c, sums.data, [=](size_t begin, size_t end, float* to) {
        for (size_t first = 0; first < c; first += kBlock) {
            const size_t width = std::min(kBlock, c - first);
            float taps[25 * kBlock] = {}, total[kBlock] = {};
            for (size_t row = begin; row < end; ++row) {
                if (width == kBlock)
                    tap_row<kBlock>(g, row, first, width, x, passed, taps, total);
                else
                    tap_row<0>(g, row, first, width, x, passed, taps, total);
            }
            for (size_t t = 0; t < 25; ++t) std::copy_n(taps + t * kBlock, width, to + t * c + first);
            std::copy_n(total, width, to + 25 * c + first);
        }
    });
    std::copy_n(sums.data, 25 * c, dweights);
    std::copy_n(sums.data + 25 * c, c, dbias);
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
