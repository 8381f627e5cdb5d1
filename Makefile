# Each target works by itself on a machine with Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CODE := grokkit_core cli/grokkit_cli cassettes/grokkit_cassettes $(wildcard plugins/grokkit_*)

.PHONY: demo test check accept bench docs clean

demo: $(VENV)/demo.stamp  ## list the shipped cassettes, fuse two of them, show the table
	$(BIN)/grokkit list
	$(BIN)/grokkit --library build/demo compose cyclotron-1node cyclotron-8node --gate spectral

test: check  ## the whole suite
	$(BIN)/python -m pytest

check: $(VENV)/test.stamp  ## format, lint, types
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy $(CODE)

accept: $(VENV)/test.stamp  ## the full protocols; writes docs/acceptance.md
	$(BIN)/python -m pytest -m acceptance --acceptance-report=docs/acceptance.md

bench: $(VENV)/test.stamp  ## writes docs/benchmarks.md
	$(BIN)/python tests/benchmarks/bench.py --write docs/benchmarks.md

docs: $(VENV)/docs.stamp  ## the site, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/demo.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[docs]'
	touch $@ $(VENV)/demo.stamp
