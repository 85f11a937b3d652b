// Instruction sets that the loops are compiled for, and which of them a process uses.
#pragma once

#include <string>

namespace narrowbit {

enum class Isa { scalar, avx2, avx512, neon };

constexpr Isa kEveryIsa[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

const char* name_of(Isa);

// Whether this machine has it.
bool has(Isa);

// Throws std::invalid_argument if the name is none, or one that this machine lacks.
Isa isa(const std::string& name);

// The best that the machine has, or the one that MLIC_CPU names; throws as above.
Isa isa();

}  // namespace narrowbit
