# `make demo` and `make test` need Rust, a C compiler and Python with pip; everything else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help develop demo test

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'maturin>=1.9,<2' mypy numpy pytest pytest-timeout ruff

develop: $(BIN)/maturin ## build the extension into .venv (release)
	PATH=$(abspath $(BIN)):$$PATH VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet

test: develop ## everything: cargo tests, Python tests, the interpreter's own
	cargo test --quiet
	$(BIN)/python -m pytest -q tests
