# `make demo` and `make test` need Rust, a C compiler and Python with pip; everything else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := 'maturin>=1.9,<2' mypy numpy pytest pytest-timeout ruff

.PHONY: help develop demo test test-all bench bench-plots bench-core layout fuzz loom miri tsan lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/.ready: Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TOOLS)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check basedpyright # one more reader of the stubs
	@touch $@

develop: $(BIN)/.ready ## build the extension into .venv (optimised)
	@mkdir -p target
	@echo 'building the extension (a few minutes the first time; target/build.log)'
	@PATH=$(abspath $(BIN)):$$PATH VIRTUAL_ENV=$(abspath $(VENV)) \
		$(BIN)/maturin develop --release > target/build.log 2>&1 || { cat target/build.log; exit 1; }
	@$(BIN)/python -m compileall -q python/rsmp # as pip does when it installs a package

demo: develop ## run the examples on multiprocessing and on rsmp, compare outputs and times
	@$(BIN)/python tools/demo.py

test: develop ## everything: lint, cargo tests, Python tests, the interpreter's own
	@$(BIN)/python tools/test.py

test-all: develop ## the same with every supported interpreter on this machine
	@$(BIN)/python tools/test_all.py

bench: develop ## side by side with the standard library and other libraries; BENCH=--quick for a first look
	@$(BIN)/python benches/install.py
	@$(BIN)/python benches/run.py --record $(BENCH)

bench-plots: develop ## cost against producers, queued messages, sizes and locks; pictures in docs/plots
	@$(BIN)/python benches/install.py
	@$(BIN)/python benches/growth.py

bench-core: ## the engine's own benchmarks, without Python
	@cargo bench --quiet --package rsmp-benches

layout: develop ## put the functions that programs use beside each other (tools/layout.py)
	@$(BIN)/python tools/layout.py
	@$(MAKE) --no-print-directory develop

fuzz: ## run the fuzzers, a minute each (tools/fuzz.py)
	@$(PYTHON) tools/fuzz.py

loom: ## explore the interleavings of the wake protocols (tests/core/loom)
	@cd tests/core/loom && CARGO_TARGET_DIR=$(abspath target/loom) cargo run --release --quiet

miri: ## run the queue and the locks under Miri (tests/core/miri; downloads a nightly compiler)
	@$(PYTHON) tools/miri.py

tsan: ## run the engine's tests with the thread sanitizer (tools/tsan.py; downloads a compiler's source)
	@$(PYTHON) tools/tsan.py

lint: $(BIN)/.ready ## format and lint only
	@$(BIN)/python tools/test.py --only lint

clean: ## remove what was built and installed
	rm -rf $(VENV) .venv-* target python/rsmp/*.so
