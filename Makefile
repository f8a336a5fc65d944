# make demo | test | lint | docs | pages | bench. Each sets up what it needs in .venv; the second call starts at once. test-lowest has an
# environment of its own, .venv-lowest.
# Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV ?= .venv
DEMO := runs/demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs
CONSTRAINTS ?= constraints.txt
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest lint docs pages bench clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(None if $(SUPPORTED) else "autoprune needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "no virtual environment: on Debian and Ubuntu, apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (PyTorch is large: a minute or more)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[all,dev]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

demo: $(INSTALLED) ## search on real digits, report, export, and proof of the export (3 minutes)
	@if [ -e $(DEMO)/study.yaml ]; then echo "removing the earlier demo in $(DEMO)"; rm -rf $(DEMO); fi
	$(BIN)/autoprune search digits_demo --out $(DEMO)
	@test -t 1 || $(BIN)/autoprune status $(DEMO) # on a terminal the search has just shown it
	$(BIN)/autoprune export $(DEMO) --max-flops 0.5 --to $(DEMO)/export
	$(BIN)/autoprune verify $(DEMO)/export

test: $(INSTALLED) ## the whole test suite, without network (45 minutes)
	$(BIN)/python -m pytest

test-lowest: ## the same with the oldest supported versions, in .venv-lowest (6 GB; 15 minutes after installation)
	@$(MAKE) --no-print-directory VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt test

lint: $(INSTALLED) ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED_DOCS) ## the site, into build/site; it asks no other server for anything (its search box needs a web server)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet: that hides warnings from --strict

pages: $(INSTALLED) ## renew what docs/ says of every command, key and method, from the code
	$(BIN)/python -m autoprune.analysis.reference.pages

bench: $(INSTALLED) ## the benchmarks that need no data of their own (an hour; zoo: see its docstring)
	@set -e; for name in train_speed engine_speed engine_growth contract; do \
	  echo "$$name"; $(BIN)/python -m autoprune.analysis.benchmarks.$$name; done

clean: ## remove the environments, the demo's run and the site
	rm -rf $(VENV) .venv-lowest $(DEMO) build/site
