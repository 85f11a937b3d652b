#define ISA scalar
#include "rans_steps.hpp"

namespace narrowbit {
namespace scalar {
namespace {

void rank(const TableBank::Table* tables, const int16_t* symbols, const uint8_t* indexes, size_t n, uint16_t* ids,
          uint32_t* marks) {
    rank_steps(tables, symbols, indexes, n, ids, marks);
}

void mark(const int16_t* symbols, const uint8_t* indexes, uint8_t first_raw, size_t n, uint32_t* marks) {
    mark_steps(symbols, indexes, first_raw, n, marks);
}

}  // namespace

extern const RansLoops kRansLoops;
const RansLoops kRansLoops = {
    {encode_steps<1>, encode_steps<4>, encode_steps<8>, encode_steps<32>},
    {decode_steps<1>, decode_steps<4>, decode_steps<8>, decode_steps<32>},
    rank,
    mark,
};

}  // namespace scalar
}  // namespace narrowbit
