#include "conv.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads.hpp"

namespace narrowbit {
namespace {

constexpr size_t kBlockRows = 32;  // of a picture, whose gradient of the weights is taken at once

size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// A picture's codes with code 0 around them. A position has `group` bytes for each group of channels, filled up.
struct Frame {
    size_t groups, channels, group, height, width, before, lines, line;  // channels: of one group; line: bytes
    std::vector<uint8_t> bytes, plain;

    // beyond: positions after the last line that are read and count for nothing.
    Frame(size_t groups, size_t channels, size_t height, size_t width, size_t before, size_t after, size_t beyond)
        : groups(groups),
          channels(channels / groups),
          group(up(channels / groups, 4)),
          height(height),
          width(width),
          before(before),
          lines(before + height + after),
          line((before + width + after) * groups * group),
          bytes(lines * line + beyond * groups * group, uint8_t(kOffset)),
          plain(groups > 1 && group != channels / groups ? height * width * channels : 0) {}

    size_t position() const { return groups * group; }
    uint8_t* inside(size_t y) { return bytes.data() + (before + y) * line + before * position(); }

    void quantize_picture(const Quantize& q, Real type, size_t image, const void* x, Rounding how) {
        const size_t c = groups * channels, first = image * height * width;
        how.inverse += image * how.step, how.shifts += image * how.step;
        if (plain.empty()) {
            q.rows(type, first, first + height * width, c, x, how, {inside(0), position(), width, line});
            return;
        }
        q.rows(type, first, first + height * width, c, x, how, {plain.data(), c, height * width, 0});
        for (size_t y = 0; y < height; ++y)
            for (size_t i = 0; i < width * groups; ++i)
                std::memcpy(inside(y) + i * group, plain.data() + (y * width * groups + i) * channels, channels);
    }
};

Frame input_frame(const Shape& s) {
    return {s.groups, s.inputs, s.height, s.width, s.padding, s.padding, 4 * s.stride};
}

// The right side of a product for one group, and where the left side is for each stretch, from a position's group on.
struct Weights {
    std::vector<int8_t> panels;
    std::vector<int32_t> corrections;
    std::vector<size_t> at_a, at_b;
    size_t n, k4;

    // codes (n, taps, channels), taps in (lines, columns) that lie side by side in the frame. One stretch takes all
    // taps of a line where a position has only these channels.
    Weights(const Gemm& g, size_t n, size_t lines, size_t columns, size_t channels, const int8_t* codes,
            const Frame& frame)
        : n(n) {
        const size_t taps = lines * columns, k = taps * frame.group;
        std::vector<int8_t> filled;
        if (channels < frame.group) {
            filled.resize(n * k);
            for (size_t i = 0; i < n * taps; ++i)
                std::copy_n(codes + i * channels, channels, filled.data() + i * frame.group);
            codes = filled.data();
        }
        panels.resize(panel_bytes(n, k)), corrections.resize(up(n, kColumns));
        g.pack(n, k, codes, panels.data(), corrections.data());
        const size_t together = frame.groups == 1 ? columns : 1;
        for (size_t t = 0; t < taps; t += together) {
            at_a.push_back(t / columns * frame.line + t % columns * frame.position());
            at_b.push_back(t * frame.group * kColumns);
        }
        k4 = together * frame.group / 4;
    }

    Stretches stretches() const { return {at_a.size(), k4, at_a.data(), at_b.data()}; }
    Right right() const {
        return {panels.data(), panels.size() / up(n, kColumns) * kColumns, 4 * kColumns, corrections.data()};
    }
};

// Input positions whose remainders by the stride are (y, x) see the same taps: those of lines y0, y0 + stride ... The
// frame of the gradient has its first at (row, column), from the output position that the remainder's first has.
struct Phase {
    size_t y, x, row, column;
    std::vector<Weights> groups;  // none where no tap sees them
};

// Taps ky that meet input lines of this remainder, in the order of the gradient's lines: largest first.
std::vector<size_t> taps(size_t remainder, size_t k, size_t stride, size_t padding) {
    std::vector<size_t> found;
    for (size_t t = k; t-- > 0;)
        if ((remainder + padding + stride * k - t) % stride == 0) found.push_back(t);
    return found;
}

std::vector<Phase> phases(const Gemm& g, const Shape& s, const int8_t* weights, const Frame& frame) {
    const size_t ci = s.inputs / s.groups, co = s.outputs / s.groups;
    std::vector<Phase> made;
    for (size_t y = 0; y < std::min(s.stride, s.height); ++y)
        for (size_t x = 0; x < std::min(s.stride, s.width); ++x) {
            const auto ty = taps(y, s.ky, s.stride, s.padding), tx = taps(x, s.kx, s.stride, s.padding);
            Phase phase{y, x, 0, 0, {}};
            if (!ty.empty() && !tx.empty()) {
                // frame.before is large enough for these to be no less than 0.
                phase.row = frame.before + (y + s.padding + s.stride * s.ky - ty[0]) / s.stride - s.ky;
                phase.column = frame.before + (x + s.padding + s.stride * s.kx - tx[0]) / s.stride - s.kx;
                for (size_t group = 0; group < s.groups; ++group) {
                    std::vector<int8_t> codes;
                    for (size_t i = 0; i < ci; ++i)
                        for (const size_t a : ty)
                            for (const size_t b : tx)
                                for (size_t o = 0; o < co; ++o)
                                    codes.push_back(weights[(((group * co + o) * s.ky + a) * s.kx + b) * ci + i]);
                    phase.groups.emplace_back(g, ci, ty.size(), tx.size(), co, codes.data(), frame);
                }
            }
            made.push_back(std::move(phase));
        }
    return made;
}

// The gradient of the weights of one group, summed over some pictures: (ky, kx, inputs, outputs rounded up).
struct WeightGradient {
    const Shape& s;
    const Frame &x, &dy;
    size_t n, fours;
    std::vector<int32_t> sums, totals;
    std::vector<uint8_t> left, right;

