// Matrix products and what follows each. Part of layers_kernels.hpp, which says how it is compiled.
#pragma once

#include "layers_common.hpp"

namespace narrowbit {
namespace ISA {
namespace {

// sums (kRows, kPanel) = x (kRows rows, k wide) times one panel. Inlined into a large function it would lose registers
// to it, and half its speed.
template <size_t kRows>
NOINLINE void tile(size_t k, const float* RESTRICT x, const float* RESTRICT panel, float* RESTRICT sums) {
    Vector acc[kRows][kVectors];
    for (size_t r = 0; r < kRows; ++r)
        for (size_t v = 0; v < kVectors; ++v) acc[r][v] = Vector{};
    for (size_t i = 0; i < k; ++i) {
        Vector w[kVectors];
        for (size_t v = 0; v < kVectors; ++v) w[v] = load(panel + i * kPanel + v * kLanes);
        for (size_t r = 0; r < kRows; ++r)
            for (size_t v = 0; v < kVectors; ++v) acc[r][v] += x[r * k + i] * w[v];
    }
    for (size_t r = 0; r < kRows; ++r)
        for (size_t v = 0; v < kVectors; ++v) store(sums + r * kPanel + v * kLanes, acc[r][v]);
}

// What becomes of kPanel sums, of which `columns` are stored in y from `at` on. v: the sums of the gate's panel.
template <int A, Form F>
inline void finish(After after, float* RESTRICT sum, const float* RESTRICT v, size_t at, size_t columns,
                   float* RESTRICT y) {
    for (size_t c = 0; c < kPanel; ++c) {
        if constexpr (F == Form::narrow) sum[c] = fix<2>(sum[c], kNarrow);
        if constexpr (F == Form::wide) sum[c] = fix<2>(sum[c], kWide);
        if constexpr (F == Form::head) sum[c] = fix<2>(sum[c], kHead);
        if constexpr (F == Form::act) {
            const float u = fix<A>(sum[c], kNarrow);
            sum[c] = fix<A>(u * sigmoid(u), kNarrow);
        }
        if constexpr (F == Form::gate)
            sum[c] = fix<A>(fix<A>(sum[c], kNarrow) * sigmoid(fix<A>(v[c], kNarrow)), kNarrow);
    }
    const auto stored = [&](size_t n) {
        if constexpr (F == Form::add) {
            for (size_t c = 0; c < n; ++c) sum[c] = fix<A>(after.residual[at + c] + fix<A>(sum[c], kWide), kWide);
            if (after.narrow)
                for (size_t c = 0; c < n; ++c) after.narrow[at + c] = fix<A>(sum[c], kNarrow);
        }
        for (size_t c = 0; c < n; ++c) y[at + c] = sum[c];
    };
    columns == kPanel ? stored(kPanel) : stored(columns);  // the first is a constant: no loop is left of it
}

constexpr size_t kChunk = 8 * kTile;  // positions for which a panel stays near

// At most kChunk positions.
template <int A, Form F>
void linear_rows(size_t begin, size_t end, size_t k, size_t rows, const float* RESTRICT x,
                 const float* RESTRICT panels, const float* RESTRICT bias, After after, float* RESTRICT y) {
    constexpr bool kGate = F == Form::gate;
    const size_t out = kGate ? rows / 2 : rows, gate = (out + kPanel - 1) / kPanel;  // panels from u to its v
    for (size_t p = 0; p * kPanel < out; ++p) {
        const size_t columns = std::min(kPanel, out - p * kPanel);
        const float *const u = panels + p * k * kPanel, *const v = u + (kGate ? gate * k * kPanel : 0);
        float offsets[2][kPanel] = {}, sums[2][kTile * kPanel];
        if (bias) std::copy_n(bias + p * kPanel, columns, offsets[0]);
        if (bias && kGate) std::copy_n(bias + out + p * kPanel, columns, offsets[1]);
        for (size_t i = begin, count; i < end; i += count) {
            count = end - i >= kTile ? kTile : 1;
            const auto multiply = count == kTile ? tile<kTile> : tile<1>;
            multiply(k, x + i * k, u, sums[0]);
            if constexpr (kGate) multiply(k, x + i * k, v, sums[1]);
            for (size_t r = 0; r < count; ++r) {
                float *RESTRICT sum = sums[0] + r * kPanel, *RESTRICT other = sums[1] + r * kPanel;
                for (size_t c = 0; c < kPanel; ++c) sum[c] += offsets[0][c];
                if constexpr (kGate)
                    for (size_t c = 0; c < kPanel; ++c) other[c] += offsets[1][c];
                finish<A, F>(after, sum, other, (i + r) * out + p * kPanel, columns, y);
            }
        }
    }
}

template <int A, Form F>
void linear_as(How how, size_t n, size_t k, size_t rows, const float* x, const float* panels, const float* bias,
               After after, float* y) {
    deal((n + kChunk - 1) / kChunk, threads_for(how, n * k * rows / 32), [=](size_t i) {
        linear_rows<A, F>(i * kChunk, std::min(n, (i + 1) * kChunk), k, rows, x, panels, bias, after, y);
    });
}

template <int A>
void linear(How how, Form form, size_t n, size_t k, size_t rows, const float* x, const float* panels,
            const float* bias, After after, float* y) {
    const auto run = [&](auto f) { f(how, n, k, rows, x, panels, bias, after, y); };
    switch (form) {
        case Form::none: return run(linear_as<A, Form::none>);
        case Form::narrow: return run(linear_as<A, Form::narrow>);
        case Form::wide: return run(linear_as<A, Form::wide>);
        case Form::head: return run(linear_as<A, Form::head>);
        case Form::act: return run(linear_as<A, Form::act>);
        case Form::gate: return run(linear_as<A, Form::gate>);
        case Form::add: return run(linear_as<A, Form::add>);
    }
}

void pack(size_t k, size_t rows, const float* RESTRICT weights, float* RESTRICT panels) {
    for (size_t p = 0; p * kPanel < rows; ++p) {
        const size_t columns = std::min(kPanel, rows - p * kPanel);
        const float* from = weights + p * kPanel * k;
        for (size_t i = 0; i < k; ++i, panels += kPanel)
            for (size_t c = 0; c < kPanel; ++c) panels[c] = c < columns ? from[c * k + i] : 0.0f;
    }
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
