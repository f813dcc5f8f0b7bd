# `make demo` and `make test` need Python >= 3.11 and nothing else: both bring their own environment along.

PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
# what may run at once in one pytest process
WORKERS ?= auto
# processes that share the one GPU: most of a test is the compiler's time
GPU_WORKERS ?= 8

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLD_VENV := .venv-triton36
OLD_STAMP := $(OLD_VENV)/.installed

PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -n $(WORKERS) --dist worksteal
# the choice between interpreter and compiler belongs to a process: nobody's shell decides it
COMPILED := env -u TRITON_INTERPRET
INTERPRETED := env TRITON_INTERPRET=1

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# one thing after the other, so that the last line is the last process's summary
.NOTPARALLEL:

.PHONY: help install demo test lint format test-main test-interpret test-aot test-triton36 test-gpu clean

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

install: $(STAMP) ## the environment, .venv

demo: $(STAMP) ## the tour
	@$(BIN)/python examples/demo.py

test: lint test-triton36 test-aot test-interpret test-main ## everything that CI checks

lint: $(STAMP) ## style, types, the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-main: $(STAMP) ## the tests that need no kernel compiler
	$(COMPILED) $(PYTEST) $(PARALLEL) -m "not interpret and not aot and not gpu"

test-interpret: $(STAMP) ## generated kernels in Triton's interpreter
	$(INTERPRETED) $(PYTEST) $(PARALLEL) -m interpret

test-aot: $(STAMP) ## generated kernels compiled for GPUs that are not there
	$(COMPILED) $(PYTEST) $(PARALLEL) -m aot

test-triton36: $(OLD_STAMP) ## the same, by the oldest Triton we support, without torch
	$(COMPILED) $(OLD_VENV)/bin/python -m pytest -q $(PARALLEL) -m aot tests/aot

test-gpu: ## generated kernels on the GPU that is here, with the Python that has its torch
	$(COMPILED) $(or $(PYTHON),python3) -m pytest -q -p no:benchmark -n $(GPU_WORKERS) -m gpu tests/gpu

# torch's newest release for Linux brings CUDA along: about six gigabytes, GPU or none
$(STAMP): pyproject.toml constraints/main.txt
	$(call need_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq -c constraints/main.txt hatchling editables
	$(BIN)/python -m pip install -qq -c constraints/main.txt --no-build-isolation -e ".[gpu,viz,dev]"
	@touch $@

$(OLD_STAMP): pyproject.toml constraints/triton36.txt
	$(call need_python)
	$(PYTHON) -m venv $(OLD_VENV)
	$(OLD_VENV)/bin/python -m pip install -qq -c constraints/triton36.txt triton==3.6.0 hatchling editables \
		pytest pytest-timeout pytest-xdist hypothesis
	$(OLD_VENV)/bin/python -m pip install -qq -c constraints/triton36.txt --no-build-isolation -e .
	@touch $@

define need_python
@test -n "$(PYTHON)" || { echo "spattn needs Python 3.11 or newer; name one: make PYTHON=/path/to/python" >&2; exit 1; }
endef

clean: ## remove what was built; the environments stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find spattn tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
