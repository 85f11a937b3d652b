// Which instruction set this process uses: the best that the machine has, or the one that MLIC_CPU names.
#pragma once

namespace narrowbit {

enum class Isa { scalar, avx2, avx512 };

// Throws std::invalid_argument if MLIC_CPU names none, or one that this machine lacks.
Isa isa();

}  // namespace narrowbit
