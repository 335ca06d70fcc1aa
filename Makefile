# `make demo` and `make test` are all a fresh Debian 12 needs; both set up everything they use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-full lint types layers sid tables setup clean

demo: $(STAMP)
	@$(BIN)/tridsl demo

test: $(STAMP) lint types layers sid
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not full"

test-full: $(STAMP) lint types layers sid
	$(BIN)/pytest -q -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

sid:
	@.ci/sid-root

tables: $(STAMP)
	$(BIN)/python -m tridsl.generate

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/packages
	@.ci/packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip
	@$(BIN)/python -m pip install -q -e '.[dev,vulkan,image,demo]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
