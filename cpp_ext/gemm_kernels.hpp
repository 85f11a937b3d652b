// The loops around a tile of c. ISA names the namespace; each file that includes this has defined
//
//     template <size_t kRows, size_t kVectors> void tile(Stretches k, const uint8_t* a, size_t row, size_t step,
//         const int8_t* b, size_t step_b, const int32_t* start, int32_t* c, size_t stride, size_t columns)
//
// for kVectors vectors of kWidth columns, kTogether or fewer, and kSums / kVectors rows or fewer; start is null where c
// goes on.
// Nothing here may be left for a linker to share between instruction sets.
#pragma once

#include <cstring>
#include <utility>

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kDepth = 512;  // fours of k: so much of a panel stays near while the rows pass by

void pack(size_t n, size_t k, const int8_t* b, int8_t* panels, int32_t* corrections) {
    for (size_t p = 0; p < n; p += kColumns)
        for (size_t c = 0; c < kColumns; ++c) {
            int8_t* to = panels + p * k + 4 * c;
            corrections[p + c] = 0;
            if (p + c >= n) {
                for (size_t i = 0; i < k / 4; ++i) std::memset(to + i * 4 * kColumns, 0, 4);
                continue;
            }
            const int8_t* from = b + (p + c) * k;
            int32_t sum = 0;
            for (size_t i = 0; i < k; ++i) sum += from[i];
            for (size_t i = 0; i < k / 4; ++i) std::memcpy(to + i * 4 * kColumns, from + 4 * i, 4);
            corrections[p + c] = -int32_t(kOffset) * sum;
        }
}

using Tile = decltype(&tile<1, 1>);

// Tiles of 1, 2, ... rows.
template <size_t kVectors, size_t... kRows>
Tile of_rows(size_t rows, std::index_sequence<kRows...>) {
    static constexpr Tile kTiles[] = {tile<kRows + 1, kVectors>...};
    return kTiles[rows - 1];
}

// All rows of kVectors vectors of columns, in as few tiles as hold them, all of about one size.
template <size_t kVectors>
void strip(size_t first, size_t last, Stretches k, Left a, const int8_t* b, size_t step_b, const int32_t* start,
           int32_t* c, size_t stride, size_t columns) {
    constexpr size_t kMost = kSums / kVectors;
    for (size_t tiles = (last - first + kMost - 1) / kMost; tiles > 0; --tiles) {
        const size_t rows = (last - first + tiles - 1) / tiles;
        of_rows<kVectors>(rows, std::make_index_sequence<kMost>())(k, a.data + first * a.row, a.row, a.step, b, step_b,
                                                                   start, c + first * stride, stride, columns);
        first += rows;
    }
}

void multiply(size_t first, size_t last, size_t n, Stretches k, Left a, Right b, int32_t* c, size_t stride) {
    const size_t most = k.k4 < kDepth ? kDepth / (k.k4 ? k.k4 : 1) : 1;
    for (size_t from = 0; from < k.count || from == 0; from += most) {
        const size_t count = k.count - from < most ? k.count - from : most;
        const Stretches part{count, k.k4, k.a + from, k.b + from};
        for (size_t p = 0; p < n; p += kTogether * kWidth) {
            const size_t columns = n - p < kTogether * kWidth ? n - p : kTogether * kWidth;
            const int8_t* panel = b.data + p / kColumns * b.panel + p % kColumns * 4;
            // Null where c goes on from what it holds.
            const int32_t* start = from || !b.corrections ? nullptr : b.corrections + p;
            const auto go = [&](auto strip) {
                strip(first, last, part, a, panel, b.step, start, c + p, stride, columns);
            };
            if (columns <= kWidth)
                go(strip<1>);
            else
                go(strip<kTogether>);
        }
    }
}

}  // namespace

extern const Gemm kGemm;
const Gemm kGemm = {ISA_NAME, pack, multiply};

}  // namespace ISA
}  // namespace narrowbit
