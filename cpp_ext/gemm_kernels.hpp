// The loops around a tile of c. ISA names the namespace; each file that includes this has defined
//
//     template <size_t kRows, size_t kVectors> void tile(Stretches k, const uint8_t* a, size_t row, size_t step,
//         const int8_t* b, size_t step_b, const int32_t* start, int32_t* c, size_t stride, size_t columns)
//
// for kVectors vectors of kWidth columns and kSums / kVectors rows or fewer; start is null where c goes on.
// Nothing here may be left for a linker to share between instruction sets.
#pragma once

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kDepth = 256;  // fours of k: so much of a panel stays near while the rows pass by

void pack(size_t n, size_t k, const int8_t* b, int8_t* panels, int32_t* corrections) {
    for (size_t p = 0; p < n; p += kColumns)
        for (size_t c = 0; c < kColumns; ++c) {
            int32_t sum = 0;
            int8_t* to = panels + p * k + 4 * c;
            for (size_t i = 0; i < k; ++i) {
                const int8_t code = p + c < n ? b[(p + c) * k + i] : int8_t(0);
                to[i / 4 * 4 * kColumns + i % 4] = code;
                sum += code;
            }
            corrections[p + c] = -int32_t(kOffset) * sum;
        }
}

template <size_t kVectors>
void strip(size_t first, size_t last, Stretches k, Left a, const int8_t* b, size_t step_b, const int32_t* start,
           int32_t* c, size_t stride, size_t columns) {
    constexpr size_t kMany = kSums / kVectors, kFew = kMany / 3 ? kMany / 3 : 1;
    const auto go = [&](auto tile, size_t rows) {
        for (; first + rows <= last; first += rows)
            tile(k, a.data + first * a.row, a.row, a.step, b, step_b, start, c + first * stride, stride, columns);
    };
    go(tile<kMany, kVectors>, kMany);
    go(tile<kFew, kVectors>, kFew);
    go(tile<1, kVectors>, 1);
}

void multiply(size_t first, size_t last, size_t n, Stretches k, Left a, Right b, int32_t* c, size_t stride) {
    const size_t most = k.k4 < kDepth ? kDepth / (k.k4 ? k.k4 : 1) : 1;
    for (size_t from = 0; from < k.count || from == 0; from += most) {
        const size_t count = k.count - from < most ? k.count - from : most;
        const Stretches part{count, k.k4, k.a + from, k.b + from};
        for (size_t p = 0; p < n; p += kColumns) {
            const size_t columns = n - p < kColumns ? n - p : kColumns;
            const int8_t* panel = b.data + p / kColumns * b.panel;
            // Null where c goes on from what it holds.
            const int32_t* start = from || !b.corrections ? nullptr : b.corrections + p;
            const auto go = [&](auto strip) {
                strip(first, last, part, a, panel, b.step, start, c + p, stride, columns);
            };
            switch ((columns + kWidth - 1) / kWidth) {
                case 1: go(strip<1>); break;
                case 2: go(strip<2>); break;
                case 3: go(strip<3>); break;
                default: go(strip<4>);
            }
        }
    }
}

}  // namespace

extern const Gemm kGemm;
const Gemm kGemm = {ISA_NAME, pack, multiply};

}  // namespace ISA
}  // namespace narrowbit
