"""What the tests of the coder share: a bank written out, streams, and the bytes they must become."""

import functools

import numpy as np
import pytest

import cpp_ext
from codec import tables

LANES = (1, 4, 8, 32)
lanes_of = pytest.mark.parametrize("lanes", LANES)

# Written out, so that golden bytes depend on the coder alone. Table 2 holds nothing but the escape.
RAW_BITS = [0, 2, 0, 8, 0]
FREQS = [[3000, 500, 500, 90, 6], [1024, 1024, 900, 900, 100, 100, 48], [4096], [2000, 2000, 96], [1, 4095]]


def make_bank(raw_bits=RAW_BITS, freqs=FREQS):
    sizes = np.array([len(f) for f in freqs], np.uint16)
    return cpp_ext.TableBank(np.array(raw_bits, np.uint8), sizes, np.concatenate(freqs).astype(np.uint16))


BANK = make_bank()


@functools.cache
def gaussian_bank():
    return cpp_ext.TableBank(**tables.build())


def encode(passes, lanes, bank=BANK, isa=""):
    encoder = cpp_ext.Encoder(bank, lanes, isa)
    for symbols, indexes in passes:
        encoder.put(np.array(symbols, np.int16), np.array(indexes, np.uint8))
    return encoder.finish()


def decode(payload, passes, lanes, bank=BANK, isa=""):
    """Symbols of every pass; only the indexes of `passes` are read."""
    decoder = cpp_ext.Decoder(bank, payload, lanes, isa)
    decoded = [decoder.get(np.array(indexes, np.uint8)) for _, indexes in passes]
    decoder.finish()
    return decoded


def assert_round_trip(passes, lanes, bank=BANK):
    payload = encode(passes, lanes, bank)
    for (symbols, _), decoded in zip(passes, decode(payload, passes, lanes, bank), strict=True):
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, symbols)
    return payload


def ramp(n=100):
    """A fixed input without a random generator: two passes over all tables, small symbols and escapes."""
    j = np.arange(n)
    symbols = (j * j * 7 % 23 - 11) * np.where(j % 10 == 9, 500, 1)
    return [(symbols[:33], j[:33] % 5), (symbols[33:], j[33:] % 5)]


GOLDEN = {
    1: "482f55232540c5224564d452cbc0e27ee6171e941d48f53e22a2803cd26cbdf0",
    4: "2cc5088b59a5c51960121fa4713a3b65055dc49a7a241059219531301464e737",
    8: "307a4f88f823b6f3e5df698deb5414cd69de291ca4c0f21db787a1b6aebeb566",
    32: "5658f3a8ee86f339739801f995ca4b5ffbffbc5ce37c86ce599c5d590d31d4fc",
}
