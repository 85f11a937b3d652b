// L1 normalization of batches and layers in integers, forward and backward (Wu et al. 2018; the widths are our choice).
//
// Real numbers x of a channel or row become codes q = rint(x * 2^k), |q| <= 2^14; with mu their mean, to the nearest
// (of a batch: the mean of codes that are as fine or finer, see kLines), a deviation is d = q - mu, of 16 bits, and the
// scale is K * mean |d|, K = sqrt(pi / 2). What is kept for the way back is a sign and three bits for each number: the
// gradient needs sizes only in a sum. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "conv.hpp"

namespace narrowbit {

// Of q and of the codes of gradients, without their signs.
constexpr int kCodeBits = 14, kGradientBits = 14;

// What the way back needs of each channel: 1 / scale for d and for x, the lowest level, such that the levels' sum is
// that of |d|, the mean sign, and what share of the scale is not eps.
struct ChannelStatistics {
    double inverse, inverse_x, lowest, sign, share;
};
constexpr size_t kStatistics = 5;

constexpr size_t kLine = 64;

// Bytes of what is kept of a line.
constexpr size_t kept_line(size_t length) { return (length + 1) / 2; }

// The passes over `lines` of `length` numbers with parameters for each of their places; a line may be several rows of
// few channels. None writes codes: to make them again from x is cheaper than to wait for memory.
// Where a range is not known yet, a place's codes have one power of two for every kLines lines, by the largest |x|
// there, a float's bits; of those ranges and sums there are `length` for each kLines lines.
constexpr size_t kLines = 256;  // whose sums of levels fit 16 bits, and of products 32
struct Norm {
    const char* name;
    void (*sums)(Real type, size_t lines, size_t length, const void* x, uint32_t* ranges, int32_t* sums);
    // Sums of |d|, and the largest; both go on from what they hold.
    void (*deviations)(Real type, size_t lines, size_t length, const void* x, const float* power, const int16_t* mu,
                       int64_t* sums, int32_t* largest);
    // z = ((d * up * factor + 2^14 >> 15) + offset) * unit, where up makes of the largest |d| a number of 15 bits; kept
    // is the exponent of d * up less 7, 0..7, and 8 where d >= 0. Of every kLine places, or the last ones, the first
    // half is in the lower halves of bytes, the second in the upper. negatives counts d < 0, sizes sums 2^exponent.
    struct Affine {
        const float* power;
        const int16_t *mu, *up, *factor, *offset;
        const float* unit;
    };
    void (*apply)(Real type, size_t lines, size_t length, const void* x, Affine how, void* z, uint8_t* kept,
                  int64_t* negatives, int64_t* sizes);
    // Of codes g of the gradient, and of g * +-2^exponent as kept.
    void (*gradient_sums)(Real type, size_t lines, size_t length, const void* dz, const uint8_t* kept, uint32_t* ranges,
                          int32_t* sums, int32_t* products);
    // dx = (g * 256 - below or above) * factor: below where d < 0.
    struct Slope {
        const float* power;
        const int32_t *below, *above;
        const float* factor;
    };
    void (*gradient)(Real type, size_t lines, size_t length, const void* dz, Slope how, const uint8_t* kept, void* dx);
    // Layer normalization: every row by itself, all at once. statistics, kept: of each row; sums go on from what they
    // hold. False where a row is not finite.
    bool (*layer)(Real type, size_t rows, size_t length, const void* x, const float* gamma, const float* beta,
                  double eps, void* z, uint8_t* kept, ChannelStatistics* statistics);
    bool (*layer_gradient)(Real type, size_t rows, size_t length, const void* dz, const float* gamma,
                           const uint8_t* kept, const ChannelStatistics* statistics, void* dx, float* dgamma,
                           float* dbeta);
};

// For this machine, or for the instruction set that MLIC_CPU names.
const Norm& norm();

size_t kept_bytes(size_t rows, size_t channels);

// x (rows, channels) -> z = x normalized * gamma + beta; mean and scale of x, K times the mean deviation, for running
// statistics. False where x is not finite.
bool normalize(int threads, size_t rows, size_t channels, Reals x, const float* gamma, const float* beta, double eps,
               Reals z, uint8_t* kept, ChannelStatistics* statistics, float* mean, float* scale);

// dz -> dx, and the gradients of gamma and beta. False where dz is not finite.
bool normalize_backward(int threads, size_t rows, size_t channels, Reals dz, const float* gamma, const uint8_t* kept,
                        const ChannelStatistics* statistics, Reals dx, float* dgamma, float* dbeta);

// The same for rows of `length` numbers, at most kLongestRow, each with statistics of its own; kept has
// kept_line(length) bytes a row. Codes of y have 15 bits, gamma and beta are applied to their real values; the sums of
// dgamma and dbeta are float32, in a fixed order.
constexpr size_t kLongestRow = size_t(1) << 16;
bool normalize_layer(int threads, size_t rows, size_t length, Reals x, const float* gamma, const float* beta,
                     double eps, Reals z, uint8_t* kept, ChannelStatistics* statistics);
bool normalize_layer_backward(int threads, size_t rows, size_t length, Reals dz, const float* gamma,
                              const uint8_t* kept, const ChannelStatistics* statistics, Reals dx, float* dgamma,
                              float* dbeta);

}  // namespace narrowbit