    WeightGradient(const Shape& s, const Frame& x, const Frame& dy)
        : s(s),
          x(x),
          dy(dy),
          n(up(dy.channels, 16)),
          fours(up(s.columns, 4) / 4),
          sums(s.groups * s.ky * s.kx * x.channels * n),
          totals(s.groups * n),
          left(((kBlockRows - 1) * s.stride + s.ky) * fours * s.kx * x.channels * 4),
          right(kBlockRows * fours * n * 4) {}

    void add(const Gemm& g, const Quantize& q) {
        for (size_t first = 0; first < s.rows; first += kBlockRows)
            for (size_t group = 0; group < s.groups; ++group)
                add(g, q, group, first, std::min(kBlockRows, s.rows - first));
    }

    void add(const Gemm& g, const Quantize& q, size_t group, size_t first, size_t rows) {
        const size_t m = s.kx * x.channels, lines = (rows - 1) * s.stride + s.ky;
        const size_t left_line = fours * m * 4, right_line = fours * n * 4;
        for (size_t y = 0; y < lines; ++y) {
            const uint8_t* from = x.bytes.data() + (first * s.stride + y) * x.line + group * x.group;
            for (size_t tap = 0; tap < s.kx; ++tap)
                q.interleave(fours, x.channels, from + tap * x.position(), s.stride * x.position(), 0,
                             left.data() + y * left_line + tap * x.channels * 4, m * 4);
        }
        std::vector<size_t> at_a(rows), at_b(rows);
        for (size_t y = 0; y < rows; ++y) {
            const uint8_t* from = dy.bytes.data() + (dy.before + first + y) * dy.line + dy.before * dy.position();
            from += group * dy.group, at_b[y] = y * right_line;
            q.totals(s.columns, dy.channels, from, dy.position(), totals.data() + group * n);
            q.interleave(fours, dy.channels, from, dy.position(), kOffset, right.data() + at_b[y], n * 4);
        }
        for (size_t tap = 0; tap < s.ky; ++tap) {
            for (size_t y = 0; y < rows; ++y) at_a[y] = (y * s.stride + tap) * left_line;
            g.multiply(0, m, n, {rows, fours, at_a.data(), at_b.data()}, {left.data(), 4, 4 * m},
                       {reinterpret_cast<const int8_t*>(right.data()), 4 * kColumns, 4 * n, nullptr},
                       sums.data() + (group * s.ky + tap) * m * n, n);
        }
    }

