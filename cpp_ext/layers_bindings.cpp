// Types and sizes only: float32 or bfloat16 arrays (numpy or torch) in, results into arrays that the caller made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <type_traits>

#include "layers.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace narrowbit;

namespace nanobind::detail {
template <>
struct dtype_traits<Half> {
    static constexpr dlpack::dtype value{uint8_t(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};
}  // namespace nanobind::detail

namespace {

const auto release = nb::call_guard<nb::gil_scoped_release>();

template <typename S>
using Of = nb::ndarray<S, nb::c_contig, nb::device::cpu>;
using Array = Of<float>;

// Every array must have the elements that the loops will touch.
template <typename... Arrays>
void expect(size_t size, const Arrays&... arrays) {
    if (((arrays.size() != size) || ...)) throw std::invalid_argument("arrays differ in size");
}

template <typename S>
size_t channels(const Of<S>& a) {
    if (a.ndim() == 0 || a.size() == 0) throw std::invalid_argument("an array is empty");
    return a.shape(a.ndim() - 1);
}

void check(int arithmetic) {
    if (arithmetic < 0 || arithmetic > 2) throw std::invalid_argument("arithmetic is 0, 1 or 2");
}

void linear(int a, int threads, int form, Array x, Array panels, std::optional<Array> bias, Array y,
            std::optional<Array> residual, std::optional<Array> narrow) {
    const auto wanted = Form(form);
    if (form < 0 || wanted > Form::add) throw std::invalid_argument("form is 0 to 6");
    const bool gate = wanted == Form::gate;
    const size_t k = channels(x), out = channels(y), rows = gate ? 2 * out : out, n = x.size() / k;
    if ((wanted == Form::add) != residual.has_value()) throw std::invalid_argument("add, and only add, has a residual");
    check(a), expect(n * out, y), expect((out + kPanel - 1) / kPanel * kPanel * k * (gate ? 2 : 1), panels);
    if (bias) expect(rows, *bias);
    if (residual) expect(n * out, *residual, narrow ? *narrow : y);
    const After after{residual ? residual->data() : nullptr, narrow ? narrow->data() : nullptr};
    layers().linear({a, threads}, wanted, n, k, rows, x.data(), panels.data(), bias ? bias->data() : nullptr, after,
                    y.data());
}

void pack(Array weights, Array panels) {
    if (weights.ndim() != 2) throw std::invalid_argument("weights must be (rows, k)");
    const size_t rows = weights.shape(0), k = channels(weights);
    expect((rows + kPanel - 1) / kPanel * kPanel * k, panels);
    layers().pack(k, rows, weights.data(), panels.data());
}

void attention(int threads, size_t heads, Array q, Array k, Array v,
               nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu> table, Array out) {
    const size_t c = channels(q);
    if (heads == 0 || c % heads || channels(k) != c) throw std::invalid_argument("heads do not divide the channels");
    if (table.size() != 256) throw std::invalid_argument("the table has 256 entries");
    expect(k.size(), v), expect(q.size(), out);
    const size_t keys = k.size() / c, queries = q.size() / c;
    for (const Array& a : {q, k, v})
        for (size_t i = 0; i < a.size(); ++i)
            if (!(a.data()[i] >= -8.0f && a.data()[i] < 8.0f)) throw std::invalid_argument("a value is not narrow");
    layers().attention({2, threads}, heads, c / heads, queries, keys, q.data(), k.data(), v.data(), table.data(),
                       out.data());
}

Grid grid(const Array& x) {
    if (x.ndim() != 4 || x.size() == 0) throw std::invalid_argument("x must be (batch, height, width, channels)");
    return {x.shape(0), x.shape(1), x.shape(2), x.shape(3)};
}

template <typename S>
const Passes<S>& passes() {
    if constexpr (std::is_same_v<S, float>)
        return layers().single;
    else
        return layers().half;
}

template <typename S>
void narrow(int a, int threads, Array x, Of<S> h) {
    check(a), expect(x.size(), h);
    passes<S>().narrow({a, threads}, x.size(), x.data(), h.data());
}

template <typename S>
void act(int a, int threads, Of<S> t, Array h) {
    check(a), expect(t.size(), h);
    passes<S>().act({a, threads}, t.size(), 1, t.data(), h.data());
}

template <typename S>
void act_back(int a, int threads, Of<S> t, Array dh, Of<S> dt, Array dbias) {
    const size_t c = channels(t);
    check(a), expect(t.size(), dh, dt), expect(c, dbias);
    passes<S>().act_back({a, threads}, t.size() / c, c, t.data(), dh.data(), dt.data(), dbias.data());
}

template <typename S>
void gate(int a, int threads, Of<S> uv, Of<S> h) {
    const size_t c = channels(h);
    check(a), expect(2 * h.size(), uv);
    passes<S>().gate({a, threads}, h.size() / c, c, uv.data(), h.data());
}

template <typename S>
void gate_back(int a, int threads, Of<S> uv, Of<S> dh, Of<S> duv, Array dbias) {
    const size_t c = channels(dh);
    check(a), expect(2 * dh.size(), uv, duv), expect(2 * c, dbias);
    passes<S>().gate_back({a, threads}, dh.size() / c, c, uv.data(), dh.data(), duv.data(), dbias.data());
}

template <typename S>
void add(int a, int threads, Array x, Of<S> r, Array y, std::optional<Of<S>> h) {
    check(a), expect(x.size(), r, y, h ? *h : r);
    passes<S>().add({a, threads}, x.size(), x.data(), r.data(), y.data(), h ? h->data() : nullptr);
}

template <typename S>
void add_back(int a, int threads, Array x, Of<S> r, Array dy, std::optional<Of<S>> dh, Array dx, Of<S> dr,
              Array dbias) {
    const size_t c = channels(x);
    check(a), expect(x.size(), r, dy, dx, dr, dh ? *dh : r), expect(c, dbias);
    passes<S>().add_back({a, threads}, x.size() / c, c, x.data(), r.data(), dy.data(), dh ? dh->data() : nullptr,
                         dx.data(), dr.data(), dbias.data());
}

template <typename S>
void depthwise(int a, int threads, Array x, Array weights, Array bias, Of<S> y) {
    const Grid g = grid(x);
    check(a), expect(x.size(), y), expect(25 * g.channels, weights), expect(g.channels, bias);
    passes<S>().depthwise({a, threads}, g, x.data(), weights.data(), bias.data(), y.data());
}

template <typename S>
void depthwise_back(int a, int threads, Array x, Array weights, Of<S> y, Of<S> dy, Array passed, Array dx,
                    std::optional<Array> dweights, Array dbias) {
    const Grid g = grid(x);
    check(a), expect(x.size(), y, dy, passed, dx), expect(25 * g.channels, weights, dweights ? *dweights : weights),
        expect(g.channels, dbias);
    passes<S>().depthwise_back({a, threads}, g, x.data(), weights.data(), y.data(), dy.data(), passed.data(), dx.data(),
                               dweights ? dweights->data() : nullptr, dbias.data());
}

// The passes of training, into a module of their own for each type.
template <typename S>
void define(nb::module_& m) {
    m.def("narrow", &narrow<S>, "arithmetic"_a, "threads"_a, "x"_a, "h"_a, release);
    m.def("act", &act<S>, "arithmetic"_a, "threads"_a, "t"_a, "h"_a, release);
    m.def("act_back", &act_back<S>, "arithmetic"_a, "threads"_a, "t"_a, "dh"_a, "dt"_a, "dbias"_a, release);
    m.def("gate", &gate<S>, "arithmetic"_a, "threads"_a, "uv"_a, "h"_a, release);
    m.def("gate_back", &gate_back<S>, "arithmetic"_a, "threads"_a, "uv"_a, "dh"_a, "duv"_a, "dbias"_a, release);
    m.def("add", &add<S>, "arithmetic"_a, "threads"_a, "x"_a, "r"_a, "y"_a, "h"_a.none() = nb::none(), release);
    m.def("add_back", &add_back<S>, "arithmetic"_a, "threads"_a, "x"_a, "r"_a, "dy"_a, "dh"_a.none(), "dx"_a, "dr"_a,
          "dbias"_a, release);
    m.def("depthwise", &depthwise<S>, "arithmetic"_a, "threads"_a, "x"_a, "weights"_a, "bias"_a, "y"_a, release);
    m.def("depthwise_back", &depthwise_back<S>, "arithmetic"_a, "threads"_a, "x"_a, "weights"_a, "y"_a, "dy"_a,
          "passed"_a, "dx"_a, "dweights"_a.none(), "dbias"_a, release);
}

}  // namespace

NB_MODULE(_layers, m) {
    m.def("isa", [] { return layers().name; });
    m.attr("PANEL") = kPanel;
    m.def("pack", &pack, "weights"_a, "panels"_a);
    m.def("linear", &linear, "arithmetic"_a, "threads"_a, "form"_a, "x"_a, "panels"_a, "bias"_a.none(), "y"_a,
          "residual"_a.none() = nb::none(), "narrow"_a.none() = nb::none(), release);
    m.def("attention", &attention, "threads"_a, "heads"_a, "q"_a, "k"_a, "v"_a, "table"_a, "out"_a, release);
    define<float>(m);
    auto half = m.def_submodule("half");
    define<Half>(half);
}
