# Two commands on a fresh machine with Python 3.11+ and make:
#   make demo   environment, install, and the main job on built-in sample data
#   make test   environment, install, lint, types, layers, the whole suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types layers suite docs clean

# PyTorch comes first and from the constraints: a range would fetch gigabytes of GPU libraries that neither command needs.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# What the tests need besides: the tools, and every optional library.
$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/crista demo --folder crista_demo

test: lint types layers suite

lint: $(VENV)/.developer
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.developer
	$(BIN)/mypy

layers: $(VENV)/.developer
	$(BIN)/lint-imports

suite: $(VENV)/.developer
	$(BIN)/python -m pytest -n 2 --dist worksteal

docs: $(VENV)/.developer
	$(BIN)/python -m crista.config.reference docs/configuration.md

clean:
	rm -rf $(VENV) crista_demo build dist
