// float32 and bfloat16 as the loops read and write them. Each file that includes this has defined ISA, a namespace.
#pragma once

#include <cstring>

#include "quantize.hpp"

namespace narrowbit {
namespace ISA {
namespace {

using bf16 = uint16_t;  // the upper half of a float

inline float load(const float* x) { return *x; }

inline float load(const bf16* x) {
    const uint32_t bits = uint32_t(*x) << 16;
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
}

inline void store(float v, float* x) { *x = v; }

// To the nearest, ties to even; not for NaN.
inline void store(float v, bf16* x) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    *x = bf16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Ties to even, for sizes below 2^22: what is added leaves no bits for a fraction.
inline int32_t rounded(float v) {
    const float sum = v + 12582912.0f;
    int32_t bits;
    std::memcpy(&bits, &sum, 4);
    return bits - 0x4B400000;
}

// f(T) with the type of the elements of x.
template <typename F>
void with_type(Real type, F f) {
    if (type == Real::f32)
        f(float());
    else
        f(bf16());
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
