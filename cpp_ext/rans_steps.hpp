// One symbol at a time: the loops of a machine without vectors, and what vectors leave over. ISA names the namespace,
// so that each instruction set has its own copy, compiled for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rans_loops.hpp"

namespace narrowbit {
namespace ISA {
namespace {

inline uint32_t load16(const uint8_t* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8; }

inline void encode_step(uint32_t& x, const TableBank::EncodeEntry& entry, uint16_t*& word) {
    // Branch-free: the word is always written, and kept only if the state would overflow.
    const bool full = (x >> (32 - kProbBits)) >= entry.frequency;
    word[-1] = uint16_t(x);
    word -= full;
    x = full ? x >> 16 : x;
    const auto quotient = uint32_t((uint64_t(x) * entry.reciprocal + entry.addend) >> entry.shift);
    x += entry.start + quotient * (kProbTotal - entry.frequency);
}

template <unsigned kLanes>
uint16_t* encode_steps(const TableBank& bank, const uint16_t* ids, size_t n, uint32_t* states, uint16_t* word) {
    const TableBank::EncodeEntry* const entries = bank.entries();
    uint32_t x[kLanes];
    for (unsigned lane = 0; lane < kLanes; ++lane) x[lane] = states[lane];
    while (n % kLanes) {
        --n;
        encode_step(x[n % kLanes], entries[ids[n]], word);
    }
    for (; n; n -= kLanes)
        for (unsigned lane = kLanes; lane-- > 0;) encode_step(x[lane], entries[ids[n - kLanes + lane]], word);
    for (unsigned lane = 0; lane < kLanes; ++lane) states[lane] = x[lane];
    return word;
}

template <unsigned kLanes>
inline int16_t decode_step(uint32_t& x, const TableBank::DecodeSlot* table) {
    const uint32_t low = x & (kProbTotal - 1);
    uint32_t slot;
    if constexpr (kLanes == 1) {
        // One lane is one chain of dependent look-ups. Guessing the first rank, which is most symbols, breaks it:
        // its slot is known before the state is. Half as fast again, where more lanes would only lose by it.
        slot = table[0] | low;
        if (low > (slot >> 12 & 0xFFF)) slot = table[low];
    } else {
        slot = table[low];
    }
    x = ((slot >> 12 & 0xFFF) + 1) * (x >> kProbBits) + (slot & 0xFFF);
    return int16_t(int32_t(slot) >> 24);
}

template <unsigned kLanes>
const uint8_t* decode_steps(const TableBank::DecodeSlot* slots, const uint8_t* indexes, int16_t* symbols, size_t n,
                            uint32_t* states, const uint8_t* word, const uint8_t* end) {
    constexpr size_t kGroup = kLanes < 8 ? 8 : kLanes;
    uint32_t x[kLanes];
    for (unsigned lane = 0; lane < kLanes; ++lane) x[lane] = states[lane];
    size_t j = 0;
    // While there are words for a whole group no check is needed, and renormalisation is free of branches.
    for (; n - j >= kGroup && size_t(end - word) >= 2 * kGroup; j += kGroup) {
        for (size_t i = 0; i < kGroup; ++i) {
            uint32_t& state = x[i % kLanes];
            symbols[j + i] = decode_step<kLanes>(state, slots + (size_t(indexes[j + i]) << kProbBits));
            const uint32_t refilled = state << 16 | load16(word);
            const bool low = state < kStateLow;
            state = low ? refilled : state;
            word += size_t(low) * 2;
        }
    }
    for (; j < n; ++j) {
        uint32_t& state = x[j % kLanes];
        symbols[j] = decode_step<kLanes>(state, slots + (size_t(indexes[j]) << kProbBits));
        if (state < kStateLow) {
            if (word == end) return nullptr;
            state = state << 16 | load16(word);
            word += 2;
        }
    }
    for (unsigned lane = 0; lane < kLanes; ++lane) states[lane] = x[lane];
    return word;
}

// first, escape and raw bits, 16, 8 and 8 of them; the compiler sees that this is one load.
inline int as_number(const TableBank::Table& table) {
    return int(table.first | table.escape << 16 | uint32_t(table.raw_bits) << 24);
}

inline bool rank_step(const TableBank::Table& table, int16_t symbol, uint16_t& id) {
    const int32_t v = symbol >> table.raw_bits;  // >> of a negative int floors on every compiler of note
    const auto rank = uint32_t(v >= 0 ? 2 * v : -2 * v - 1);
    const bool escape = rank >= table.escape;
    id = uint16_t(table.first + (escape ? table.escape : rank));
    return escape || table.raw_bits;
}

// What vectors left over, from symbol `j` on, a multiple of 32.
inline void rank_rest(const TableBank::Table* tables, const int16_t* symbols, const uint8_t* indexes, size_t n,
                      uint16_t* ids, uint32_t* marks, size_t j) {
    for (; j < n; j += 32) {
        uint32_t bits = 0;
        const size_t group = n - j < 32 ? n - j : 32;
        for (size_t i = 0; i < group; ++i)
            bits |= uint32_t(rank_step(tables[indexes[j + i]], symbols[j + i], ids[j + i])) << i;
        marks[j / 32] = bits;
    }
}

inline void mark_rest(const int16_t* symbols, const uint8_t* indexes, uint8_t first_raw, size_t n, uint32_t* marks,
                      size_t j) {
    for (; j < n; j += 32) {
        uint32_t bits = 0;
        const size_t group = n - j < 32 ? n - j : 32;
        for (size_t i = 0; i < group; ++i)
            bits |= uint32_t(symbols[j + i] == kEscape || indexes[j + i] >= first_raw) << i;
        marks[j / 32] = bits;
    }
}

inline void rank_steps(const TableBank::Table* tables, const int16_t* symbols, const uint8_t* indexes, size_t n,
                       uint16_t* ids, uint32_t* marks) {
    rank_rest(tables, symbols, indexes, n, ids, marks, 0);
}

inline void mark_steps(const int16_t* symbols, const uint8_t* indexes, uint8_t first_raw, size_t n, uint32_t* marks) {
    mark_rest(symbols, indexes, first_raw, n, marks, 0);
}

}  // namespace
}  // namespace ISA
}  // namespace narrowbit
