#define ISA scalar
#include "rans_steps.hpp"

namespace narrowbit {
namespace scalar {
extern const RansLoops kRansLoops;
const RansLoops kRansLoops = {
    {encode_steps<1>, encode_steps<4>, encode_steps<8>, encode_steps<32>},
    {decode_steps<1>, decode_steps<4>, decode_steps<8>, decode_steps<32>},
    rank_steps,
    mark_steps,
};

}  // namespace scalar
}  // namespace narrowbit
