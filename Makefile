# `make help` lists what there is. Each target installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
COMMIT ?=
OUT ?=
PARTS ?=
PEERS ?=
MINUTES ?=

.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/.train  ## train on the digits (the first time, most of it is compiling) and print the test accuracy
	$(BIN)/fcnet train --config examples/digits.toml

test: $(VENV)/.dev  ## the whole test suite
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal  # no two pools on a processor

lint: $(VENV)/.dev  ## ruff: style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy
	$(BIN)/mypy

golden: $(VENV)/.dev  ## the exact bits of ten small trainings, against those kept for this machine
	$(BIN)/python -m tests.golden check

check: lint types golden test  ## what CI runs: lint, types, bits, tests

crash-test: $(VENV)/.dev  ## kills, failing file calls, flipped bits, hostile files: what is lost or believed -> JSON (OUT=...)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.crash --out "$(or $(OUT),benchmarks/results/crash-test.json)"

bench: $(VENV)/.dev  ## affine and batch norm, then what else a training step is made of, on every usable device
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.run --grid training
	$(BIN)/python docs/make_kernels.py

bench-cpu: $(VENV)/.dev  ## training steps beside other frameworks' on this CPU, first and later steps: 20 minutes (PEERS=torch,...)
	env -u OPENBLAS_CORETYPE $(BIN)/python -m benchmarks.compare --device cpu --long --rounds 5 --no-memory $(if $(PEERS),--peers $(PEERS)) \
	  --json benchmarks/results/compare-cpu-$$($(BIN)/python -m benchmarks.machine).json

docs: $(VENV)/.dev  ## docs/reference.md, from the docstrings; docs/kernels.md, what computes what on each device
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_kernels.py

gpu-check:  ## on a GPU machine, in 8 minutes, with the system's python3, no network, no install: steps, profile, tests -> JSON
	$(PYTHON) -m benchmarks.gpu_check --profile --commit "$(COMMIT)" $(if $(OUT),--out "$(OUT)") \
	  $(if $(PARTS),--parts $(PARTS)) $(if $(MINUTES),--minutes $(MINUTES))

dev-cuda: $(VENV)/.dev  ## CuPy and NVRTC without a GPU, so that the tests compile every kernel and see CuPy's real messages
	$(PIP) -e '.[dev,dev-cuda]'

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

# What is installed where; a stamp is newer than pyproject.toml when nothing is to be done.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fcnet needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.train: pyproject.toml | $(BIN)/python
	@echo "installing fcnet and what it needs into $(VENV) (800 MB): some minutes, in silence if all goes well"
	$(PIP) -e '.[fast,sklearn,plot,data]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing fcnet and its tools into $(VENV) (1 GB or more): some minutes, in silence if all goes well"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.train

.PHONY: help train test lint types golden crash-test check bench bench-cpu docs gpu-check dev-cuda clean
