// A fuzz target: any bytes as a payload, for every lane count and instruction set. The decoder may refuse them with
// CorruptStream or give symbols, the same on every instruction set; anything else is a finding.
//
// With clang -fsanitize=fuzzer it is a libFuzzer target (make fuzz); with -DSTANDALONE it runs the files it is given.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "../../cpp_ext/rans.hpp"

using namespace narrowbit;

namespace {

// Raw bits, wide and narrow alphabets, and one that is nothing but the escape: the bank of test_rans.py.
const TableBank& bank() {
    static const uint8_t raw[] = {0, 2, 0, 8, 0};
    static const uint16_t sizes[] = {5, 7, 1, 3, 2};
    static const uint16_t frequencies[] = {3000, 500, 500, 90,   6,    1024, 1024, 900, 900,
                                           100,  100, 48,  4096, 2000, 2000, 96,   1,   4095};
    static const TableBank made(raw, 5, sizes, 5, frequencies, 18);
    return made;
}

struct Outcome {
    bool refused = false;
    std::vector<int16_t> symbols;
};

Outcome decode(const std::vector<uint8_t>& payload, unsigned lanes, unsigned passes, size_t n, unsigned stride,
               Isa isa) {
    Outcome outcome;
    outcome.symbols.resize(passes * n);
    std::vector<uint8_t> indexes(n);
    for (size_t j = 0; j < n; ++j) indexes[j] = uint8_t(j * stride / 4 % bank().size());
    try {
        Decoder decoder(bank(), payload.data(), payload.size(), lanes, isa);
        for (unsigned p = 0; p < passes; ++p) decoder.get(indexes.data(), outcome.symbols.data() + p * n, n);
        decoder.finish();
    } catch (const CorruptStream&) {
        outcome.refused = true;
    }
    return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 4) return 0;
    const unsigned lanes = 1u << (data[0] % 6), passes = 1 + data[0] / 64, stride = data[1];
    const size_t n = (data[2] | data[3] << 8) % 5000;
    const std::vector<uint8_t> payload(data + 4, data + size);  // ends where a sanitizer sees a read beyond
    if (lanes == 2 || lanes == 16) {
        try {
            Decoder refused(bank(), payload.data(), payload.size(), lanes, Isa::scalar);
        } catch (const std::invalid_argument&) {
            return 0;
        }
        std::abort();
    }
    const Outcome first = decode(payload, lanes, passes, n, stride, Isa::scalar);
    for (const Isa isa : kEveryIsa) {
        if (!has(isa)) continue;
        const Outcome other = decode(payload, lanes, passes, n, stride, isa);
        if (other.refused != first.refused) std::abort();
        if (!first.refused && other.symbols != first.symbols) std::abort();
    }
    return 0;
}

#ifdef STANDALONE
int main(int count, char** files) {
    for (int i = 1; i < count; ++i) {
        std::ifstream file(files[i], std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
    std::printf("%d inputs\n", count - 1);
}
#endif
