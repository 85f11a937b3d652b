// The loops of layers.hpp, compiled once for each instruction set by layers_*.cpp: plain C++ that the compiler turns
// into vectors. ISA names the namespace. Nothing here may leave a function behind that a linker would share between
// the instruction sets: hence no containers of the standard library.
#include "layers_depthwise.hpp"
#include "layers_pointwise.hpp"
#include "layers_product.hpp"

namespace narrowbit {
namespace ISA {

// Arithmetic as an argument -> as a template's.
#define BY_ARITHMETIC(f)                              \
    [](How how, auto... args) {                       \
        how.arithmetic == 0   ? f<0>(how, args...)    \
        : how.arithmetic == 1 ? f<1>(how, args...)    \
                              : f<2>(how, args...);   \
    }

template <typename S>
constexpr Passes<S> kPasses{
    BY_ARITHMETIC(narrow),
    BY_ARITHMETIC(act),
    BY_ARITHMETIC(act_back),
    BY_ARITHMETIC(gate),
    BY_ARITHMETIC(gate_back),
    BY_ARITHMETIC(add),
    BY_ARITHMETIC(add_back),
    BY_ARITHMETIC(depthwise),
    BY_ARITHMETIC(depthwise_back),
};

extern const Layers kLayers;
const Layers kLayers = {
    ISA_NAME,
    pack,
    BY_ARITHMETIC(linear),
    attention,
    kPasses<float>,
    kPasses<Half>,
};

}  // namespace ISA
}  // namespace narrowbit
