// Every instruction set of this machine against the scalar loops, function by function, on random banks: the same ids,
// words, states, symbols and marks. Prints how much it compared; exit status 1 at the first difference.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "../../cpp_ext/rans_loops.hpp"

using namespace narrowbit;

namespace {

std::mt19937 source(1);

unsigned below(unsigned n) { return unsigned(source() % n); }

void check(bool same, const char* what, Isa isa, unsigned lanes) {
    if (same) return;
    std::printf("%s differ: %s, %u lanes\n", what, name_of(isa), lanes);
    std::exit(1);
}

struct Bank {
    std::vector<uint8_t> raw;
    std::vector<uint16_t> sizes, frequencies;

    TableBank made() const {
        return TableBank(raw.data(), raw.size(), sizes.data(), sizes.size(), frequencies.data(), frequencies.size());
    }
};

Bank random_bank(unsigned largest) {
    Bank bank;
    for (unsigned tables = 1 + below(64); tables; --tables) {
        std::vector<uint16_t> f(1 + below(largest), 1);
        unsigned rest = kProbTotal - unsigned(f.size());
        for (auto& x : f) {
            const unsigned more = below(2) ? rest / 2 : below(rest + 1);
            x = uint16_t(x + more);
            rest -= more;
        }
        f[0] = uint16_t(f[0] + rest);
        bank.raw.push_back(below(3) ? 0 : uint8_t(below(9)));
        bank.sizes.push_back(uint16_t(f.size()));
        bank.frequencies.insert(bank.frequencies.end(), f.begin(), f.end());
    }
    return bank;
}

struct Coded {
    std::vector<uint8_t> words;
    std::vector<uint32_t> states = std::vector<uint32_t>(kMaxLanes, kStateLow);
};

Coded encode(const RansLoops& loops, unsigned position, const TableBank& bank, const std::vector<uint16_t>& ids,
             size_t n) {
    Coded coded;
    std::vector<uint16_t> words(n + kMaxLanes);
    uint16_t* const end = words.data() + words.size();
    const uint16_t* word = loops.encode[position](bank, ids.data(), n, coded.states.data(), end);
    for (; word != end; ++word) coded.words.insert(coded.words.end(), {uint8_t(*word), uint8_t(*word >> 8)});
    return coded;
}

}  // namespace

int main() {
    size_t compared = 0;
    const RansLoops& scalar = rans_loops(Isa::scalar);
    for (unsigned round = 0; round < 200; ++round) {
        const Bank described = random_bank(round % 2 ? 256 : 6);
        const TableBank bank = described.made();
        const size_t n = below(4) ? below(200) : below(kBlock + 1);
        std::vector<int16_t> symbols(n);
        std::vector<uint8_t> indexes(n);
        for (auto& x : indexes) x = uint8_t(below(unsigned(bank.size())));
        for (auto& x : symbols) x = below(20) ? int16_t(int(below(9)) - 4) : int16_t(below(65536));
        std::vector<uint16_t> ids(n);
        std::vector<uint32_t> marks(kBlock / 32);
        scalar.rank(bank.tables(), symbols.data(), indexes.data(), n, ids.data(), marks.data());

        for (const Isa isa : kEveryIsa) {
            if (!has(isa)) continue;
            const RansLoops& loops = rans_loops(isa);
            std::vector<uint16_t> its_ids(n);
            std::vector<uint32_t> its_marks(kBlock / 32);
            loops.rank(bank.tables(), symbols.data(), indexes.data(), n, its_ids.data(), its_marks.data());
            check(its_ids == ids && its_marks == marks, "ranks", isa, 0);
            for (unsigned position = 0; position < 4; ++position) {
                const unsigned lanes = kLaneCounts[position];
                const Coded coded = encode(scalar, position, bank, ids, n);
                const Coded its_own = encode(loops, position, bank, ids, n);
                check(its_own.words == coded.words && its_own.states == coded.states, "words", isa, lanes);

                // A heap block that ends where the words do: a sanitizer sees every byte read beyond.
                const std::vector<uint8_t> words(coded.words.begin(), coded.words.end());
                const uint8_t* const end = words.data() + words.size();
                std::vector<uint32_t> states = coded.states;
                std::vector<int16_t> decoded(n);
                const uint8_t* const next = loops.decode[position](bank.slots(), indexes.data(), decoded.data(), n,
                                                                   states.data(), words.data(), end);
                check(next == end, "ends", isa, lanes);
                check(std::count(states.begin(), states.end(), kStateLow) == kMaxLanes, "final states", isa, lanes);
                for (size_t j = 0; j < n; ++j) {
                    const int v = symbols[j] >> described.raw[indexes[j]];
                    const bool escape = (v >= 0 ? 2 * v : -2 * v - 1) >= described.sizes[indexes[j]] - 1;
                    check(decoded[j] == (escape ? kEscape : v), "symbols", isa, lanes);
                }
                std::vector<uint32_t> wanted(kBlock / 32), got(kBlock / 32);
                scalar.mark(decoded.data(), indexes.data(), bank.first_raw(), n, wanted.data());
                loops.mark(decoded.data(), indexes.data(), bank.first_raw(), n, got.data());
                check(got == wanted, "marks", isa, lanes);
                compared += n;
            }
        }
    }
    std::string sets;
    for (const Isa isa : kEveryIsa)
        if (has(isa)) sets += std::string(" ") + name_of(isa);
    std::printf("%zu symbols alike:%s\n", compared, sets.c_str());
    return compared ? 0 : 1;
}
