// Numbers of a channel or a row, from its sums. In an unnamed namespace: instruction sets must not share them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "norm.hpp"

namespace narrowbit {
namespace {

constexpr double kGaussian = 1.2533141373155001;  // sqrt(pi / 2): standard deviation by mean deviation

inline int32_t nearest(double v) { return int32_t(std::nearbyint(std::clamp(v, -2147483000.0, 2147483000.0))); }

// 2^n, -1022 <= n <= 1023, and the n of the largest 2^n in a positive v: what std::ldexp and std::ilogb call a library
// for.
inline double two_to(int n) {
    const uint64_t bits = uint64_t(n + 1023) << 52;
    double v;
    std::memcpy(&v, &bits, 8);
    return v;
}

inline int exponent_of(double v) {
    uint64_t bits;
    std::memcpy(&bits, &v, 8);
    return int(bits >> 52 & 2047) - 1023;
}

// 2^k for codes of so many bits, from the largest size, as the bits of a float.
inline float power_of(uint32_t range, int bits) {
    const int exponent = int(range >> 23 & 255) - 126;  // of a significand in 1/2 .. 1
    return range ? float(two_to(std::clamp(bits - exponent, -126, 126))) : 1.0f;
}

// Sizes from 2^117 on, as bits of floats: zero_of their power is infinite.
constexpr uint32_t kTooLarge = 0x7A000000u;

// The sum of this and x has x * power, to the nearest, in its lower bits.
inline float zero_of(float power) { return 12582912.0f / power; }

// sum / m to the nearest, halves up.
inline int32_t mean_of(int64_t sum, int64_t m) {
    return int32_t(std::floor(double(2 * sum + m) / double(2 * m)));
}

// size: K * mean |d|; inverse: 1 / sqrt(size^2 + eps), as of L2 norms; up: what makes of the largest |d| a number of 15
// bits, as a power of two.
struct Scale {
    int64_t sum;
    double size, inverse;
    int32_t peak;
    int up;

    // sizes: the sum of the levels, in lowest ones.
    ChannelStatistics statistics(int64_t negatives, int64_t sizes, int64_t m, float power) const {
        return {inverse, inverse * double(power), double(sum) / double(sizes), 1 - 2 * double(negatives) / double(m),
                size * inverse};
    }

    // What (d * 2^up) is multiplied by and divided by 2^15, for d * slope.
    int16_t factor(double slope) const { return int16_t(std::clamp(nearest(slope * two_to(15 - up)), -32767, 32767)); }
};

inline Scale scale_of(int64_t sum, int64_t m, int32_t peak, float power, double eps) {
    const double size = kGaussian * (double(sum) / double(m));
    const double square = size * size + eps * (double(power) * double(power));
    return {sum, size, square > 0 ? 1 / std::sqrt(square) : 0, peak, peak ? 14 - exponent_of(peak) : 0};
}

// What is taken from 256 g: the mean of 256 g, and K * mean (g y) * 256 * (sign - mean sign) * size * inverse.
struct Tilt {
    double along;  // the sum of g * y
    int32_t mean, slope;

    Tilt(double sum, double product, double m, const ChannelStatistics& s) : along(product * s.lowest * s.inverse) {
        const double tilt = 256 * kGaussian * along / m * s.share;
        slope = nearest(tilt), mean = nearest(256 * sum / m - tilt * s.sign);
    }

    // For deviations below 0 and others, modulo 2^32.
    int32_t below() const { return int32_t(uint32_t(mean) - uint32_t(slope)); }
    int32_t above() const { return int32_t(uint32_t(mean) + uint32_t(slope)); }
};

}  // namespace
}  // namespace narrowbit
