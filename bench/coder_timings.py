"""What bench/coder.py has pytest-benchmark time. Not part of the tests: `python -m bench coder` runs it."""

from typing import Any

import pytest

import cpp_ext
from bench import coder as suite
from codec import tables


@pytest.fixture
def who(request: pytest.FixtureRequest) -> str:
    try:
        suite.coder(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("name", suite.SOURCES)
@pytest.mark.parametrize("who", suite.CODERS, indirect=True)
def test_coder(benchmark: Any, who: str, name: str, direction: str) -> None:
    made = suite.coder(who)
    symbols, indexes = suite.part(name, made.limit)
    payload = made.encode(symbols, indexes)
    benchmark.extra_info.update(row=f"coder/{who}/{name}/{direction}", symbols=len(symbols))
    arguments = (symbols, indexes) if direction == "encode" else (payload, indexes)
    benchmark.pedantic(getattr(made, direction), arguments, rounds=suite.ROUNDS, warmup_rounds=1)


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("isa", cpp_ext.instruction_sets(), ids="ours/{}".format)
def test_small_passes(benchmark: Any, isa: str, direction: str) -> None:
    passes, bank = suite.small_passes(), cpp_ext.TableBank(**tables.build())
    payload = suite.code_passes(isa, bank, passes)
    benchmark.extra_info.update(row=f"coder/ours/{isa}/pass/{direction}", calls=len(passes))
    if direction == "encode":
        benchmark.pedantic(suite.code_passes, (isa, bank, passes), rounds=200, warmup_rounds=5)
    else:
        benchmark.pedantic(suite.read_passes, (isa, bank, payload, passes), rounds=200, warmup_rounds=5)