    // dw (outputs, ky, kx, inputs of a group) += the sums, which begin again. Codes of x were 128 too large on the
    // left.
    void flush(int64_t* dw) {
        const size_t taps = s.ky * s.kx, c = x.channels;
        for (size_t group = 0; group < s.groups; ++group)
            for (size_t o = 0; o < dy.channels; ++o)
                for (size_t i = 0; i < taps * c; ++i) {
                    // The sums may have gone around; what is left does not.
                    const uint32_t sum = uint32_t(sums[(group * taps * c + i) * n + o]);
                    const uint32_t found = sum - uint32_t(kOffset) * uint32_t(totals[group * n + o]);
                    dw[(group * dy.channels + o) * taps * c + i] += int32_t(found);
                }
        std::fill(sums.begin(), sums.end(), 0), std::fill(totals.begin(), totals.end(), 0);
    }
};

}  // namespace

size_t saved_bytes(const Shape& s, unsigned bits) {
    return s.height * up(s.width * s.groups * up(s.inputs / s.groups, 4), 8) * bits / 8;
}

void convolve_forward(int threads, const Shape& s, Reals x, Rounding how, unsigned bits, const int8_t* weights,
                      Scales scales, Reals y, uint8_t* saved) {
    const Gemm& g = gemm();
    const Quantize& q = quantize();
    const size_t ci = s.inputs / s.groups, co = s.outputs / s.groups, picture = saved_bytes(s, bits);
    const Frame example = input_frame(s);
    std::vector<Weights> right;
    for (size_t group = 0; group < s.groups; ++group)
        right.emplace_back(g, co, s.ky, s.kx, ci, weights + group * co * s.ky * s.kx * ci, example);
    const size_t work = s.images * s.rows * s.columns * s.outputs * s.ky * s.kx * ci;
    deal(threads, s.images, 1, work, [&](size_t first, size_t last) {
        Frame frame = example;
        std::vector<int32_t> sums(s.columns * s.outputs);
        for (size_t image = first; image < last; ++image) {
            frame.quantize_picture(q, x.type, image, x.data, how);
            for (size_t line = 0; line < s.height; ++line)
                q.pack(up(s.width * frame.position(), 8), bits, int(how.lowest), frame.inside(line),
                       saved + image * picture + line * (picture / s.height));
            for (size_t row = 0; row < s.rows; ++row) {
                for (size_t group = 0; group < s.groups; ++group) {
                    const uint8_t* from = frame.bytes.data() + row * s.stride * frame.line + group * frame.group;
                    g.multiply(0, s.columns, co, right[group].stretches(), {from, s.stride * frame.position(), 4},
                               right[group].right(), sums.data() + group * co, s.outputs);
                }
                const size_t first = (image * s.rows + row) * s.columns, size = s.outputs * size_of(y.type);
                auto* to = static_cast<uint8_t*>(y.data) + first * size;
                if (scales.rows)
                    for (size_t column = 0; column < s.columns; ++column)
                        q.scaled_by(y.type, s.outputs, sums.data() + column * s.outputs, scales.rows[first + column],
                                    scales.outputs, to + column * size);
                else
                    q.scaled(y.type, sums.size(), sums.data(), scales.all, to);
            }
        }
    });
}

void convolve_backward(int threads, const Shape& s, Reals dy, Rounding for_dx, const Rounding* for_dw, unsigned bits,
                       int lowest, const uint8_t* saved, const int8_t* weights, const float* scales, Reals dx,
                       int64_t* dw) {
    const Gemm& g = gemm();
    const Quantize& q = quantize();
    const size_t ci = s.inputs / s.groups, margin = std::max(s.ky, s.kx), picture = saved_bytes(s, bits);
    // Fours of columns end in code 0.
    const Frame example(s.groups, s.outputs, s.rows, s.columns, margin, margin + 3, 0);
    const std::vector<Phase> plan = dx.data ? phases(g, s, weights, example) : std::vector<Phase>();
    if (dw) std::fill_n(dw, s.outputs * s.ky * s.kx * ci, 0);
    const auto input_gradient = [&](const Frame& frame, size_t image, std::vector<int32_t>& sums) {
        for (const Phase& p : plan)
            for (size_t y = p.y, row = p.row; y < s.height; y += s.stride, ++row) {
                const size_t columns = (s.width - p.x + s.stride - 1) / s.stride;
                if (p.groups.empty()) std::fill(sums.begin(), sums.end(), 0);
                for (size_t group = 0; group < p.groups.size(); ++group) {
                    const uint8_t* from = frame.bytes.data() + row * frame.line + p.column * frame.position();
                    g.multiply(0, columns, ci, p.groups[group].stretches(),
                               {from + group * frame.group, frame.position(), 4}, p.groups[group].right(),
                               sums.data() + group * ci, s.inputs);
                }
                const size_t at = ((image * s.height + y) * s.width + p.x) * s.inputs, size = size_of(dx.type);
                auto* to = static_cast<uint8_t*>(dx.data) + at * size;
                const float* own = for_dx.rows ? scales + (image * s.height + y) * s.width : nullptr;
                if (s.stride == 1 && !own)
                    q.scaled(dx.type, columns * s.inputs, sums.data(), scales[image], to);
                else
                    for (size_t column = 0; column < columns; ++column)
                        q.scaled(dx.type, s.inputs, sums.data() + column * s.inputs, own ? own[column] : scales[image],
                                 to + column * s.stride * s.inputs * size);
            }
    };
    const size_t work = s.images * s.rows * s.columns * s.outputs * s.ky * s.kx * ci;
    deal(threads, s.images, 1, work, [&](size_t first, size_t last) {
        Frame frame = example, input = input_frame(s);
        WeightGradient gradient(s, input, frame);
        std::vector<int32_t> sums(dx.data ? s.width * s.inputs : 0);
        const auto flush = [&] {
#pragma omp critical
            gradient.flush(dw);
        };
        size_t positions = 0;
        for (size_t image = first; image < last; ++image) {
            if (dx.data || !for_dw) frame.quantize_picture(q, dy.type, image, dy.data, for_dx);
            if (dx.data) input_gradient(frame, image, sums);
            if (!dw) continue;
            if (for_dw) frame.quantize_picture(q, dy.type, image, dy.data, *for_dw);
            for (size_t line = 0; line < s.height; ++line)
                q.unpack(up(s.width * input.position(), 8), bits, lowest,
                         saved + image * picture + line * (picture / s.height), input.inside(line));
            if ((positions += s.rows * s.columns) > kMostPositions) flush(), positions = s.rows * s.columns;
            gradient.add(g, q);
        }
        if (dw) flush();
    });
}

}  // namespace narrowbit
