# `make demo` and `make test` work in a fresh clone: each creates .venv if there is none.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: test lint demo bench format clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,channels,examples,onnx,plots]'
	touch $@

test: lint                       ## lint, types, doctests, tests
	$(BIN)/python -m pytest

lint: $(READY)                   ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: $(READY)                   ## train on real digits, compress, print the report
	$(BIN)/lightning-compress fit --config examples/digits/config.yaml

bench: $(READY)                  ## step cost and thresholds, side by side
	$(BIN)/python -m benchmarks

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache
