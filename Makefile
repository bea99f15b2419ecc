# Tallylog: `make run` and `make test` do all set-up themselves; Python 3.11+ and make are all they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
ARGS   ?=

.PHONY: run test setup lock lint format bench bench-check storm clean

run: setup            ## start everything, play the demo, stay up (ARGS=--exit ends after the table)
	$(BIN)/tallylog demo $(ARGS)

test: setup lint      ## every test, on the local stack
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

setup: $(STAMP)       ## .venv from the lock

$(STAMP): requirements.lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tallylog needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup          ## what it takes and gives, beside references in the same run (docs/PERFORMANCE.md)
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: setup    ## the same, held against the recorded ratios: by hand, before a release
	$(BIN)/python -m benchmarks --check $(ARGS)

storm: setup          ## kills and faults under load, then every count compared (docs/RELIABILITY.md)
	$(BIN)/python -m tests.storm $(ARGS)

lock:                 ## resolve the lock again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --no-emit-index-url --no-header --quiet \
	  -o requirements.lock.txt pyproject.toml

clean:
	rm -rf $(VENV) .tallylog
