#include "cpu.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace narrowbit {
namespace {

bool has(Isa wanted) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (wanted == Isa::avx2) return avx2;
    if (wanted == Isa::avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#endif
    return wanted == Isa::scalar;
}

Isa choose() {
    const char* asked = std::getenv("MLIC_CPU");
    const std::string name = asked ? asked : "";
    if (name.empty()) return has(Isa::avx512) ? Isa::avx512 : has(Isa::avx2) ? Isa::avx2 : Isa::scalar;
    Isa wanted = Isa::scalar;
    if (name == "avx2")
        wanted = Isa::avx2;
    else if (name == "avx512")
        wanted = Isa::avx512;
    else if (name != "scalar")
        throw std::invalid_argument("MLIC_CPU is " + name + ", not scalar, avx2 or avx512");
    if (!has(wanted)) throw std::invalid_argument("MLIC_CPU asks for " + name + ", which this machine lacks");
    return wanted;
}

}  // namespace

Isa isa() {
    static const Isa chosen = choose();
    return chosen;
}

}  // namespace narrowbit
