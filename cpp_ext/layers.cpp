#include "layers.hpp"

#include "cpu.hpp"

namespace narrowbit {

namespace generic { extern const Layers kLayers; }
#ifdef NARROWBIT_X86
namespace avx2 { extern const Layers kLayers; }
namespace avx512 { extern const Layers kLayers; }
#endif

const Layers& layers() {
    switch (isa()) {
#ifdef NARROWBIT_X86
        case Isa::avx512: return avx512::kLayers;
        case Isa::avx2: return avx2::kLayers;
#endif
        default: return generic::kLayers;
    }
}

}  // namespace narrowbit
