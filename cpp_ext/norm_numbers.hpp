// Numbers of a channel or a row, from its sums. In an unnamed namespace: instruction sets must not share them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace narrowbit {
namespace {

constexpr double kGaussian = 1.2533141373155001;  // sqrt(pi / 2): standard deviation by mean deviation

// 2^k for codes of so many bits, from the largest size, as the bits of a float.
inline float power_of(uint32_t range, int bits) {
    const int exponent = int(range >> 23 & 255) - 126;  // of a significand in 1/2 .. 1
    return range ? std::ldexp(1.0f, std::clamp(bits - exponent, -126, 126)) : 1.0f;
}

// sum / m to the nearest, halves up.
inline int32_t mean_of(int64_t sum, int64_t m) {
    const int64_t twice = 2 * sum + m;
    return int32_t(twice >= 0 ? twice / (2 * m) : -((-twice + 2 * m - 1) / (2 * m)));
}

// By which 8 levels reach up to the largest |d|: 7 bits, so that products with d are exact in float32.
inline float step_of(int32_t peak) {
    const int down = std::ilogb(double(peak) + 1) + 4;
    return std::ldexp(float(int32_t(std::ldexp(8.0, down) / (double(peak) + 1))), -down);
}

inline int32_t nearest(double v) { return int32_t(std::nearbyint(std::clamp(v, -2147483000.0, 2147483000.0))); }

}  // namespace
}  // namespace narrowbit
