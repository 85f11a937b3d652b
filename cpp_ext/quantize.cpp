#include "quantize.hpp"

#include "cpu.hpp"

namespace narrowbit {

namespace generic { extern const Quantize kQuantize; }
#ifdef NARROWBIT_X86
namespace avx2 { extern const Quantize kQuantize; }
namespace avx512 { extern const Quantize kQuantize; }
#endif

const Quantize& quantize() {
    switch (isa()) {
#ifdef NARROWBIT_X86
        case Isa::avx512: return avx512::kQuantize;
        case Isa::avx2: return avx2::kQuantize;
#endif
        default: return generic::kQuantize;
    }
}

}  // namespace narrowbit
