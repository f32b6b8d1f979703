# Development in two commands: `make demo` and `make test`. `make` alone lists all targets.
# Options: PYTHON=python3.12 (which interpreter .venv is made with), TORCH_INDEX=URL (where torch comes from;
# https://download.pytorch.org/whl/cpu spares the CUDA build on Linux), DEMO_ARGS="...", ARGS="..." for pytest,
# QT=pyqt6 (the Qt binding that the tests use; default pyside6), WORKERS=4 (processes that share the tests).

PYTHON ?=
TORCH_INDEX ?=
TORCH ?=
DEMO_ARGS ?=
ARGS ?=
QT ?= pyside6
# Tests run in so many processes, each of which computes on one thread.
WORKERS ?= 2
export QT_API := $(QT)
# Where it is set, each process that a test starts compiles the package anew, and each run all tests.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Code in which a mistake costs somebody's annotation or result is tested almost line by line.
GATED := --cov=napari_sparseseg.engine --cov=napari_sparseseg.storage
MIN_COVERAGE := 95
# Tests that open windows get a virtual screen, where there is one; Linux without it has the real one, if any.
SCREEN = $(if $(filter Linux,$(shell uname -s)),$(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1600x1000x24"))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo test screenshots check lint types imports docs format ci system-packages constraints clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## make .venv, or bring it up to date; at once when nothing changed
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' scripts/venv.sh

demo: venv ## learn from three painted slices of a generated volume; DEMO_ARGS="--seconds 20 --output DIR"
	$(BIN)/napari-sparseseg demo $(DEMO_ARGS)

test: venv system-packages ## run all tests and hold the coverage, or some tests: ARGS="-k sampler"
ifeq ($(strip $(ARGS)),)
	OMP_NUM_THREADS=1 $(SCREEN) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=40 $(GATED) --cov-report=
	@echo "Coverage of the engine and the storage ($(MIN_COVERAGE) % or more):"
	@$(BIN)/python -m coverage report --fail-under=$(MIN_COVERAGE)
else
	$(SCREEN) $(BIN)/python -m pytest $(ARGS)
endif

check: lint types imports ## lint, types and imports

lint: venv ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: venv ## mypy
	$(BIN)/mypy

imports: venv ## import-linter: dependencies point down
	$(BIN)/lint-imports

# with --quiet, warnings would not be counted
docs: venv ## build the documentation, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

screenshots: venv system-packages ## take the tutorial's pictures anew, in a real window
	$(SCREEN) $(BIN)/python scripts/screenshots.py

format: venv ## let ruff mend and format what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

ci: check docs test ## everything that must hold before a change lands

system-packages: ## install the Debian packages that tests with windows need, where that is allowed
	@scripts/system-packages.sh

constraints: ## write constraints.txt anew from the newest versions; TORCH=VERSION for another torch
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' TORCH='$(TORCH)' scripts/update-constraints.sh

clean: ## remove what builds, tests and linters leave behind
	rm -rf build dist site htmlcov .coverage .coverage.* .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## the same, and .venv
	rm -rf .venv
