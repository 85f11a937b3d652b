// Byte shuffles that hand eight 16-bit words to the lanes that are set in a mask, and gather them again.
#pragma once

#include <array>
#include <cstdint>

namespace narrowbit {

struct Shuffle {
    uint8_t byte[16];
};

// Word k of the input -> the k-th lane that is set; 0 in the others.
constexpr std::array<Shuffle, 256> spread_shuffles() {
    std::array<Shuffle, 256> all{};
    for (unsigned mask = 0; mask < 256; ++mask)
        for (unsigned lane = 0, k = 0; lane < 8; ++lane) {
            const bool set = mask >> lane & 1;
            all[mask].byte[2 * lane] = set ? uint8_t(2 * k) : 0x80;
            all[mask].byte[2 * lane + 1] = set ? uint8_t(2 * k + 1) : 0x80;
            k += set;
        }
    return all;
}

// The lanes that are set -> the last words, in order; 0 before them.
constexpr std::array<Shuffle, 256> collect_shuffles() {
    std::array<Shuffle, 256> all{};
    for (unsigned mask = 0; mask < 256; ++mask) {
        unsigned place = 8;
        for (unsigned lane = 8; lane-- > 0;)
            if (mask >> lane & 1) {
                --place;
                all[mask].byte[2 * place] = uint8_t(2 * lane);
                all[mask].byte[2 * place + 1] = uint8_t(2 * lane + 1);
            }
        for (unsigned byte = 0; byte < 2 * place; ++byte) all[mask].byte[byte] = 0x80;
    }
    return all;
}

}  // namespace narrowbit
