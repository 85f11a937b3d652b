#include "rans.hpp"

#include <algorithm>
#include <memory>
#include <string>

namespace narrowbit {
namespace {

constexpr int kEscape = -128;          // marks the escape in a decode slot; ranks up to 254 reach only -127 .. 127
constexpr unsigned kMaxExpGolomb = 16;  // e + 1 <= 2^16
constexpr size_t kBlock = 4096;         // symbols decoded before their side bits are read: stays in L1

uint32_t zigzag(int32_t v) { return v >= 0 ? 2u * uint32_t(v) : 2u * uint32_t(-v) - 1; }
int32_t unzigzag(uint32_t z) { return z & 1 ? -int32_t(z / 2) - 1 : int32_t(z / 2); }

uint32_t load16(const uint8_t* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8; }
uint32_t load32(const uint8_t* p) { return load16(p) | load16(p + 2) << 16; }

unsigned floor_log2(uint32_t x) {
    unsigned n = 0;
    while (x >>= 1) ++n;
    return n;
}

void check_lanes(unsigned lanes) {
    if (lanes != 1 && lanes != 4 && lanes != 8 && lanes != 32)
        throw std::invalid_argument("lanes must be 1, 4, 8 or 32, got " + std::to_string(lanes));
}

// Division by f as multiply, add, shift, exact for every x < f 2^20, which is all that the encoder divides.
// With s = floor(log2 f) and N = 32 + s, let m be the integer nearest to 2^N / f; its error e = |m f - 2^N| is at most
// f / 2. Rounded up, floor(x m / 2^N) is the quotient while x e < 2^N; rounded down, (x + 1) m takes the place of x m
// and the condition is (x + 1) e <= 2^N. Both hold: f 2^20 e <= f^2 2^19 < 2^(2s+21) <= 2^N, as s <= 11 here.
// A power of two would need m = 2^32. It takes 2^32 - 1, rounded down: (x + 1) f <= 2^32 f = 2^N.
TableBank::EncodeEntry encode_entry(uint32_t frequency, uint32_t start) {
    const unsigned shift = 32 + floor_log2(frequency);
    const uint64_t one = uint64_t(1) << shift;
    uint64_t down = one / frequency;
    const uint64_t remainder = one % frequency;
    bool round_up = remainder * 2 > frequency;
    if (remainder == 0) down -= 1, round_up = false;
    const auto reciprocal = uint32_t(down + round_up);
    return {reciprocal, round_up ? 0 : reciprocal, uint16_t(frequency), uint16_t(start), uint8_t(shift)};
}

inline void encode_step(uint32_t& x, const TableBank::EncodeEntry& entry, uint16_t*& word) {
    // Branch-free: the word is always written, and kept only if the state would overflow.
    const bool full = (x >> (32 - kProbBits)) >= entry.frequency;
    word[-1] = uint16_t(x);
    word -= full;
    x = full ? x >> 16 : x;
    const auto quotient = uint32_t((uint64_t(x) * entry.reciprocal + entry.addend) >> entry.shift);
    x += entry.start + quotient * (kProbTotal - entry.frequency);
}

// Codes one pass backwards; `word` points past the free space, which has room for one word per symbol.
template <unsigned kLanes>
uint16_t* encode_pass(const TableBank::EncodeEntry* entries, const uint16_t* ids, size_t n, uint32_t* states,
                      uint16_t* word) {
    std::array<uint32_t, kLanes> x;
    std::copy_n(states, kLanes, x.begin());
    while (n % kLanes) {
        --n;
        encode_step(x[n % kLanes], entries[ids[n]], word);
    }
    for (; n; n -= kLanes)
        for (unsigned lane = kLanes; lane-- > 0;)
            encode_step(x[lane], entries[ids[n - kLanes + lane]], word);
    std::copy_n(x.begin(), kLanes, states);
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

// Decodes n symbols beginning at lane 0 and returns the next word; escapes stay marked. The one function that an
// instruction set would replace.
template <unsigned kLanes>
const uint8_t* decode_pass(const TableBank::DecodeSlot* slots, const uint8_t* indexes, int16_t* out, size_t n,
                           uint32_t* states, const uint8_t* word, const uint8_t* end) {
    constexpr size_t kGroup = kLanes < 8 ? 8 : kLanes;
    std::array<uint32_t, kLanes> x;
    std::copy_n(states, kLanes, x.begin());
    size_t j = 0;
    // While there are words for a whole group no check is needed, and renormalisation is free of branches.
    for (; n - j >= kGroup && size_t(end - word) >= 2 * kGroup; j += kGroup) {
        for (size_t i = 0; i < kGroup; ++i) {
            uint32_t& state = x[i % kLanes];
            out[j + i] = decode_step<kLanes>(state, slots + (size_t(indexes[j + i]) << kProbBits));
            const uint32_t refilled = state << 16 | load16(word);
            const bool low = state < kStateLow;
            state = low ? refilled : state;
            word += size_t(low) * 2;
        }
    }
    for (; j < n; ++j) {
        uint32_t& state = x[j % kLanes];
        out[j] = decode_step<kLanes>(state, slots + (size_t(indexes[j]) << kProbBits));
        if (state < kStateLow) {
            if (word == end) throw CorruptStream("rANS words end too early");
            state = state << 16 | load16(word);
            word += 2;
        }
    }
    std::copy_n(x.begin(), kLanes, states);
    return word;
}

}  // namespace

TableBank::TableBank(const uint8_t* raw_bits, size_t n_raw_bits, const uint16_t* sizes, size_t n_sizes,
                     const uint16_t* freqs, size_t n_freqs) {
    if (n_raw_bits != n_sizes) throw std::invalid_argument("raw_bits and sizes differ in length");
    if (n_sizes == 0 || n_sizes > kMaxTables) throw std::invalid_argument("a bank holds 1 to 256 tables");
    size_t expected = 0;
    for (size_t t = 0; t < n_sizes; ++t) {
        const std::string name = "table " + std::to_string(t);
        if (raw_bits[t] > kMaxRawBits) throw std::invalid_argument(name + ": more than 8 raw bits");
        if (sizes[t] == 0 || sizes[t] > kMaxAlphabet)
            throw std::invalid_argument(name + ": the alphabet must have 1 to 256 entries");
        expected += sizes[t];
    }
    if (expected != n_freqs) throw std::invalid_argument("freqs must have sum(sizes) entries");

    entries_.reserve(n_freqs);
    slots_.reserve(n_sizes << kProbBits);
    for (size_t t = 0; t < n_sizes; ++t) {
        tables_.push_back({uint32_t(entries_.size()), uint16_t(sizes[t] - 1), raw_bits[t]});
        uint32_t start = 0;
        for (unsigned rank = 0; rank < sizes[t]; ++rank) {
            const uint32_t frequency = *freqs++;
            if (frequency == 0 || frequency > kProbTotal - start)
                throw std::invalid_argument("table " + std::to_string(t) + ": frequencies must be >= 1 with sum 4096");
            const int32_t v = rank + 1u == sizes[t] ? kEscape : unzigzag(rank);
            const uint32_t fixed = uint32_t(v) << 24 | (frequency - 1) << 12;
            for (uint32_t i = 0; i < frequency; ++i) slots_.push_back(fixed | i);
            entries_.push_back(encode_entry(frequency, start));
            start += frequency;
        }
        if (start != kProbTotal)
            throw std::invalid_argument("table " + std::to_string(t) + ": frequencies must be >= 1 with sum 4096");
    }
}

void TableBank::check(const uint8_t* indexes, size_t n) const {
    uint8_t largest = 0;  // a reduction without exit: vectorised, far cheaper than a test per symbol
    for (size_t j = 0; j < n; ++j) largest = std::max(largest, indexes[j]);
    if (largest >= size())
        throw std::invalid_argument("index " + std::to_string(largest) + " in a bank of " + std::to_string(size()) +
                                    " tables");
}

Encoder::Encoder(const TableBank& bank, unsigned lanes) : bank_(bank), lanes_(lanes) { check_lanes(lanes); }

void Encoder::put_bits(uint32_t value, unsigned count) {
    bits_ |= uint64_t(value) << bit_count_;
    for (bit_count_ += count; bit_count_ >= 8; bit_count_ -= 8, bits_ >>= 8) side_.push_back(uint8_t(bits_));
}

void Encoder::put(const int16_t* symbols, const uint8_t* indexes, size_t n) {
    if (finished_) throw std::invalid_argument("the encoder is finished");
    bank_.check(indexes, n);
    if (n == 0) return;
    pass_sizes_.push_back(n);
    const size_t begin = entries_.size();
    entries_.resize(begin + n);
    uint16_t* entry = entries_.data() + begin;
    const TableBank::Table* tables = bank_.tables();
    for (size_t j = 0; j < n; ++j) {
        const TableBank::Table& table = tables[indexes[j]];
        const unsigned raw = table.raw_bits;
        uint32_t rank = zigzag(symbols[j] >> raw);  // >> of a negative int floors on every compiler of note
        if (rank >= table.escape) {
            const uint32_t value = rank - table.escape + 1u;
            const unsigned length = floor_log2(value);
            put_bits(1u << length, length + 1);
            put_bits(value - (1u << length), length);
            rank = table.escape;
        }
        if (raw) put_bits(uint32_t(symbols[j]) & ((1u << raw) - 1), raw);
        entry[j] = uint16_t(table.first + rank);
    }
}

std::vector<uint8_t> Encoder::finish() {
    if (finished_) throw std::invalid_argument("the encoder is finished");
    finished_ = true;
    std::vector<uint8_t> payload;
    size_t n = entries_.size();
    if (n == 0) return payload;

    std::array<uint32_t, kMaxLanes> states;
    states.fill(kStateLow);
    const std::unique_ptr<uint16_t[]> words(new uint16_t[n]);  // untouched pages cost nothing
    uint16_t* const words_end = words.get() + n;
    uint16_t* word = words_end;
    auto* const pass = lanes_ == 1 ? encode_pass<1> : lanes_ == 4 ? encode_pass<4>
                                                  : lanes_ == 8   ? encode_pass<8>
                                                                  : encode_pass<32>;
    for (auto size = pass_sizes_.rbegin(); size != pass_sizes_.rend(); ++size) {
        n -= *size;
        word = pass(bank_.entries(), entries_.data() + n, *size, states.data(), word);
    }

    put_bits(0, (8 - bit_count_) % 8);
    payload.reserve(10 + 4 * lanes_ + 2 * size_t(words_end - word) + side_.size());
    size_t length = side_.size();
    for (; length >= 0x80; length >>= 7) payload.push_back(uint8_t(length | 0x80));
    payload.push_back(uint8_t(length));
    for (unsigned lane = 0; lane < lanes_; ++lane)
        for (unsigned shift = 0; shift < 32; shift += 8) payload.push_back(uint8_t(states[lane] >> shift));
    for (; word != words_end; ++word) {
        payload.push_back(uint8_t(*word));
        payload.push_back(uint8_t(*word >> 8));
    }
    payload.insert(payload.end(), side_.begin(), side_.end());
    return payload;
}

Decoder::Decoder(const TableBank& bank, const uint8_t* payload, size_t size, unsigned lanes)
    : bank_(bank), lanes_(lanes), empty_(size == 0) {
    check_lanes(lanes);
    states_.fill(kStateLow);
    if (empty_) return;
    const uint8_t* const end = payload + size;
    uint64_t side_size = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (payload == end || shift > 56) throw CorruptStream("bad side stream length");
        const uint8_t byte = *payload++;
        side_size |= uint64_t(byte & 0x7F) << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift) throw CorruptStream("side stream length is not in its shortest form");
            break;
        }
    }
    const auto rest = size_t(end - payload);
    if (rest < 4 * lanes || side_size > rest - 4 * lanes) throw CorruptStream("payload is too short");
    for (unsigned lane = 0; lane < lanes; ++lane, payload += 4) {
        states_[lane] = load32(payload);
        if (states_[lane] < kStateLow) throw CorruptStream("bad lane state");
    }
    word_ = payload;
    words_end_ = side_ = end - side_size;
    side_end_ = end;
    if ((words_end_ - word_) % 2) throw CorruptStream("half a word");
}

