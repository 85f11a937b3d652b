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

// To the nearest, ties away from 0; not for NaN.
inline void store(float v, bf16* x) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    *x = bf16((bits + 0x8000) >> 16);
}

constexpr float kRawZero = 12582912.0f;  // whose bits are kRaw

// v to the nearest, ties to even, for sizes below 2^22, plus kRaw: what is added leaves no bits for a fraction.
inline uint32_t raw(float v) {
    const float sum = v + kRawZero;
    uint32_t bits;
    std::memcpy(&bits, &sum, 4);
    return bits;
}

inline int32_t rounded(float v) { return int32_t(raw(v) - kRaw); }

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
