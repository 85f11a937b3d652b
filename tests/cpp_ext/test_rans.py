"""The rANS coder from outside: exact round trips, fixed bytes, and no payload that can hurt."""

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpp_ext
from codec import tables
from tests.cpp_ext.streams import (
    BANK,
    FREQS,
    GOLDEN,
    LANES,
    RAW_BITS,
    assert_round_trip,
    decode,
    encode,
    gaussian_bank,
    lanes_of,
    make_bank,
    ramp,
)


def reference_decode(payload, passes, lanes):
    """The layout of rans.hpp in as few words as possible; trusts the payload."""
    assert payload[0] < 128
    side_end = 1 + payload[0]
    states = np.frombuffer(payload, "<u4", lanes, side_end).tolist()
    words = iter(np.frombuffer(payload[side_end + 4 * lanes :], "<u2").tolist())
    bits = iter(np.unpackbits(np.frombuffer(payload[1:side_end], np.uint8), bitorder="little").tolist())

    def number(count):
        return sum(next(bits) << i for i in range(count))

    decoded = []
    for _, indexes in passes:
        for j, index in enumerate(indexes):
            raw, freqs = RAW_BITS[index], FREQS[index]
            lane, starts = j % lanes, np.cumsum([0, *freqs]).tolist()
            slot = states[lane] % 4096
            rank = max(r for r, start in enumerate(starts[:-1]) if start <= slot)
            states[lane] = freqs[rank] * (states[lane] // 4096) + slot - starts[rank]
            if states[lane] < 2**16:
                states[lane] = states[lane] * 2**16 + next(words)
            if rank == len(freqs) - 1:
                length = 0
                while not next(bits):
                    length += 1
                rank += 2**length + number(length) - 1
            v = rank // 2 if rank % 2 == 0 else -(rank // 2) - 1
            decoded.append((v << raw) + number(raw))
    assert states == [2**16] * lanes
    assert next(words, None) is None
    assert not any(bits)
    return decoded


@lanes_of
def test_layout_is_as_written_down(lanes):
    passes = ramp()
    assert reference_decode(encode(passes, lanes), passes, lanes) == np.concatenate([s for s, _ in passes]).tolist()


@lanes_of
def test_golden_bytes(lanes):
    """The format. A change here is a new format version, never a repair of the test."""
    payload = assert_round_trip(ramp(), lanes)
    assert hashlib.sha256(payload).hexdigest() == GOLDEN[lanes]


def test_golden_bytes_in_full():
    passes = [([0, 1, -1, 2, 300], [0, 0, 0, 0, 0]), ([-6, 5, 3], [1, 1, 2])]
    assert encode(passes, 1).hex() == "0401ac621c2bcba234fcff"
    assert encode(passes, 4).hex() == "0401ac621c5ac69610703e2500dc3b0800feafaa02"


@lanes_of
def test_no_symbols_are_no_bytes(lanes):
    assert assert_round_trip([], lanes) == b""
    assert assert_round_trip([([], []), ([], [])], lanes) == b""


@lanes_of
@pytest.mark.parametrize("index", range(len(FREQS)))
@pytest.mark.parametrize("symbol", [0, -1, 1, 127, -128, -32768, 32767])
def test_one_symbol(symbol, index, lanes):
    payload = assert_round_trip([([symbol], [index])], lanes)
    assert len(payload) <= 1 + 4 * lanes + 2 + 6


@lanes_of
def test_every_int16_with_every_table(lanes):
    every = np.arange(-32768, 32768).astype(np.int16)
    assert_round_trip([(every, np.full(len(every), t)) for t in range(len(FREQS))], lanes)


def test_every_frequency_divides_exactly():
    """Tables {f, 4096 - f} for all f, on long random runs: a wrong reciprocal would break the round trip."""
    rng = np.random.default_rng(1)
    for begin in range(1, 4096, 256):
        bank = make_bank(
            [0] * len(range(begin, min(begin + 256, 4096))),
            [[f, tables.TOTAL - f] for f in range(begin, min(begin + 256, 4096))],
        )
        indexes = rng.integers(0, len(bank), 20000)
        assert_round_trip([(np.where(rng.random(20000) < (indexes + begin) / 4096, 0, -1), indexes)], 1, bank)


symbol = st.one_of(st.integers(-4, 4), st.integers(-32768, 32767))
a_pass = st.lists(st.tuples(symbol, st.integers(0, len(FREQS) - 1)), max_size=80).map(
    lambda pairs: ([s for s, _ in pairs], [i for _, i in pairs])
)


@settings(deadline=None, max_examples=150)
@given(passes=st.lists(a_pass, max_size=4), lanes=st.sampled_from(LANES))
def test_any_passes_round_trip(passes, lanes):
    assert_round_trip(passes, lanes)


@st.composite
def any_bank(draw):
    freqs = []
    for _ in range(draw(st.integers(1, 4))):
        cuts = draw(st.lists(st.integers(1, 4095), unique=True, max_size=255).map(sorted))
        freqs.append(np.diff([0, *cuts, 4096]).tolist())
    return draw(st.lists(st.integers(0, 8), min_size=len(freqs), max_size=len(freqs))), freqs


@settings(deadline=None, max_examples=60)
@given(tables_=any_bank(), lanes=st.sampled_from(LANES), seed=st.integers(0, 2**32 - 1))
def test_any_bank_round_trips(tables_, lanes, seed):
    rng = np.random.default_rng(seed)
    indexes = rng.integers(0, len(tables_[1]), 500)
    symbols = np.clip(rng.standard_cauchy(500) * 10, -32768, 32767).astype(np.int16)
    assert_round_trip([(symbols, indexes)], lanes, make_bank(*tables_))


@lanes_of
def test_size_is_that_of_the_model(lanes):
    """200 000 codec-like symbols: within 0.1 % of the ideal length under the true Gaussians, and a state."""
    rng = np.random.default_rng(5)
    scales = np.array([tables.scale(i) for i in range(tables.SCALES)])
    nearest = np.log(0.35 / scales[0]) + rng.standard_normal(200_000)
    indexes = np.clip(np.rint(nearest / np.log(scales[1] / scales[0])), 0, 63).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(200_000) * scales[indexes]).astype(np.int16)
    ideal = 0.0
    for index, sigma in enumerate(scales):
        first, p = tables.gaussian(sigma)
        ideal -= np.log2(p[symbols[indexes == index] - first]).sum() / 8
    payload = assert_round_trip([(symbols, indexes)], lanes, gaussian_bank())
    assert abs(len(payload) - ideal) < 0.001 * ideal + 4 * lanes + 4