uint32_t Decoder::get_bits(unsigned count) {
    while (bit_count_ < count) {
        if (side_ == side_end_) throw CorruptStream("side stream ends too early");
        bits_ |= uint64_t(*side_++) << bit_count_;
        bit_count_ += 8;
    }
    const auto value = uint32_t(bits_ & ((1u << count) - 1));
    bits_ >>= count;
    bit_count_ -= count;
    return value;
}

uint32_t Decoder::get_exp_golomb() {
    unsigned length = 0;
    while (!get_bits(1))
        if (++length > kMaxExpGolomb) throw CorruptStream("escape is too long");
    return (1u << length | get_bits(length)) - 1;
}

void Decoder::get(const uint8_t* indexes, int16_t* symbols, size_t n) {
    bank_.check(indexes, n);
    if (empty_ && n) throw CorruptStream("empty payload");
    auto* const pass = lanes_ == 1 ? decode_pass<1> : lanes_ == 4 ? decode_pass<4>
                                                  : lanes_ == 8   ? decode_pass<8>
                                                                  : decode_pass<32>;
    const TableBank::Table* tables = bank_.tables();
    while (n) {
        const size_t block = std::min(n, kBlock);  // a multiple of every lane count, so a block begins at lane 0
        word_ = pass(bank_.slots(), indexes, symbols, block, states_.data(), word_, words_end_);
        for (size_t j = 0; j < block; ++j) {
            const TableBank::Table& table = tables[indexes[j]];
            const unsigned raw = table.raw_bits;
            int32_t v = symbols[j];
            if (v != kEscape && !raw) continue;
            if (v == kEscape) {
                const uint32_t rank = table.escape + get_exp_golomb();
                if (rank >= 65536u >> raw) throw CorruptStream("symbol is outside int16");
                v = unzigzag(rank);
            }
            symbols[j] = int16_t(v * (1 << raw) + int32_t(get_bits(raw)));
        }
        indexes += block, symbols += block, n -= block;
    }
}

void Decoder::finish() const {
    for (unsigned lane = 0; lane < lanes_; ++lane)
        if (states_[lane] != kStateLow) throw CorruptStream("final lane state is wrong");
    if (word_ != words_end_) throw CorruptStream("rANS words are left over");
    if (side_ != side_end_ || bits_ != 0) throw CorruptStream("side stream is left over");
}

unsigned choose_lanes(size_t n_symbols) {
    // A lane costs 3 bytes on average: its 4-byte state holds log2(state / 2^16) = 8 useful bits. Coded symbols of
    // pictures at low rates have about 0.4 bits (those of the smallest scales are skipped, not coded): 0.05 bytes.
    const double budget = 0.002 * 0.05 * double(n_symbols);
    for (const unsigned lanes : {32u, 8u, 4u})
        if (3.0 * (lanes - 1) < budget) return lanes;
    return 1;
}

}  // namespace narrowbit
