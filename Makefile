# Four words: `make demo`, `make test`, `make check`, `make bench`. Each sets up .venv first, once.
#
#   make demo VOCO_TORCH=cuda      take the CUDA build of torch instead (about 3 GB to download)
#   make demo PYTHON=python3.12    another interpreter; 3.11 or later
#   make test ARGS="-k store"      words for pytest

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
VOCO_TORCH ?= cpu
TORCH_VERSION ?= 2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(VOCO_TORCH)

.PHONY: demo test test-gpu check format bench setup clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; '$(PYTHON)' is older or missing. Name one: make PYTHON=/path/to/python3.11" >&2; exit 4; }
	@echo "Setting up $(VENV) with the $(VOCO_TORCH) build of torch $(TORCH_VERSION): a few minutes the first time."
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 4; }
	@PIP="$(BIN)/python -m pip --disable-pip-version-check --quiet" \
	  VOCO_TORCH="$(VOCO_TORCH)" TORCH_VERSION="$(TORCH_VERSION)" sh .ci/install-torch
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/voco demo $(ARGS)

# A file's tests stay in one process, for what they set up once.
test: $(READY)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

test-gpu: $(READY)
	@$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)
	@mkdir -p bench-results
	@for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b --quick --json bench-results/$$(basename $$b .py).json || exit 1; done

clean:
	rm -rf $(VENV) demo bench-results
