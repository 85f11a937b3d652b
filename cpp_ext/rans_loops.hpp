// The loops of rans.cpp that an instruction set replaces. All of them compute the same; the stream does not tell which.
#pragma once

#include "cpu.hpp"
#include "rans.hpp"

namespace narrowbit {

constexpr unsigned kLaneCounts[] = {1, 4, 8, 32};
constexpr size_t kBlock = 4096;  // symbols between visits to the side stream: they stay in L1, and begin at lane 0
constexpr int kEscape = -128;    // marks the escape in a decode slot; ranks up to 254 reach only -127 .. 127

struct RansLoops {
    // Codes one pass backwards, the entries `ids` of its n symbols. `word` points past the free space, which has
    // room for one word per symbol and kMaxLanes more; returns the last word written.
    using Encode = uint16_t* (*)(const TableBank& bank, const uint16_t* ids, size_t n, uint32_t* states,
                                 uint16_t* word);
    // Decodes n symbols beginning at lane 0; escapes stay marked. Returns the next word, null if they ended too early.
    using Decode = const uint8_t* (*)(const TableBank::DecodeSlot* slots, const uint8_t* indexes, int16_t* symbols,
                                      size_t n, uint32_t* states, const uint8_t* word, const uint8_t* end);

    Encode encode[4];  // in the order of kLaneCounts
    Decode decode[4];
    // Bank entries of n symbols. marks: bit j % 32 of word j / 32 is set if symbol j has side bits.
    void (*rank)(const TableBank::Table* tables, const int16_t* symbols, const uint8_t* indexes, size_t n,
                 uint16_t* ids, uint32_t* marks);
    // marks of decoded symbols: escapes, and all of tables from `first_raw` on.
    void (*mark)(const int16_t* symbols, const uint8_t* indexes, uint8_t first_raw, size_t n, uint32_t* marks);
};

const RansLoops& rans_loops(Isa);

}  // namespace narrowbit
