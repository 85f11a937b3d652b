#include "cpu.hpp"

#include <cstdlib>
#include <stdexcept>

namespace narrowbit {
namespace {

Isa choose() {
    const char* asked = std::getenv("MLIC_CPU");
    if (asked && *asked) try {
            return isa(std::string(asked));
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(std::string("MLIC_CPU: ") + error.what());
        }
    for (const Isa best : {Isa::avx512, Isa::avx2, Isa::neon})
        if (has(best)) return best;
    return Isa::scalar;
}

}  // namespace

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::neon: return "neon";
        default: return "scalar";
    }
}

bool has(Isa wanted) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (wanted == Isa::avx2) return avx2;
    if (wanted == Isa::avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#elif defined(__aarch64__)
    if (wanted == Isa::neon) return true;  // part of every 64-bit ARM
#endif
    return wanted == Isa::scalar;
}

Isa isa(const std::string& name) {
    for (const Isa known : kEveryIsa) {
        if (name != name_of(known)) continue;
        if (!has(known)) throw std::invalid_argument("this machine lacks " + name);
        return known;
    }
    throw std::invalid_argument(name + " is not scalar, avx2, avx512 or neon");
}

Isa isa() {
    static const Isa chosen = choose();
    return chosen;
}

}  // namespace narrowbit
