# Everything goes through one environment, .venv, which is made on first use and left alone while
# pyproject.toml and constraints.txt stay as they are. An existing .venv is used, not replaced.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# one thread a worker: two workers with two threads each would wait for one another
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all test-kernels test-triton lint docs wheel sanitize clean bench bench-all

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(VENV)/.installed ## farspan itself, editable
install-dev: $(VENV)/.installed-dev ## farspan and the tools to test and check it

demo: $(VENV)/.installed ## read a long document, keep what matters, ask it several questions
	$(BIN)/farspan demo

test: $(VENV)/.installed-dev ## the tests that every change runs
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.installed-dev ## every test, the slow ones included
	$(PYTEST) -m "" $(ARGS)

KERNELS := naive torch native
test-kernels: $(VENV)/.installed-dev ## attention, methods' contract and replay under each kind of kernels in turn
	for kernels in $(KERNELS); do echo "FARSPAN_KERNELS=$$kernels"; FARSPAN_KERNELS=$$kernels $(PYTEST) tests/attention \
	  tests/oracle tests/methods/test_contract.py tests/runtime/test_identity.py tests/methods/*/test_replay_*.py $(ARGS) \
	  || exit 1; done

test-triton: $(VENV)/.installed-dev ## Triton's kernels in its interpreter; installs the extra gpu (1 GB)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[gpu]"
	TRITON_INTERPRET=1 $(PYTEST) -m "" tests/attention/test_triton.py $(ARGS)

lint: $(VENV)/.installed-dev ## style, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

wheel: $(BIN)/python ## dist/*.whl, which works on other machines of this kind without a compiler
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

sanitize: $(VENV)/.installed-dev ## the C++ kernels' tests under AddressSanitizer
	mkdir -p build/sanitize
	$(CXX) -std=c++17 -O1 -g -fsanitize=address -fno-omit-frame-pointer -Wno-maybe-uninitialized -Wno-uninitialized \
	  -shared -fPIC -o build/sanitize/native.so native/*.cpp -lpthread
	FARSPAN_LIBRARY=build/sanitize/native.so LD_PRELOAD=$$($(CXX) -print-file-name=libasan.so) \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc $(BIN)/python -m pytest -q tests/attention/test_native.py \
	  tests/attention/test_sighted.py

bench: $(VENV)/.installed-dev ## speed beside peers, to 8k tokens; leave the machine to it, about 15 minutes
	$(BIN)/python -m benchmarks.attention_step --lengths 4096,8192
	$(BIN)/python -m benchmarks.prefill_patterns --lengths 8192
	$(BIN)/python -m benchmarks.fetch_step --lengths 8192
	$(BIN)/python -m benchmarks.shared_prefix --prefix 8192
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.weights
	$(BIN)/python -m benchmarks.growth --lengths 2048,4096,8192 --repeats 2
	$(BIN)/python -m benchmarks.end_to_end --lengths 8192
	$(BIN)/python -m benchmarks.beside_peers kvpress --lengths 8192

bench-all: SHELL := bash -o pipefail
bench-all: $(VENV)/.installed-dev ## the same, further and beside llama.cpp (builds it), and docs/benchmarks.md made of it
	$(BIN)/python -m benchmarks.attention_step --lengths 4096,32768,131072 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.prefill_patterns --lengths 8192,32768,65536,131072 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.fetch_step --lengths 32768,131072 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.shared_prefix | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.overhead | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.weights | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.growth --lengths 2048,4096,8192,16384,32768 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.end_to_end --lengths 8192,32768 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.beside_peers kvpress --lengths 8192,32768 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.beside_peers llama_cpp --lengths 8192 --repeats 1 | $(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.memory | $(BIN)/python -m benchmarks.record

docs: $(VENV)/.installed-dev ## the pages that commands make: docs/methods.md, docs/tasks.md
	$(BIN)/python -m tests.docs

clean: ## what was built or cached; the environment stays
	rm -rf build dist src/*.egg-info src/farspan/*.so .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f $(VENV)/.installed $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "farspan needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

NATIVE := setup.py $(wildcard native/*)

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.installed $@
