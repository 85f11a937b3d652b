// The loops of norm.hpp, compiled once for each instruction set: plain C++ that the compiler turns into vectors.
#pragma once

#include "norm_batch.hpp"
#include "norm_layer.hpp"

#undef INLINED

namespace narrowbit {
namespace ISA {

extern const Norm kNorm;
const Norm kNorm = {ISA_NAME, sums, deviations, apply, gradient_sums, gradient, layer, layer_gradient};

}  // namespace ISA
}  // namespace narrowbit
