# Two commands are enough on a fresh machine: `make demo` and `make test`. Both first build .venv (`make env`).
# The stamp inside .venv is moved into place last, so an interrupted installation is never taken for a finished one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STARTED := $(VENV)/.installing
CONSTRAINTS := .ci/constraints.txt
ROOTS := core plugins examples tests

.PHONY: help env demo test lint format clean

help:  ## Show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

env: $(STAMP)  ## Build .venv from pinned versions, about 5 GB (PYTHON=python3.12 chooses the Python)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; install Python 3.11 or newer, or pass PYTHON=PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d; colatent needs 3.11 or newer, pass PYTHON=PATH" % sys.version_info[:2])'
	@if [ -e $(STARTED) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && rm -f $(STAMP) && touch $(STARTED)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@mv $(STARTED) $(STAMP)

demo: env  ## Train both stages on data that any Python carries, then write text (minutes)
	$(BIN)/colatent demo

test: env  ## Run all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: env  ## Check style, format and types
	$(BIN)/ruff check $(ROOTS)
	$(BIN)/ruff format --check $(ROOTS)
	$(BIN)/mypy

format: env  ## Sort imports and format
	$(BIN)/ruff check --fix --exit-zero $(ROOTS)
	$(BIN)/ruff format $(ROOTS)

clean:  ## Remove .venv, caches and built files, never runs/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find $(ROOTS) -name __pycache__ -type d -prune -exec rm -rf {} +
