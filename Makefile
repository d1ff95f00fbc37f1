# arriero. `make help` says what there is. Everything lives in .venv; reruns do nothing that is done already.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PIP_FLAGS ?= --disable-pip-version-check --quiet
BIN := .venv/bin
TORCH ?= 2.11.0
TORCH_TESTS := tests/pretrain/test_torch_calls.py tests/pretrain/model tests/pretrain/optim tests/pretrain/checkpoint \
	tests/pretrain/test_training_loop.py tests/pretrain/test_against_transformers.py tests/distributed/test_parity.py \
	tests/distributed/test_compiled_blocks.py tests/fake_device
BEGAN := $(shell date +%s)
PYTEST := $(BIN)/python -m pytest
# Processes of pytest; tests start many of their own, one thread each.
WORKERS ?= 2

.PHONY: help demo test test-full test-python test-torch lint bench clean setup setup-dev system

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: .venv/.stamp-run  ## raw documents → packed dataset → training → report, on this machine (runs/demo)
	$(BIN)/python -m launch.demo --began $(BEGAN)

test: .venv/.stamp-dev system  ## all tests but the long campaigns (about 23 minutes on 2 cores)
	$(PYTEST) -n $(WORKERS) -m "not full" -rs $(ARGS)

test-full: .venv/.stamp-dev system  ## the long campaigns too
	$(PYTEST) -n $(WORKERS) -rs $(ARGS)

# Hydra's parser is published without a wheel.
test-python:  ## tests on another Python, in .venv-X.Y: make test-python PYTHON=python3.14 [ARGS=tests/configs]
	folder=.venv-$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	$(PYTHON) -m venv $$folder; \
	$$folder/bin/python -m pip install $(PIP_FLAGS) --only-binary :all: --no-binary antlr4-python3-runtime \
		-c constraints.txt -e '.[dev]'; \
	$$folder/bin/python -m data_pipeline.compiling; \
	$$folder/bin/python -m pytest -n $(WORKERS) -m "not full and not slurm and not browser" -rs $(ARGS)

# Constraints but that of torch itself: another release brings its own.
test-torch:  ## tests of what depends on torch, on another release, in .venv-torch-X: make test-torch TORCH=2.11.0
	folder=.venv-torch-$(TORCH); \
	$(PYTHON) -m venv $$folder; \
	grep -v '^torch==' constraints.txt > $$folder/constraints.txt; \
	$$folder/bin/python -m pip install $(PIP_FLAGS) -c $$folder/constraints.txt torch==$(TORCH) -e '.[dev]'; \
	$$folder/bin/python -m data_pipeline.compiling; \
	$$folder/bin/python -m pytest -n $(WORKERS) -m "not full" -rs $(or $(ARGS),$(TORCH_TESTS))

lint: .venv/.stamp-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --line-length 110 .
	$(BIN)/mypy

bench: .venv/.stamp-dev  ## every script of benchmarks/, one after the other
	for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:  ## remove the environment, caches and build output (run directories stay)
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: .venv/.stamp-run  ## only the environment that runs arriero
setup-dev: .venv/.stamp-dev  ## only the environment for tests and lint

system:
	@tests/slurm/install.sh || echo "The Slurm tests will be skipped."
	@tests/install_browser.sh || echo "The browser tests will be skipped."

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: arriero needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); say which one: make PYTHON=python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.stamp-run: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[data,track,report]'
	$(BIN)/python -m data_pipeline.compiling
	@touch $@

.venv/.stamp-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m data_pipeline.compiling
	@touch $@ .venv/.stamp-run
