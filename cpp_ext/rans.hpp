// Interleaved rANS for learned codecs: every symbol names one integer table of a fixed bank.
//
// This header and rans.cpp know no Python. The layout below is the format; it is independent of the instruction set,
// whose loops are rans_scalar.cpp, rans_avx2.cpp and so on.
//
// Alphabet. Table t has raw_bits k, an alphabet of A entries (the last one is the escape) and A frequencies >= 1
// with sum 2^12. A symbol s (int16) is split into v = s >> k (floor) and its k low bits. v is ranked in zigzag order
// 0, -1, 1, -2, 2, ...: with a floor shift, v and -1-v are mirror images for a density that is even around -1/2, which
// a wide zero-mean one nearly is. Ranks 0 .. A-2 are entries of the table; a rank z >= A-1 is the escape.
//
// Main stream. States of 32 bits in [2^16, 2^32), 16-bit words, probabilities of 12 bits: one word at most moves per
// symbol. Each call (pass) begins at lane 0, its symbol j belongs to lane j % lanes, and all lanes share one word
// stream in symbol order. Every lane begins (encoder) and therefore ends (decoder) at 2^16: a checksum that is free.
//
// Side stream, bits packed LSB first, in symbol order: for an escape, e = z - (A-1) as Exp-Golomb of order 0 (b zeros,
// a one, then the b low bits of e + 1, where 2^b <= e + 1 < 2^(b+1)); then the k low bits of s. It is apart from the
// words so that a SIMD decoder needs no branch in its main loop.
//
// Payload. Without symbols: zero bytes. Otherwise: side stream length in bytes (LEB128 varint, shortest form), side
// stream (zero-padded to a byte), `lanes` states (u32 LE), words (u16 LE) in the order the decoder reads them. So of a
// payload that is cut short the first passes can be read: the side stream is 3 % of a picture's at most. The lane
// count and the number of symbols belong to the caller.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cpu.hpp"

namespace narrowbit {

struct RansLoops;

constexpr unsigned kProbBits = 12;
constexpr uint32_t kProbTotal = 1u << kProbBits;
constexpr uint32_t kStateLow = 1u << 16;
constexpr unsigned kMaxLanes = 32;
constexpr unsigned kMaxTables = 256;    // an index is one byte
constexpr unsigned kMaxAlphabet = 256;  // a decoded v is one byte, see DecodeSlot
constexpr unsigned kMaxRawBits = 8;     // keeps every non-escape symbol inside int16 for any alphabet

// The payload is not what an encoder with this bank and lane count wrote.
struct CorruptStream : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Immutable tables, shared by any number of coders and threads. Throws std::invalid_argument for unusable tables.
class TableBank {
public:
    // raw_bits, sizes: one per table; freqs: all tables in a row, sum(sizes) entries.
    TableBank(const uint8_t* raw_bits, size_t n_raw_bits, const uint16_t* sizes, size_t n_sizes,
              const uint16_t* freqs, size_t n_freqs);

    struct Table {  // vectors read it as one 32-bit number
        uint16_t first;  // position of rank 0 among the entries
        uint8_t escape;  // rank of the escape: A - 1
        uint8_t raw_bits;
    };
    // x / frequency == (x * reciprocal + addend) >> shift for every state the encoder can hold; see rans.cpp.
    struct EncodeEntry {
        uint32_t reciprocal, addend;
        uint16_t frequency, start;
        uint8_t shift;
    };
    // bits 0-11: slot - start; bits 12-23: frequency - 1; bits 24-31: v as int8, -128 for the escape.
    using DecodeSlot = uint32_t;

    size_t size() const { return tables_.size(); }
    const Table* tables() const { return tables_.data(); }
    const EncodeEntry* entries() const { return entries_.data(); }
    const uint32_t* intervals() const { return intervals_.data(); }  // start << 16 | frequency, for vectors
    const DecodeSlot* slots() const { return slots_.data(); }  // 2^12 per table
    uint8_t first_raw() const { return first_raw_; }  // no table before it has raw bits

    // Throws std::invalid_argument if an index names no table.
    void check(const uint8_t* indexes, size_t n) const;

private:
    std::vector<Table> tables_;
    std::vector<EncodeEntry> entries_;
    std::vector<uint32_t> intervals_;
    std::vector<DecodeSlot> slots_;
    uint8_t first_raw_ = 255;
};

// rANS is last in, first out: put() only collects (two bytes a symbol), finish() codes everything backwards.
class Encoder {
public:
    // lanes: 1, 4, 8 or 32, else std::invalid_argument. The bank must outlive the encoder.
    Encoder(const TableBank& bank, unsigned lanes, Isa isa);
    // One pass of n symbols. A refused call leaves the encoder as it was.
    void put(const int16_t* symbols, const uint8_t* indexes, size_t n);
    // The payload; afterwards the encoder takes no more symbols.
    std::vector<uint8_t> finish();

private:
    void put_bits(uint32_t value, unsigned count);
    void put_side(int16_t symbol, const TableBank::Table& table);

    const TableBank& bank_;
    const RansLoops& loops_;
    unsigned lanes_, position_;
    bool finished_ = false;
    struct Pass {
        std::unique_ptr<uint16_t[]> ids;  // bank entry of each symbol: at most 256 * 256 of them exist
        size_t size;
    };
    std::vector<Pass> passes_;
    std::vector<uint8_t> side_;
    uint64_t bits_ = 0;  // side bits not yet in side_: fewer than 8 between calls
    unsigned bit_count_ = 0;
};

// Reads the payload in place, checks every access, and allocates nothing that the payload asks for.
class Decoder {
public:
    // The bank and the payload must outlive the decoder.
    Decoder(const TableBank& bank, const uint8_t* payload, size_t size, unsigned lanes, Isa isa);
    // One pass, with the same indexes as the encoder's. After CorruptStream the content of `symbols` is meaningless.
    void get(const uint8_t* indexes, int16_t* symbols, size_t n);
    // Throws CorruptStream unless states, words and side stream all end where the encoder began.
    void finish() const;

private:
    uint32_t get_bits(unsigned count);
    uint32_t get_exp_golomb();
    int16_t get_side(int32_t v, const TableBank::Table& table);

    const TableBank& bank_;
    const RansLoops& loops_;
    unsigned lanes_, position_;
    bool empty_;
    std::array<uint32_t, kMaxLanes> states_;
    const uint8_t *word_ = nullptr, *words_end_ = nullptr;
    const uint8_t *side_ = nullptr, *side_end_ = nullptr;
    uint64_t bits_ = 0;  // side bits already taken from side_, LSB first
    unsigned bit_count_ = 0;
};

// Lane count for an expected number of coded symbols: the most lanes that should cost less than 0.2 % of the payload.
unsigned choose_lanes(size_t n_symbols);

}  // namespace narrowbit
