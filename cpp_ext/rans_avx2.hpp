// What AVX-512 takes from AVX2 as it is: eight lanes fill one of its vectors.
#pragma once

#include "rans_loops.hpp"

namespace narrowbit {
namespace avx2 {

uint16_t* encode8(const TableBank& bank, const uint16_t* ids, size_t n, uint32_t* states, uint16_t* word);
const uint8_t* decode8(const TableBank::DecodeSlot* slots, const uint8_t* indexes, int16_t* symbols, size_t n,
                       uint32_t* states, const uint8_t* word, const uint8_t* end);

}  // namespace avx2
}  // namespace narrowbit
