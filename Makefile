# One command for each daily thing. Each sets up what it needs, in .venv, and does it once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo test check bench states schemas clean help

help:            ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: $(READY)   ## Ten scripted agents on a small project; no API key needed
	@$(BIN)/agentful demo

test: $(READY_DEV)  ## Run all tests
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(READY_DEV) ## Types, style, layers, spelling of what is generated, coverage of the core
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q -p no:cacheprovider tests/test_core_*.py tests/test_model.py
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --include='src/agentful/core/*' --fail-under=98

bench: $(READY_DEV) ## Measure, side by side with plain asyncio and make; results in bench/results
	$(BIN)/python -m bench $(ARGS)

states: $(READY)   ## Draw docs/states.md from the scheduler's table
	$(BIN)/python -c "from agentful.core.diagram import states_markdown; print(states_markdown(), end='')" > docs/states.md

schemas: $(READY)  ## Write the JSON Schemas that editors use
	$(BIN)/python -m agentful.config.schema

clean:           ## Remove what was built
	rm -rf $(VENV) dist build .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("agentful needs Python 3.11 or newer; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(READY_DEV): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@