# --- damage: CorruptStream, or other symbols where no checksum can tell; never anything else


def attempt(payload, passes, lanes):
    """Whether the payload was refused; anything but symbols or CorruptStream fails the test."""
    try:
        decode(payload, passes, lanes)
    except cpp_ext.CorruptStream:
        return True
    return False


@lanes_of
def test_truncation_is_always_found(lanes):
    payload = encode(ramp(), lanes)
    assert all(attempt(payload[:size], ramp(), lanes) for size in range(len(payload)))


@lanes_of
def test_surplus_is_always_found(lanes):
    payload = encode(ramp(), lanes)
    for surplus in (b"\0", b"\0\0", b"\xff" * 7):
        assert attempt(payload + surplus, ramp(), lanes)
        assert attempt(surplus + payload, ramp(), lanes)


@lanes_of
def test_a_flipped_bit_is_found_or_seen(lanes):
    payload, passes = encode(ramp(), lanes), ramp()
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        if not attempt(bytes(damaged), passes, lanes):
            decoded = np.concatenate(decode(bytes(damaged), passes, lanes))
            assert (decoded != np.concatenate([symbols for symbols, _ in passes])).any(), f"bit {bit} has no meaning"


@pytest.mark.parametrize("wrong", LANES)
@lanes_of
def test_wrong_lane_count(lanes, wrong):
    assert attempt(encode(ramp(), lanes), ramp(), wrong) == (lanes != wrong)


@lanes_of
def test_missing_and_surplus_symbols(lanes):
    (symbols, indexes), second = ramp()
    payload = encode([(symbols, indexes), second], lanes)
    assert attempt(payload, [(symbols, indexes)], lanes)
    assert attempt(payload, [*ramp(), second], lanes)
    assert attempt(payload, [(symbols, indexes[::-1]), second], lanes)
    assert attempt(b"", [([0], [2])], lanes)  # even where a symbol has no bits


@settings(deadline=None, max_examples=300)
@given(payload=st.binary(max_size=64), lanes=st.sampled_from(LANES), n=st.integers(0, 100), index=st.integers(0, 4))
def test_random_bytes(payload, lanes, n, index):
    attempt(payload, [([], [index] * n)], lanes)


@pytest.mark.parametrize("size", range(65))
def test_random_payload_of_every_size(size):
    rng = np.random.default_rng(size)
    for lanes in LANES:
        for _ in range(5):
            payload = b"\0" + rng.bytes(size)  # an empty side stream: gets past the header more often
            attempt(payload, ramp(), lanes)
            attempt(payload[1:], ramp(), lanes)


STATE = bytes([0, 0, 1, 0])  # one lane in its initial state; table 2 reads only the side stream


@pytest.mark.parametrize(
    ("payload", "n", "message"),
    [
        (b"\x80", 0, "side stream length"),
        (b"\xff" * 12, 0, "side stream length"),
        (b"\x80\x00" + STATE, 0, "shortest form"),
        (b"\xff\xff\xff\xff\x7f" + STATE, 0, "too short"),  # 32 GiB announced, nothing allocated
        (b"\x00" + STATE[:3], 0, "too short"),
        (b"\x00\xff\xff\x00\x00", 0, "lane state"),
        (b"\x00" + STATE + b"\0", 0, "half a word"),
        (b"\x00" + STATE + b"\0\0", 0, "left over"),
        (b"\x00" + STATE, 1, "side stream ends"),
        (b"\x01\x00" + STATE, 1, "side stream ends"),
        (b"\x08" + b"\x00" * 8 + STATE, 1, "escape is too long"),
        (b"\x05\x00\x00\xff\xff\xff" + STATE, 1, "outside int16"),
        (b"\x01\x03" + STATE, 1, "left over"),  # padding that is not zero
        (b"\x02\x01\x00" + STATE, 1, "left over"),
    ],
)
def test_each_check_speaks(payload, n, message):
    with pytest.raises(cpp_ext.CorruptStream, match=message):
        decode(payload, [([], [2] * n)], 1)


