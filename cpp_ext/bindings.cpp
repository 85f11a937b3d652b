// Types only: numpy buffers in and out without a copy, C++ exceptions to Python ones. No coding logic here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>

#include "rans.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace narrowbit;

namespace {

template <typename T>
using Input = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Symbols = nb::ndarray<nb::numpy, int16_t, nb::ndim<1>>;

Isa chosen(const std::string& name) { return name.empty() ? isa() : isa(name); }

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Isa known : kEveryIsa)
        if (has(known)) names.emplace_back(name_of(known));
    return names;
}

// The coders run without the GIL; the mutex makes two threads on one coder wait for each other instead of crashing.
struct PyEncoder {
    PyEncoder(const TableBank& bank, unsigned lanes, const std::string& isa) : coder(bank, lanes, chosen(isa)) {}
    Encoder coder;
    std::mutex mutex;
};

struct PyDecoder {
    PyDecoder(const TableBank& bank, nb::bytes data, unsigned lanes, const std::string& isa)
        : payload(std::move(data)),
          coder(bank, static_cast<const uint8_t*>(payload.data()), payload.size(), lanes, chosen(isa)) {}
    nb::bytes payload;  // read in place: declared before the coder that points into it
    Decoder coder;
    std::mutex mutex;
};

template <typename Coder, typename Work>
void unlocked(Coder& self, Work work) {
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(self.mutex);
    work(self.coder);
}

void put(PyEncoder& self, Input<int16_t> symbols, Input<uint8_t> indexes) {
    if (symbols.shape(0) != indexes.shape(0)) throw std::invalid_argument("symbols and indexes differ in length");
    unlocked(self, [&](Encoder& coder) { coder.put(symbols.data(), indexes.data(), symbols.shape(0)); });
}

nb::bytes finish(PyEncoder& self) {
    std::vector<uint8_t> payload;
    unlocked(self, [&](Encoder& coder) { payload = coder.finish(); });
    return nb::bytes(payload.data(), payload.size());
}

Symbols get(PyDecoder& self, Input<uint8_t> indexes) {
    const size_t n = indexes.shape(0);
    std::unique_ptr<int16_t[]> symbols(new int16_t[n]);
    unlocked(self, [&](Decoder& coder) { coder.get(indexes.data(), symbols.get(), n); });
    const nb::capsule owner(symbols.get(), [](void* p) noexcept { delete[] static_cast<int16_t*>(p); });
    return Symbols(symbols.release(), {n}, owner);
}

}  // namespace

NB_MODULE(_native, m) {
    nb::exception<CorruptStream>(m, "CorruptStream", PyExc_ValueError);

    nb::class_<TableBank>(m, "TableBank")
        .def(
            "__init__",
            [](TableBank* self, Input<uint8_t> raw_bits, Input<uint16_t> sizes, Input<uint16_t> freqs) {
                new (self) TableBank(raw_bits.data(), raw_bits.shape(0), sizes.data(), sizes.shape(0), freqs.data(),
                                     freqs.shape(0));
            },
            "raw_bits"_a.noconvert(), "sizes"_a.noconvert(), "freqs"_a.noconvert())
        .def("__len__", &TableBank::size);

    nb::class_<PyEncoder>(m, "Encoder")
        .def(nb::init<const TableBank&, unsigned, const std::string&>(), "bank"_a, "lanes"_a, "isa"_a = "",
             nb::keep_alive<1, 2>())
        .def("put", &put, "symbols"_a.noconvert(), "indexes"_a.noconvert())
        .def("finish", &finish);

    nb::class_<PyDecoder>(m, "Decoder")
        .def(nb::init<const TableBank&, nb::bytes, unsigned, const std::string&>(), "bank"_a, "payload"_a, "lanes"_a,
             "isa"_a = "", nb::keep_alive<1, 2>())
        .def("get", &get, "indexes"_a.noconvert())
        .def("finish", [](PyDecoder& self) { unlocked(self, [](Decoder& coder) { coder.finish(); }); });

    m.def("instruction_sets", &instruction_sets);
    m.def("choose_lanes", &choose_lanes, "n_symbols"_a);
}
