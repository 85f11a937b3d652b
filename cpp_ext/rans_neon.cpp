// Four lanes to a vector. ARM has no gathers: tables are looked up one by one, the arithmetic is done in vectors.
#include <arm_neon.h>

#define ISA neon
#include "rans_shuffles.hpp"
#include "rans_steps.hpp"

namespace narrowbit {
namespace neon {
namespace {

alignas(64) constexpr auto kSpread = spread_shuffles();
alignas(64) constexpr auto kCollect = collect_shuffles();

// Bit of each lane that is set, and how many are.
unsigned mask_of(uint32x4_t x) {
    const uint32x4_t bits = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(x, bits));
}
unsigned count_of(unsigned mask) { return 0x4332322132212110ull >> 4 * mask & 15; }

// number(0) .. number(3) as a vector.
template <typename Number>
uint32x4_t four(Number number) {
    const uint32x4_t numbers = {number(0), number(1), number(2), number(3)};
    return numbers;
}

int32x4_t decode_step4(uint32x4_t& x, const TableBank::DecodeSlot* slots, const uint8_t* indexes,
                       const uint8_t*& word) {
    const uint32x4_t low12 = vdupq_n_u32(kProbTotal - 1);
    uint32_t place[4];
    vst1q_u32(place, vandq_u32(x, low12));
    const uint32x4_t slot = four([&](unsigned i) { return slots[uint32_t(indexes[i]) << kProbBits | place[i]]; });
    const uint32x4_t frequency = vaddq_u32(vandq_u32(vshrq_n_u32(slot, 12), low12), vdupq_n_u32(1));
    x = vmlaq_u32(vandq_u32(slot, low12), frequency, vshrq_n_u32(x, kProbBits));
    const uint32x4_t low = vcltq_u32(x, vdupq_n_u32(kStateLow));
    const unsigned mask = mask_of(low);
    const uint16x4_t words = vreinterpret_u16_u8(vtbl1_u8(vld1_u8(word), vld1_u8(kSpread[mask].byte)));
    x = vbslq_u32(low, vorrq_u32(vshlq_n_u32(x, 16), vmovl_u16(words)), x);
    word += 2 * count_of(mask);
    return vshrq_n_s32(vreinterpretq_s32_u32(slot), 24);
}

void encode_step4(uint32x4_t& x, const uint32_t* intervals, const uint16_t* ids, uint16_t*& word) {
    const uint32x4_t entry = four([=](unsigned i) { return intervals[ids[i]]; });
    const uint32x4_t frequency = vandq_u32(entry, vdupq_n_u32(0xFFFF)), start = vshrq_n_u32(entry, 16);

    const uint32x4_t full = vcgeq_u32(vshrq_n_u32(x, 32 - kProbBits), frequency);
    const unsigned mask = mask_of(full);
    const uint8x8_t words = vreinterpret_u8_u16(vmovn_u32(x));
    vst1_u8(reinterpret_cast<uint8_t*>(word - 4), vtbl1_u8(words, vld1_u8(kCollect[mask].byte + 8)));
    word -= count_of(mask);
    x = vbslq_u32(full, vshrq_n_u32(x, 16), x);

    // As in rans_avx2.cpp: the quotient or one less.
    const float32x4_t less = vmulq_n_f32(vcvtq_f32_u32(x), 1.0f - 0x1p-22f);
    uint32x4_t quotient = vcvtq_u32_f32(vdivq_f32(less, vcvtq_f32_u32(frequency)));
    uint32x4_t rest = vmlsq_u32(x, quotient, frequency);
    const uint32x4_t wrong = vcgeq_u32(rest, frequency);  // -1 or 0
    quotient = vsubq_u32(quotient, wrong);
    rest = vsubq_u32(rest, vandq_u32(wrong, frequency));
    x = vaddq_u32(vshlq_n_u32(quotient, kProbBits), vaddq_u32(rest, start));
}

template <unsigned kLanes>
uint16_t* encode(const TableBank& bank, const uint16_t* ids, size_t n, uint32_t* states, uint16_t* word) {
    constexpr unsigned kVectors = kLanes / 4;
    const size_t whole = n - n % kLanes;
    word = encode_steps<kLanes>(bank, ids + whole, n - whole, states, word);
    uint32x4_t x[kVectors];
    for (unsigned v = 0; v < kVectors; ++v) x[v] = vld1q_u32(states + 4 * v);
    for (n = whole; n; n -= kLanes)
        for (unsigned v = kVectors; v-- > 0;) encode_step4(x[v], bank.intervals(), ids + n - kLanes + 4 * v, word);
    for (unsigned v = 0; v < kVectors; ++v) vst1q_u32(states + 4 * v, x[v]);
    return word;
}

template <unsigned kLanes>
const uint8_t* decode(const TableBank::DecodeSlot* slots, const uint8_t* indexes, int16_t* symbols, size_t n,
                      uint32_t* states, const uint8_t* word, const uint8_t* end) {
    constexpr unsigned kVectors = kLanes / 4;
    uint32x4_t x[kVectors];
    for (unsigned v = 0; v < kVectors; ++v) x[v] = vld1q_u32(states + 4 * v);
    size_t j = 0;
    for (; n - j >= kLanes && size_t(end - word) >= 2 * kLanes; j += kLanes)
        for (unsigned v = 0; v < kVectors; ++v)
            vst1_s16(symbols + j + 4 * v, vmovn_s32(decode_step4(x[v], slots, indexes + j + 4 * v, word)));
    for (unsigned v = 0; v < kVectors; ++v) vst1q_u32(states + 4 * v, x[v]);
    return decode_steps<kLanes>(slots, indexes + j, symbols + j, n - j, states, word, end);
}

void mark(const int16_t* symbols, const uint8_t* indexes, uint8_t first_raw, size_t n, uint32_t* marks) {
    const size_t whole = n - n % 32;
    const int16x8_t escape = vdupq_n_s16(kEscape);
    for (size_t j = 0; j < whole; j += 32) {
        const uint8x16_t largest = vmaxq_u8(vld1q_u8(indexes + j), vld1q_u8(indexes + j + 16));
        uint16x8_t escaped = vceqq_s16(vld1q_s16(symbols + j), escape);
        for (unsigned i = 8; i < 32; i += 8)
            escaped = vorrq_u16(escaped, vceqq_s16(vld1q_s16(symbols + j + i), escape));
        if (vmaxvq_u8(largest) < first_raw && !vmaxvq_u16(escaped))
            marks[j / 32] = 0;
        else
            mark_rest(symbols, indexes, first_raw, j + 32, marks, j);
    }
    mark_rest(symbols, indexes, first_raw, n, marks, whole);
}

}  // namespace

extern const RansLoops kRansLoops;
const RansLoops kRansLoops = {
    {encode_steps<1>, encode<4>, encode<8>, encode<32>},
    {decode_steps<1>, decode<4>, decode<8>, decode<32>},
    rank_steps,
    mark,
};

}  // namespace neon
}  // namespace narrowbit