def test_corrupt_stream_is_a_value_error():
    assert issubclass(cpp_ext.CorruptStream, ValueError)


# --- misuse


@pytest.mark.parametrize(
    ("raw_bits", "freqs"),
    [
        ([], []),
        ([0] * 257, [[4096]] * 257),
        ([9], [[4096]]),
        ([0], [[4095]]),
        ([0], [[4096, 1]]),
        ([0], [[4096, 0]]),
        ([0], [[0, 4096]]),
        ([0], [[1] * 255 + [3841 - 256] + [256]]),
        ([0, 0], [[4096]]),
    ],
)
def test_unusable_tables(raw_bits, freqs):
    with pytest.raises(ValueError):
        make_bank(raw_bits, freqs or [np.zeros(0)])


def test_sizes_must_match_freqs():
    for sizes in ([1], [3], [0, 2], []):
        with pytest.raises(ValueError):
            cpp_ext.TableBank(
                np.zeros(len(sizes), np.uint8), np.array(sizes, np.uint16), np.array([2048, 2048], np.uint16)
            )


def test_bad_index_changes_nothing():
    encoder = cpp_ext.Encoder(BANK, 1)
    encoder.put(np.array([1, 2], np.int16), np.array([0, 1], np.uint8))
    for symbols, indexes in (([0, 0], [0, 5]), ([0, 0], [0]), ([], [0])):
        with pytest.raises(ValueError):
            encoder.put(np.array(symbols, np.int16), np.array(indexes, np.uint8))
    payload = encoder.finish()
    assert payload == encode([([1, 2], [0, 1])], 1)
    decoder = cpp_ext.Decoder(BANK, payload, 1)
    with pytest.raises(ValueError, match="index 5"):
        decoder.get(np.array([0, 5], np.uint8))
    np.testing.assert_array_equal(decoder.get(np.array([0, 1], np.uint8)), [1, 2])
    decoder.finish()


def test_only_the_stated_types_are_taken():
    """A silent cast of int64 symbols would wrap them."""
    encoder, decoder = cpp_ext.Encoder(BANK, 1), cpp_ext.Decoder(BANK, b"", 1)
    good = np.zeros(4, np.int16), np.zeros(4, np.uint8)
    for symbols, indexes in (
        (good[0].astype(np.int64), good[1]),
        (good[0], good[1].astype(np.int8)),
        (good[0][::2], good[1][::2]),
        (good[0][None], good[1][None]),
        ([0], [0]),
    ):
        with pytest.raises(TypeError):
            encoder.put(symbols, indexes)
    with pytest.raises(TypeError):
        decoder.get(good[0])
    with pytest.raises(TypeError):
        cpp_ext.Decoder(BANK, None, 1)


@pytest.mark.parametrize("lanes", [0, 2, 16, 33, 64])
def test_other_lane_counts_are_refused(lanes):
    with pytest.raises(ValueError, match="lanes"):
        cpp_ext.Encoder(BANK, lanes)
    with pytest.raises(ValueError, match="lanes"):
        cpp_ext.Decoder(BANK, b"", lanes)


def test_a_finished_encoder_is_used_up():
    encoder = cpp_ext.Encoder(BANK, 1)
    encoder.finish()
    with pytest.raises(ValueError, match="finished"):
        encoder.put(np.zeros(1, np.int16), np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="finished"):
        encoder.finish()


def test_coders_keep_what_they_read_alive():
    payload = encode(ramp(), 4)
    decoder = cpp_ext.Decoder(make_bank(), bytes(bytearray(payload)), 4)
    for symbols, indexes in ramp():
        np.testing.assert_array_equal(decoder.get(indexes.astype(np.uint8)), symbols)
    decoder.finish()


def test_two_threads_on_one_encoder_wait_for_each_other():
    encoder = cpp_ext.Encoder(BANK, 8)
    symbols, indexes = np.full(5000, 3, np.int16), np.full(5000, 1, np.uint8)
    threads = [threading.Thread(target=lambda: [encoder.put(symbols, indexes) for _ in range(20)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passes = [(symbols, indexes)] * 40
    np.testing.assert_array_equal(decode(encoder.finish(), passes, 8), [symbols] * 40)


def test_more_symbols_more_lanes():
    counts = [0, 50_000, 100_000, 300_000, 1_000_000, 10_000_000]
    assert [cpp_ext.choose_lanes(n) for n in counts] == [1, 1, 4, 8, 32, 32]
