// What works value by value, and attention. Part of layers_kernels.hpp, which says how it is compiled.
#pragma once

#include "layers_common.hpp"

namespace narrowbit {
namespace ISA {
namespace {

template <int A, typename S>
void narrow(How how, size_t n, const float* RESTRICT x, S* RESTRICT h) {
    split(n, threads_for(how, n), [=](size_t begin, size_t end, size_t) {
        for (size_t i = begin; i < end; ++i) h[i] = S(fix<A>(x[i], kNarrow));
    });
}

template <int A, typename S>
void act(How how, size_t n, size_t c, const S* RESTRICT t, float* RESTRICT h) {
    split(n * c, threads_for(how, n * c), [=](size_t begin, size_t end, size_t) {
        for (size_t i = begin; i < end; ++i) {
            const float u = fix<A>(t[i], kNarrow);
            h[i] = fix<A>(u * sigmoid(u), kNarrow);
        }
    });
}

template <int A, typename S>
void act_back(How how, size_t n, size_t c, const S* RESTRICT t, const float* RESTRICT dh, S* RESTRICT dt,
              float* RESTRICT dbias) {
    split_with_sums(n, threads_for(how, n * c), c, dbias, [=](size_t begin, size_t end, float* RESTRICT sums) {
        for (size_t i = begin; i < end; ++i)
            for (size_t k = 0; k < c; ++k) {
                const float raw = t[i * c + k], u = fix<A>(raw, kNarrow), s = sigmoid(u);
                const float d = dh[i * c + k] * passes<A>(u * s, kNarrow) * (s + u * sigmoid_slope(u)) *
                                passes<A>(raw, kNarrow);
                dt[i * c + k] = S(d);
                sums[k] += d;
            }
    });
}

template <int A, typename S>
void gate(How how, size_t n, size_t c, const S* RESTRICT uv, S* RESTRICT h) {
    split(n, threads_for(how, n * c), [=](size_t begin, size_t end, size_t) {
        for (size_t i = begin; i < end; ++i) {
            const S *RESTRICT u = uv + 2 * i * c, *RESTRICT v = u + c;
            for (size_t k = 0; k < c; ++k)
                h[i * c + k] = S(fix<A>(fix<A>(u[k], kNarrow) * sigmoid(fix<A>(v[k], kNarrow)), kNarrow));
        }
    });
}

template <int A, typename S>
void gate_back(How how, size_t n, size_t c, const S* RESTRICT uv, const S* RESTRICT dh, S* RESTRICT duv,
               float* RESTRICT dbias) {
    split_with_sums(n, threads_for(how, n * c), 2 * c, dbias, [=](size_t begin, size_t end, float* RESTRICT sums) {
        for (size_t i = begin; i < end; ++i) {
            const S *RESTRICT u = uv + 2 * i * c, *RESTRICT v = u + c, *RESTRICT d = dh + i * c;
            S *RESTRICT du = duv + 2 * i * c, *RESTRICT dv = du + c;
            float* RESTRICT sv = sums + c;
            for (size_t k = 0; k < c; ++k) {
                const float a = fix<A>(u[k], kNarrow), b = fix<A>(v[k], kNarrow), s = sigmoid(b);
                const float g = d[k] * passes<A>(a * s, kNarrow);
                const float gu = g * s * passes<A>(u[k], kNarrow);
                const float gv = g * a * sigmoid_slope(b) * passes<A>(v[k], kNarrow);
                du[k] = S(gu);
                dv[k] = S(gv);
                sums[k] += gu;
                sv[k] += gv;
            }
        }
    });
}

template <int A, typename S>
void add(How how, size_t n, const float* RESTRICT x, const S* RESTRICT r, float* RESTRICT y, S* RESTRICT h) {
    split(n, threads_for(how, n), [=](size_t begin, size_t end, size_t) {
        if (h)
            for (size_t i = begin; i < end; ++i) {
                y[i] = fix<A>(x[i] + fix<A>(r[i], kWide), kWide);
                h[i] = S(fix<A>(y[i], kNarrow));
            }
        else
            for (size_t i = begin; i < end; ++i) y[i] = fix<A>(x[i] + fix<A>(r[i], kWide), kWide);
    });
}

template <int A, bool kBoth, typename S>
inline void add_back_rows(size_t begin, size_t end, size_t c, const float* RESTRICT x, const S* RESTRICT r,
                          const float* RESTRICT dy, const S* RESTRICT dh, float* RESTRICT dx, S* RESTRICT dr,
                          float* RESTRICT sums) {
    for (size_t j = begin; j < end; ++j)
        for (size_t k = 0; k < c; ++k) {
            const size_t i = j * c + k;
            const float raw = x[i] + fix<A>(r[i], kWide);
            float g = dy[i];
            if constexpr (kBoth) g += dh[i] * passes<A>(fix<A>(raw, kWide), kNarrow);
            g *= passes<A>(raw, kWide);
            dx[i] = g;
            g *= passes<A>(r[i], kWide);
            dr[i] = S(g);
            sums[k] += g;
        }
}

template <int A, typename S>
void add_back(How how, size_t n, size_t c, const float* x, const S* r, const float* dy, const S* dh, float* dx, S* dr,
              float* dbias) {
    split_with_sums(n, threads_for(how, n * c), c, dbias, [=](size_t begin, size_t end, float* sums) {
        if (dh)
            add_back_rows<A, true>(begin, end, c, x, r, dy, dh, dx, dr, sums);
        else
            add_back_rows<A, false>(begin, end, c, x, r, dy, dh, dx, dr, sums);
    });
}

// Softmax by a table; codec.ops.numpy defines it. Everything is an integer here.
void attention(How how, size_t heads, size_t d, size_t n_queries, size_t n_keys, const float* q, const float* k,
               const float* v, const int32_t* table, float* out) {
    const size_t c = heads * d;
    const auto steps = [](float high, float low) { return int32_t((high - low) * 16.0f); };
    split(heads, threads_for(how, (n_queries + n_keys) * c * d), [=](size_t begin, size_t end, size_t) {
        const Floats peak(d);
        int64_t* const context = new int64_t[d * d + d]();  // (d of k, d of v), and the sums of weights
        int64_t* const total = context + d * d;
        int32_t* const p = new int32_t[d];
        for (size_t head = begin; head < end; ++head) {
            const size_t at = head * d;
            std::fill_n(context, d * d + d, 0);
            for (size_t i = 0; i < d; ++i) peak.data[i] = k[at + i];
            for (size_t n = 1; n < n_keys; ++n)
                for (size_t i = 0; i < d; ++i) peak.data[i] = std::max(peak.data[i], k[n * c + at + i]);
            for (size_t n = 0; n < n_keys; ++n)
                for (size_t i = 0; i < d; ++i) {
                    const int64_t e = table[steps(peak.data[i], k[n * c + at + i])];
                    total[i] += e;
                    for (size_t j = 0; j < d; ++j) context[i * d + j] += e * int32_t(v[n * c + at + j] * 16.0f);
                }
            for (size_t i = 0; i < d; ++i)
                for (size_t j = 0; j < d; ++j) {
                    // floor((2^9 a + s) / (2 s)): a / s with 8 fractional bits, rounded half up
                    const int64_t a = context[i * d + j] * 512 + total[i], b = 2 * total[i];
                    context[i * d + j] = a >= 0 ? a / b : -((b - 1 - a) / b);
                }
            for (size_t n = 0; n < n_queries; ++n) {
                const float* query = q + n * c + at;
                float high = query[0];
                for (size_t i = 1; i < d; ++i) high = std::max(high, query[i]);
                int64_t sum = 0;
                for (size_t i = 0; i < d; ++i) sum += p[i] = table[steps(high, query[i])];
                for (size_t i = 0; i < d; ++i) p[i] = int32_t((int64_t(p[i]) * 8192 + sum) / (2 * sum));
                for (size_t j = 0; j < d; ++j) {
                    int64_t value = int64_t(1) << 19;
                    for (size_t i = 0; i < d; ++i) value += context[i * d + j] * p[i];
                    value >>= 20;
                    out[n * c + at + j] = float(std::min<int64_t>(std::max<int64_t>(value, -128), 127)) / 16.0f;
                }
            }
        }
        delete[] p;
        delete[] context;
    });
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
