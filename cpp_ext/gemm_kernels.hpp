// The loops around a tile of c. ISA names the namespace; each file that includes this has defined
//
//     template <size_t kRows> void tile(size_t k4, const uint8_t* a, size_t stride_a, const int8_t* b, Start start,
//                                       int32_t* c, size_t stride, size_t columns)
//
// with kTile rows at a time. Nothing here may be left for a linker to share between instruction sets.
#pragma once

namespace narrowbit {
namespace ISA {
namespace {

constexpr size_t kDepth = 1024;  // of k: so much of a panel stays near while the rows pass by

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

void multiply(size_t first, size_t last, size_t n, size_t k, const uint8_t* a, const int8_t* panels,
              const int32_t* corrections, int32_t* c, size_t stride) {
    for (size_t from = 0; from < k || from == 0; from += kDepth) {
        const size_t depth = k - from < kDepth ? k - from : kDepth;
        for (size_t p = 0; p < n; p += kColumns) {
            const size_t columns = n - p < kColumns ? n - p : kColumns;
            const int8_t* panel = panels + p * k + from * kColumns;
            const int32_t* start = from ? nullptr : corrections + p;  // or what is in c already
            size_t row = first;
            for (; row + kTile <= last; row += kTile)
                tile<kTile>(depth / 4, a + row * k + from, k, panel, start, c + row * stride + p, stride, columns);
            for (; row < last; ++row)
                tile<1>(depth / 4, a + row * k + from, k, panel, start, c + row * stride + p, stride, columns);
        }
    }
}

}  // namespace

extern const Gemm kGemm;
const Gemm kGemm = {ISA_NAME, pack, multiply};

}  // namespace ISA
}  // namespace narrowbit
