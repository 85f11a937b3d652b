// Convolutions of integers, forward and backward, from and to real numbers: each picture is quantized, multiplied and
// written while it is near. Pictures are channels last. Knows no Python.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm.hpp"
#include "quantize.hpp"

namespace narrowbit {

// outputs and inputs are of all groups; the picture has `padding` positions of zeros on each side.
struct Shape {
    size_t images, height, width, inputs, outputs, groups, ky, kx, stride, padding, rows, columns;
};

struct Reals {
    Real type;
    void* data;
};

// Bytes that the codes of one picture take once packed to so many bits (4, 6 or 8).
size_t saved_bytes(const Shape& s, unsigned bits);

// What sums are multiplied by: `all`, or where `rows` is not null a factor of each position and one of each output.
struct Scales {
    float all;
    const float *rows = nullptr, *outputs = nullptr;
};

// y = x * weights: x (images, height, width, inputs); weights codes (outputs, ky, kx, inputs / groups); y (images,
// rows, columns, outputs) is the sums scaled. saved keeps the codes of x for the way back (images, saved_bytes).
void convolve_forward(int threads, const Shape& s, Reals x, Rounding how, unsigned bits, const int8_t* weights,
                      Scales scales, Reals y, uint8_t* saved);

// dy (images, rows, columns, outputs) -> dx as x, sums times the picture's scale (or the position's, where for_dx has
// factors of rows: of 1x1 convolutions), where dx has data; and the sums dw
// (outputs, ky, kx, inputs / groups) where that is not null. Codes of dy are made for each of these by itself, unless
// for_dw is null: then for_dx serves both. `lowest` and `bits`: of the codes of x.
void convolve_backward(int threads, const Shape& s, Reals dy, Rounding for_dx, const Rounding* for_dw, unsigned bits,
                       int lowest, const uint8_t* saved, const int8_t* weights, const float* scales, Reals dx,
                       int64_t* dw);

// Positions of a picture whose gradient of the weights fits the sums.
constexpr size_t kMostPositions = 2147483647u / (127 * 127);

}  // namespace narrowbit
