"""The same bytes from every instruction set of this machine, and each reads what any wrote."""

import hashlib

import numpy as np
import pytest

import cpp_ext
from codec import tables
from tests.cpp_ext.streams import BANK, FREQS, GOLDEN, decode, encode, lanes_of, make_bank, ramp

SETS = cpp_ext.instruction_sets()


def sizes_that_matter(lanes):
    """Passes that end before, at and after every boundary that a vector or a block could have."""
    sizes = sorted({0, 1, 2, *(k * lanes + d for k in (1, 2, 5) for d in (-1, 0, 1)), 31, 32, 33, 4095, 4096, 4097})
    rng = np.random.default_rng(lanes)
    for n in sizes:
        yield np.clip(rng.standard_cauchy(n) * 2, -32768, 32767).astype(np.int16), rng.integers(0, len(FREQS), n)


@lanes_of
@pytest.mark.parametrize("writer", SETS)
def test_instruction_sets_write_the_same_bytes(writer, lanes):
    assert hashlib.sha256(encode(ramp(), lanes, isa=writer)).hexdigest() == GOLDEN[lanes]
    passes = list(sizes_that_matter(lanes))
    assert encode(passes, lanes, isa=writer) == encode(passes, lanes, isa="scalar")


@lanes_of
@pytest.mark.parametrize("reader", SETS)
@pytest.mark.parametrize("writer", SETS)
def test_every_instruction_set_reads_every_other(writer, reader, lanes):
    passes = list(sizes_that_matter(lanes))
    payload = encode(passes, lanes, isa=writer)
    for (symbols, _), decoded in zip(passes, decode(payload, passes, lanes, isa=reader), strict=True):
        np.testing.assert_array_equal(decoded, symbols)


@lanes_of
@pytest.mark.parametrize("isa", SETS)
def test_every_instruction_set_finds_truncation(isa, lanes):
    passes = [(np.tile(ramp()[0][0], 5), np.tile(ramp()[0][1], 5))]
    payload = encode(passes, lanes)
    for size in range(len(payload)):
        with pytest.raises(cpp_ext.CorruptStream):
            decode(payload[:size], passes, lanes, isa=isa)


@pytest.mark.parametrize("isa", SETS)
def test_every_instruction_set_divides_exactly(isa):
    """Tables {f, 4096 - f} for all f: vectors estimate quotients in single precision."""
    rng = np.random.default_rng(2)
    for begin in range(1, 4096, 256):
        of = range(begin, min(begin + 256, 4096))
        bank = make_bank([0] * len(of), [[f, tables.TOTAL - f] for f in of])
        indexes = rng.integers(0, len(bank), 20000)
        passes = [(np.where(rng.random(20000) < (indexes + begin) / 4096, 0, -1), indexes)]
        assert encode(passes, 32, bank, isa) == encode(passes, 32, bank, "scalar")


def test_an_unknown_instruction_set_is_refused():
    for make in (lambda isa: cpp_ext.Encoder(BANK, 1, isa), lambda isa: cpp_ext.Decoder(BANK, b"", 1, isa)):
        with pytest.raises(ValueError, match="z80 is not scalar, avx2, avx512 or neon"):
            make("z80")
