#include "rans.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "rans_loops.hpp"

namespace narrowbit {
namespace {

constexpr unsigned kMaxExpGolomb = 16;  // e + 1 <= 2^16

uint32_t zigzag(int32_t v) { return v >= 0 ? 2u * uint32_t(v) : 2u * uint32_t(-v) - 1; }
int32_t unzigzag(uint32_t z) { return z & 1 ? -int32_t(z / 2) - 1 : int32_t(z / 2); }

uint32_t load16(const uint8_t* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8; }
uint32_t load32(const uint8_t* p) { return load16(p) | load16(p + 2) << 16; }

unsigned floor_log2(uint32_t x) {  // of x > 0
#ifdef __GNUC__
    return 31 - unsigned(__builtin_clz(x));
#else
    unsigned n = 0;
    while (x >>= 1) ++n;
    return n;
#endif
}

unsigned position_of(unsigned lanes) {
    const auto* const found = std::find(std::begin(kLaneCounts), std::end(kLaneCounts), lanes);
    if (found == std::end(kLaneCounts))
        throw std::invalid_argument("lanes must be 1, 4, 8 or 32, got " + std::to_string(lanes));
    return unsigned(found - kLaneCounts);
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

// Calls visit(j) for every mark among the first n, in order.
template <typename Visit>
void each_mark(const uint32_t* marks, size_t n, Visit visit) {
    for (size_t j = 0; j < n; j += 32)
        for (uint32_t bits = marks[j / 32]; bits; bits &= bits - 1) visit(j + floor_log2(bits & (0 - bits)));
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
        tables_.push_back({uint16_t(entries_.size()), uint8_t(sizes[t] - 1), raw_bits[t]});
        if (raw_bits[t]) first_raw_ = std::min(first_raw_, uint8_t(t));
        uint32_t start = 0;
        for (unsigned rank = 0; rank < sizes[t]; ++rank) {
            const uint32_t frequency = *freqs++;
            if (frequency == 0 || frequency > kProbTotal - start)
                throw std::invalid_argument("table " + std::to_string(t) + ": frequencies must be >= 1 with sum 4096");
            const int32_t v = rank + 1u == sizes[t] ? kEscape : unzigzag(rank);
            const uint32_t fixed = uint32_t(v) << 24 | (frequency - 1) << 12;
            for (uint32_t i = 0; i < frequency; ++i) slots_.push_back(fixed | i);
            entries_.push_back(encode_entry(frequency, start));
            intervals_.push_back(start << 16 | frequency);
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

Encoder::Encoder(const TableBank& bank, unsigned lanes, Isa isa)
    : bank_(bank), loops_(rans_loops(isa)), lanes_(lanes), position_(position_of(lanes)) {}

void Encoder::put_bits(uint32_t value, unsigned count) {
    bits_ |= uint64_t(value) << bit_count_;
    for (bit_count_ += count; bit_count_ >= 8; bit_count_ -= 8, bits_ >>= 8) side_.push_back(uint8_t(bits_));
}

void Encoder::put_side(int16_t symbol, const TableBank::Table& table) {
    const unsigned raw = table.raw_bits;
    const uint32_t rank = zigzag(symbol >> raw);  // >> of a negative int floors on every compiler of note
    if (rank >= table.escape) {
        const uint32_t value = rank - table.escape + 1u;
        const unsigned length = floor_log2(value);
        put_bits(1u << length, length + 1);
        put_bits(value - (1u << length), length);
    }
    put_bits(uint32_t(symbol) & ((1u << raw) - 1), raw);
}

void Encoder::put(const int16_t* symbols, const uint8_t* indexes, size_t n) {
    if (finished_) throw std::invalid_argument("the encoder is finished");
    bank_.check(indexes, n);
    if (n == 0) return;
    passes_.push_back({std::unique_ptr<uint16_t[]>(new uint16_t[n]), n});
    uint16_t* ids = passes_.back().ids.get();
    while (n) {
        const size_t block = std::min(n, kBlock);
        uint32_t marks[kBlock / 32];
        loops_.rank(bank_.tables(), symbols, indexes, block, ids, marks);
        each_mark(marks, block, [&](size_t j) { put_side(symbols[j], bank_.tables()[indexes[j]]); });
        symbols += block, indexes += block, ids += block, n -= block;
    }
}

std::vector<uint8_t> Encoder::finish() {
    if (finished_) throw std::invalid_argument("the encoder is finished");
    finished_ = true;
    std::vector<uint8_t> payload;
    size_t n = 0;
    for (const Pass& pass : passes_) n += pass.size;
    if (n == 0) return payload;

    std::array<uint32_t, kMaxLanes> states;
    states.fill(kStateLow);
    const std::unique_ptr<uint16_t[]> words(new uint16_t[n + kMaxLanes]);  // untouched pages cost nothing
    uint16_t* const words_end = words.get() + n + kMaxLanes;
    uint16_t* word = words_end;
    for (auto pass = passes_.rbegin(); pass != passes_.rend(); ++pass)
        word = loops_.encode[position_](bank_, pass->ids.get(), pass->size, states.data(), word);

    put_bits(0, (8 - bit_count_) % 8);
    const auto n_words = size_t(words_end - word);
    payload.reserve(10 + 4 * lanes_ + 2 * n_words + side_.size());
    size_t length = side_.size();
    for (; length >= 0x80; length >>= 7) payload.push_back(uint8_t(length | 0x80));
    payload.push_back(uint8_t(length));
    payload.insert(payload.end(), side_.begin(), side_.end());
    for (unsigned lane = 0; lane < lanes_; ++lane)
        for (unsigned shift = 0; shift < 32; shift += 8) payload.push_back(uint8_t(states[lane] >> shift));
    payload.resize(payload.size() + 2 * n_words);
    uint8_t* bytes = payload.data() + payload.size() - 2 * n_words;
    for (size_t i = 0; i < n_words; ++i) {  // a copy, where bytes are in this order
        bytes[2 * i] = uint8_t(word[i]);
        bytes[2 * i + 1] = uint8_t(word[i] >> 8);
    }
    return payload;
}

Decoder::Decoder(const TableBank& bank, const uint8_t* payload, size_t size, unsigned lanes, Isa isa)
    : bank_(bank), loops_(rans_loops(isa)), lanes_(lanes), position_(position_of(lanes)), empty_(size == 0) {
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
    side_ = payload;
    payload = side_end_ = side_ + side_size;
    for (unsigned lane = 0; lane < lanes; ++lane, payload += 4) {
        states_[lane] = load32(payload);
        if (states_[lane] < kStateLow) throw CorruptStream("bad lane state");
    }
    word_ = payload;
    words_end_ = end;
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

int16_t Decoder::get_side(int32_t v, const TableBank::Table& table) {
    const unsigned raw = table.raw_bits;
    if (v == kEscape) {
        const uint32_t rank = table.escape + get_exp_golomb();
        if (rank >= 65536u >> raw) throw CorruptStream("symbol is outside int16");
        v = unzigzag(rank);
    }
    return int16_t(v * (1 << raw) + int32_t(get_bits(raw)));
}

void Decoder::get(const uint8_t* indexes, int16_t* symbols, size_t n) {
    bank_.check(indexes, n);
    if (empty_ && n) throw CorruptStream("empty payload");
    while (n) {
        const size_t block = std::min(n, kBlock);
        const uint8_t* const next =
            loops_.decode[position_](bank_.slots(), indexes, symbols, block, states_.data(), word_, words_end_);
        if (!next) throw CorruptStream("rANS words end too early");
        word_ = next;
        uint32_t marks[kBlock / 32];
        loops_.mark(symbols, indexes, bank_.first_raw(), block, marks);
        each_mark(marks, block, [&](size_t j) {
            const TableBank::Table& table = bank_.tables()[indexes[j]];
            if (symbols[j] == kEscape || table.raw_bits) symbols[j] = get_side(symbols[j], table);
        });
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

namespace scalar { extern const RansLoops kRansLoops; }
#ifdef NARROWBIT_X86
namespace avx2 { extern const RansLoops kRansLoops; }
namespace avx512 { extern const RansLoops kRansLoops; }
#endif
#ifdef NARROWBIT_ARM
namespace neon { extern const RansLoops kRansLoops; }
#endif

const RansLoops& rans_loops(Isa isa) {
    switch (isa) {
#ifdef NARROWBIT_X86
        case Isa::avx2: return avx2::kRansLoops;
        case Isa::avx512: return avx512::kRansLoops;
#endif
#ifdef NARROWBIT_ARM
        case Isa::neon: return neon::kRansLoops;
#endif
        default: return scalar::kRansLoops;
    }
}

}  // namespace narrowbit
