// Of norm_vectors.hpp, for any machine: what the others compute.
#pragma once

#include <algorithm>
#include <numeric>

#include "norm.hpp"
#include "reals.hpp"

namespace narrowbit {
namespace ISA {
namespace {

template <typename T>
struct Lanes {
    T at[kLanes] = {};
};
using Shorts = Lanes<int16_t>;
using Ints = Lanes<int32_t>;
using Floats = Lanes<float>;

template <typename T, typename F>
inline Lanes<T> each(F f) {
    Lanes<T> made;
    for (size_t k = 0; k < kLanes; ++k) made.at[k] = T(f(k));
    return made;
}

template <typename T>
inline Lanes<T> whole(const T* p) {
    return each<T>([=](size_t k) { return p[k]; });
}
inline Floats whole(const bf16* p) {
    return each<float>([=](size_t k) { return load(p + k); });
}
inline void put_whole(const Shorts& a, int16_t* p) { std::copy_n(a.at, kLanes, p); }
template <typename T>
inline void put_whole(const Floats& a, T* p) {
    for (size_t k = 0; k < kLanes; ++k) store(a.at[k], p + k);
}
template <typename T>
inline Lanes<T> same(T v) {
    return each<T>([=](size_t) { return v; });
}
template <typename T>
inline Lanes<T> operator*(const Lanes<T>& a, const Lanes<T>& b) {
    return each<T>([&](size_t k) { return a.at[k] * b.at[k]; });
}
template <typename T>
inline Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) {
    return each<T>([&](size_t k) { return a.at[k] + b.at[k]; });
}
inline Shorts codes_of(const Floats& a, const Floats& zero) {
    const Floats sum = a + zero;
    Ints bits;
    std::memcpy(bits.at, sum.at, sizeof bits.at);
    return each<int16_t>([&](size_t k) { return bits.at[k]; });
}
template <typename T>
inline Shorts codes_of(const T* p, const Floats& zero) {
    return codes_of(whole(p), zero);
}
constexpr size_t kApart = 1;
inline Ints wider(const Shorts& a) {
    return each<int32_t>([&](size_t k) { return a.at[k]; });
}
inline Floats floats(const Ints& a) {
    return each<float>([&](size_t k) { return a.at[k]; });
}
inline Shorts less(const Shorts& a, const Shorts& b) {
    return each<int16_t>([&](size_t k) { return std::clamp(a.at[k] - b.at[k], -32767, 32767); });
}
inline Shorts part(const Shorts& a, const Shorts& b) {
    return each<int16_t>([&](size_t k) { return (a.at[k] * b.at[k] + 0x4000) >> 15; });
}
inline Shorts size_of(const Shorts& a) {
    return each<int16_t>([&](size_t k) { return a.at[k] < 0 ? -a.at[k] : a.at[k]; });
}
inline Shorts larger(const Shorts& a, const Shorts& b) {
    return each<int16_t>([&](size_t k) { return std::max(a.at[k], b.at[k]); });
}
inline Shorts one_below(const Shorts& a) {
    return each<int16_t>([&](size_t k) { return a.at[k] < 0; });
}
struct Levels {
    Shorts octaves[2], nibbles[2];

    Levels(const Shorts& a, const Shorts& b) {
        const Shorts sizes[2] = {size_of(a), size_of(b)};
        for (int v = 0; v < 2; ++v) {
            for (int shift = 8; shift < 15; ++shift) {
                const auto step = int16_t(1 << shift);
                for (size_t k = 0; k < kLanes; ++k)
                    octaves[v].at[k] = int16_t(octaves[v].at[k] + (sizes[v].at[k] >= step));
            }
            const Shorts& signs = v ? b : a;
            nibbles[v] = each<int16_t>([&](size_t k) { return octaves[v].at[k] | (~(signs.at[k] >> 15) & 8); });
        }
    }

    template <int kSecond>
    Shorts sizes() const {
        return each<int16_t>([&](size_t k) { return 1 << octaves[kSecond].at[k]; });
    }

    void put_whole(uint8_t* p) const {
        for (size_t k = 0; k < kLanes; ++k) p[k] = uint8_t(nibbles[0].at[k] | nibbles[1].at[k] << 4);
    }
};
struct LevelSums {
    int64_t minus = 0, sum = 0;
    void add(const Levels& levels) {
        for (size_t k = 0; k < 2 * kLanes; ++k) {
            minus += levels.nibbles[k / kLanes].at[k % kLanes] < 8;
            sum += int64_t(1) << levels.octaves[k / kLanes].at[k % kLanes];
        }
    }
    int64_t sizes() const { return sum; }
};
inline Shorts levels(const Shorts& nibbles) {
    return each<int16_t>([&](size_t k) {
        const int size = 1 << (nibbles.at[k] & 7);
        return nibbles.at[k] < 8 ? -size : size;
    });
}
struct Pair {
    Shorts low, high;
};
inline Pair whole(const uint8_t* p) {
    return {each<int16_t>([=](size_t k) { return p[k] & 15; }), each<int16_t>([=](size_t k) { return p[k] >> 4; })};
}
inline Ints off(const Shorts& a, const Shorts& nibbles, const Ints& minus, const Ints& plus) {
    return each<int32_t>(
        [&](size_t k) { return uint32_t(a.at[k]) * 256 - uint32_t(nibbles.at[k] < 8 ? minus.at[k] : plus.at[k]); });
}
struct Sums {
    int32_t at[kLanes] = {};
    void add(const Shorts& a, const Shorts& b) {
        for (size_t k = 0; k < kLanes; ++k) at[k] += a.at[k] * b.at[k];
    }
    void to(int32_t* sums) const { std::copy_n(at, kLanes, sums); }
};
struct Sum : Sums {
    int64_t all() const { return std::accumulate(at, at + kLanes, int64_t(0)); }
};

inline int16_t largest_of(const Shorts& sizes) { return *std::max_element(sizes.at, sizes.at + kLanes); }

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
