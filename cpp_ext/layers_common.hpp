// Number formats, threads and vectors of the loops. Part of layers_kernels.hpp, which says how it is compiled.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "layers.hpp"

#define RESTRICT __restrict
#ifdef __GNUC__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE
#endif

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kBlock = 32;  // channels that a depthwise convolution holds in registers

// A number format of codec.network: range and fractional bits.
struct Format {
    float low, high, one;
};
constexpr Format kNarrow{-8.0f, 127.0f / 16, 16.0f};
constexpr Format kWide{-128.0f, 32767.0f / 256, 256.0f};
constexpr Format kHead{-8.0f, 32767.0f / 4096, 4096.0f};

template <int A>
inline float fix(float x, Format f) {
    if constexpr (A >= 1) x = std::min(std::max(x, f.low), f.high);
    if constexpr (A >= 2) x = std::floor(x * f.one + 0.5f) / f.one;
    return x;
}

// What a gradient is multiplied by where x was fixed.
template <int A>
inline float passes(float x, Format f) {
    if constexpr (A == 0) return 1.0f;
    return (x > f.low) & (x < f.high) ? 1.0f : 0.0f;
}

inline float sigmoid(float v) { return std::min(std::max(v, -4.0f), 4.0f) * 0.125f + 0.5f; }
inline float sigmoid_slope(float v) { return (v > -4.0f) & (v < 4.0f) ? 0.125f : 0.0f; }

// Zeroed memory.
struct Floats {
    explicit Floats(size_t n) : data(new float[n]()) {}
    ~Floats() { delete[] data; }
    Floats(const Floats&) = delete;
    Floats& operator=(const Floats&) = delete;
    float* const data;
};

// Threads that so much work is worth, in elements touched.
int threads_for(How how, size_t elements) {
#ifdef _OPENMP
    return elements < 16384 ? 1 : how.threads > 0 ? how.threads : omp_get_max_threads();
#else
    (void)how, (void)elements;
    return 1;
#endif
}

// work(begin, end, thread) over 0..n in contiguous pieces.
template <typename Work>
void split(size_t n, [[maybe_unused]] int threads, Work work) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            const auto t = size_t(omp_get_thread_num()), all = size_t(omp_get_num_threads());
            work(n * t / all, n * (t + 1) / all, t);
        }
        return;
    }
#endif
    work(0, n, 0);
}

// work(i) for each of n pieces, to whichever thread is free: on a shared machine one core is often slower than another.
template <typename Work>
void deal(size_t n, [[maybe_unused]] int threads, Work work) {
#ifdef _OPENMP
    if (threads > 1 && n > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (size_t i = 0; i < n; ++i) work(i);
        return;
    }
#endif
    for (size_t i = 0; i < n; ++i) work(i);
}

// As split, for loops that also add to sums (size): each thread has its own, and `total` gets their sum.
template <typename Work>
void split_with_sums(size_t n, int threads, size_t size, float* total, Work work) {
    const Floats sums(size * size_t(threads));
    split(n, threads, [&](size_t begin, size_t end, size_t t) { work(begin, end, sums.data + t * size); });
    for (size_t i = 0; i < size; ++i) {
        total[i] = 0.0f;
        for (size_t t = 0; t < size_t(threads); ++t) total[i] += sums.data[t * size + i];
    }
}

// kTile positions at a time fill the registers with their sums: kTile * kPanel floats, two panel vectors, a broadcast.
#if defined(__AVX512F__)
constexpr size_t kTile = 12, kLanes = 16;
#elif defined(__AVX2__)
constexpr size_t kTile = 6, kLanes = 8;
#else
constexpr size_t kTile = 3, kLanes = 4;
#endif
constexpr size_t kVectors = kPanel / kLanes;
#ifdef __GNUC__
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
#else
struct Vector {
    float lane[kLanes];
    Vector& operator+=(const Vector& v) {
        for (size_t i = 0; i < kLanes; ++i) lane[i] += v.lane[i];
        return *this;
    }
    friend Vector operator*(Vector a, const Vector& b) {
        for (size_t i = 0; i < kLanes; ++i) a.lane[i] *= b.lane[i];
        return a;
    }
    friend Vector operator*(float a, Vector v) {
        for (size_t i = 0; i < kLanes; ++i) v.lane[i] *= a;
        return v;
    }
};
#endif

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
