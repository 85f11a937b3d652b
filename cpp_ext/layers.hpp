// The layers of codec.network on CPUs: forward to code pictures, forward and backward to train.
//
// Arrays are float32, channels last: n positions (or batch x height x width) of c channels. Knows no Python.
// Between matrix products each step is one pass over memory; backward it recomputes clipping masks and sums biases on
// the way. (A compiler of graphs sums biases down columns and keeps the masks as bytes: twice as slow.)
//
// Arithmetic: 0 nothing is clipped; 1 values are clipped to the ranges of codec.network; 2 also rounded, half up.
// Gradients pass rounding unchanged and stop where a value was clipped. Rounded numbers are integers times a power of
// two whose sums stay below 2^24 units: float32 holds them exactly, in whatever order they are added.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace narrowbit {

// arithmetic as above; threads: at most so many, 0 for as many as OpenMP would take.
struct How {
    int arithmetic;
    int threads;
};

// What becomes of the result of a matrix product. The first four: nothing, or rounded to a format of codec.network.
// The others follow the arithmetic: act is u * hardsigmoid(u); gate is u * hardsigmoid(v), where the first half of the
// rows gives u, the second v, each in panels of its own; add is wide(residual + wide(u)), and narrow of that if wanted.
enum class Form : int { none, narrow, wide, head, act, gate, add };

struct After {
    const float* residual;
    float* narrow;
};

constexpr size_t kPanel = 16;  // rows of a weight matrix that lie side by side

struct Grid {
    size_t batch, height, width, channels;
    size_t positions() const { return batch * height * width; }
};

// A float in half the memory, as matrix products of bfloat16 want it. Rounds to nearest, ties to even.
struct Half {
    uint16_t bits;
    Half() = default;
    explicit Half(float x) {
        uint32_t u;
        std::memcpy(&u, &x, 4);
        bits = uint16_t((u + 0x7FFF + (u >> 16 & 1)) >> 16);
    }
    operator float() const {
        const uint32_t u = uint32_t(bits) << 16;
        float x;
        std::memcpy(&x, &u, 4);
        return x;
    }
};

// What stands between matrix products when training, one pass over memory each. S: of what they read and give.
template <typename S>
struct Passes {
    // h = narrow(x)
    void (*narrow)(How how, size_t n, const float* x, S* h);
    // h = u * hardsigmoid(v), with u = v = t: t (n, c) -> h (n, c)
    void (*act)(How how, size_t n, size_t c, const S* t, float* h);
    void (*act_back)(How how, size_t n, size_t c, const S* t, const float* dh, S* dt, float* dbias);
    // the same with u and v side by side: uv (n, 2c) -> h (n, c)
    void (*gate)(How how, size_t n, size_t c, const S* uv, S* h);
    void (*gate_back)(How how, size_t n, size_t c, const S* uv, const S* dh, S* duv, float* dbias);
    // y = wide(x + wide(r)), h = narrow(y); h may be null
    void (*add)(How how, size_t n, const float* x, const S* r, float* y, S* h);
    // dy of y, dh of h (may be null) -> dx, dr and its sum over positions
    void (*add_back)(How how, size_t n, size_t c, const float* x, const S* r, const float* dy, const S* dh, float* dx,
                     S* dr, float* dbias);
    // 5x5 with zeros around, y = narrow(conv(x) + bias); weights (25, c)
    void (*depthwise)(How how, Grid grid, const float* x, const float* weights, const float* bias, S* y);
    // dy where y was not clipped (passed, which may be dy), dx, and unless null dweights (25, c) and dbias
    void (*depthwise_back)(How how, Grid grid, const float* x, const float* weights, const S* y, const S* dy,
                           float* passed, float* dx, float* dweights, float* dbias);
};

// One table of functions for each instruction set. All pointers are c-contiguous and do not overlap, except that an
// output may be null where its comment says so. Work is split over OpenMP threads where the compiler has them; the
// result depends on their number only through the order of the sums of bias and tap gradients.
struct Layers {
    const char* name;
    // weights (rows, k) -> panels (ceil(rows / kPanel), k, kPanel), zeros at the end
    void (*pack)(size_t k, size_t rows, const float* weights, float* panels);
    // y (n, rows) = form(x (n, k) times the transposed weights (rows, k), + bias); y (n, rows / 2) for gate. The
    // weights come in panels; bias may be null.
    void (*linear)(How how, Form form, size_t n, size_t k, size_t rows, const float* x, const float* panels,
                   const float* bias, After after, float* y);
    // Linear attention in integers: q (n_queries, heads * d), k and v (n_keys, heads * d), all narrow; table (256) of
    // exp(-i / 16) -> narrow (n_queries, heads * d)
    void (*attention)(How how, size_t heads, size_t d, size_t n_queries, size_t n_keys, const float* q, const float* k,
                      const float* v, const int32_t* table, float* out);
    Passes<float> single;
    Passes<Half> half;
};

// The functions for this machine, or for the instruction set that MLIC_CPU names.
const Layers& layers();

}  // namespace narrowbit
