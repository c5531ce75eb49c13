# `make demo` and `make test` work in a fresh clone: each creates .venv if there is none.
PYTHON ?= python3
BIN := .venv/bin
# Files are compiled when they are first imported, which spares two thirds of the installation. They are kept compiled:
# each of the many processes that tests start would else compile all of torch again, for half a minute.
export PYTHONDONTWRITEBYTECODE :=
INSTALL = { test -x $(BIN)/python || $(PYTHON) -m venv .venv; } && $(BIN)/python -m pip install --quiet \
	--disable-pip-version-check --no-compile -c constraints.txt -e

.PHONY: test lint demo docs notebooks bench torture format clean

.venv/.demo: pyproject.toml constraints.txt
	$(INSTALL) '.[examples,plots]'
	touch $@

.venv/.ready: pyproject.toml constraints.txt
	$(INSTALL) '.[dev,channels,coreml,docs,examples,executorch,litert,onnx,openvino,plots]'
	touch .venv/.demo .venv/.docs $@

# The runtime of browsers comes from npm. Where that is missing, the tests of it are left out, and say so.
.venv/.web: | .venv/.ready
	npm install --silent --no-fund --no-audit --fetch-retries 1 --fetch-timeout 60000 --prefix .venv/web onnxruntime-web@1.30.0 \
		|| echo 'NOT INSTALLED: onnxruntime-web, whose tests need Node.js and npm'
	touch $@

.venv/.notebooks: pyproject.toml constraints.txt
	$(INSTALL) '.[channels,notebooks,onnx]'
	touch $@

.venv/.docs: pyproject.toml constraints.txt
	$(INSTALL) '.[docs]'
	touch $@

test: lint .venv/.web             ## lint, types, doctests, tests; on such small tensors one thread is fastest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: .venv/.ready                 ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: .venv/.demo                  ## train on real digits, compress, print the report
	$(BIN)/lightning-compress fit --config examples/digits/config.yaml

docs: .venv/.docs                  ## the site in build/site, without a network; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

notebooks: .venv/.notebooks        ## run the sources in examples/notebooks, and write them with their outputs to build/notebooks
	mkdir -p build/notebooks
	set -e; for source in $(wildcard examples/notebooks/*.py); do $(BIN)/python -m jupytext --quiet --to ipynb --execute \
		--run-path build/notebooks --output build/notebooks/$$(basename $$source .py).ipynb $$source; done

bench: .venv/.ready                ## pruning beside Lightning's, step cost, thresholds, accuracy
	$(BIN)/python -m benchmarks

torture: .venv/.ready              ## kills, hostile files, long runs: hours; docs/reliability.md holds the tables
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.hostile_files
	$(BIN)/python -m benchmarks.long_runs

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache
