# make install   .venv with everything for development
# make test      what CI runs: ruff, mypy, pytest
# make demo      the codec as a user has it: .venv-demo, without torch
# make fuzz      the entropy decoder under libFuzzer for FUZZ_SECONDS; needs clang
# make clean     remove everything that make made

PYTHON ?= python3
NATIVE := CMakeLists.txt $(wildcard cpp_ext/*.cpp cpp_ext/*.hpp)
STAMP := .narrowbit-installed

# Python sources are imported from the tree, so only these make an installation stale. Editable, because a plain
# installation would be hidden by the tree's own cpp_ext, which has no compiled module in it.
.venv/$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet "scikit-build-core>=0.10" "nanobind>=2.2" cmake ninja
	.venv/bin/pip install --quiet --no-build-isolation -c constraints.txt \
	    --config-settings=cmake.define.NARROWBIT_WERROR=ON -e ".[test]"
	touch $@

.venv-demo/$(STAMP): pyproject.toml $(NATIVE)
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install --quiet -e ".[demo]"
	touch $@

.PHONY: install test demo fuzz clean
install: .venv/$(STAMP)

test: install
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/pytest

demo: .venv-demo/$(STAMP)
	.venv-demo/bin/python -m bench.demo

FUZZ_SECONDS ?= 600
FUZZ := $(or $(CLANG),clang++) -O1 -g -std=c++17 -fsanitize=address,undefined -fno-sanitize-recover=all
ifeq ($(shell uname -m),x86_64)
FUZZ += -DNARROWBIT_X86
FUZZ_LOOPS := build/fuzz/rans_avx2.o build/fuzz/rans_avx512.o
build/fuzz/rans_avx2.o: ARCH := x86-64-v3
build/fuzz/rans_avx512.o: ARCH := x86-64-v4
build/fuzz/%.o: cpp_ext/%.cpp $(NATIVE)
	mkdir -p build/fuzz
	$(FUZZ) -fsanitize=fuzzer-no-link -march=$(ARCH) -c $< -o $@
endif
fuzz: $(FUZZ_LOOPS)
	mkdir -p build/fuzz/found
	$(FUZZ) -fsanitize=fuzzer tests/cpp_ext/fuzz_decoder.cpp cpp_ext/rans.cpp cpp_ext/rans_scalar.cpp cpp_ext/cpu.cpp \
	    $^ -o build/fuzz/fuzz_decoder
	build/fuzz/fuzz_decoder -max_total_time=$(FUZZ_SECONDS) -max_len=6000 build/fuzz/found tests/cpp_ext/corpus

clean:
	rm -rf .venv .venv-demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
